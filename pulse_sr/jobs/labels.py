"""Labels of images from a CSV file: which inputs belong to which group."""

from __future__ import annotations

import csv
import io
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pulse_sr.errors import UsageError, first_line
from pulse_sr.files.paths import read_text
from pulse_sr.jobs.stems import clean_stem

#: Names that the column of the files may have; else it is the first one.
FILE_COLUMNS = ("file", "filename", "file_name", "image", "path", "name", "stem")
#: A column with more values than these is a measurement, not a label.
MOST_GROUPS = 24
_MOST_BYTES = 2**28


@dataclass(frozen=True)
class Labels:
    """A file of labels.

    Attributes:
        path: the file.
        columns: of labels.
        rows: stem -> the rows that name it.
    """

    path: Path
    columns: tuple[str, ...]
    rows: Mapping[str, Sequence[Mapping[str, str]]]


def read_labels(path: Path) -> Labels:
    """Reads a CSV file with a header and one row an image.

    Raises:
        UsageError: it does not exist, is not CSV, or has no column beside that of the files.
    """
    text = read_text(path, _MOST_BYTES, called="--by ")
    try:
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        header = list(reader.fieldnames or [])
        found = list(reader)
    except csv.Error as error:
        raise UsageError(
            f"--by {path} is not CSV: {first_line(error)}", "give a CSV file"
        ) from error
    if len(header) < 2:
        raise UsageError(
            f"{path} has the columns {header}, expected one of files and one of labels",
            "write a header such as: file,age,gender",
        )
    lowered = {name.strip().lower(): name for name in header}
    key = next((lowered[name] for name in FILE_COLUMNS if name in lowered), header[0])
    rows = defaultdict(list)
    for row in found:
        stem = clean_stem(row[key]) if row[key] else ""  # as results of long names are called
        rows[stem].append({k: (row[k] or "").strip() for k in header})
    return Labels(path, tuple(name for name in header if name != key), rows)


def group_inputs(labels: Labels, references: Mapping[str, Path]) -> dict[str, dict[str, list[int]]]:
    """Column -> group -> places of the inputs in it.

    A stem with several rows takes the one in which some column holds the name of the reference's
    folder, such as a split. Inputs without a row or with an empty label are in no group of that
    column. A column with one group, with more than `MOST_GROUPS`, or with fewer than two
    inputs a group on average, is left out.

    Args:
        labels: the file.
        references: stem -> reference, in the order of the inputs.

    Raises:
        UsageError: rows of one stem that can not be told apart, or no column with two groups.
    """
    found: dict[str, dict[str, list[int]]] = {column: {} for column in labels.columns}
    for place, (stem, reference) in enumerate(references.items()):
        row = _row_of(labels, stem, reference)
        for column in labels.columns:
            if row.get(column):
                found[column].setdefault(row[column], []).append(place)
    kept = {
        column: dict(sorted(groups.items(), key=_in_order))
        for column, groups in found.items()
        if 1 < len(groups) <= min(MOST_GROUPS, sum(map(len, groups.values())) // 2)
    }
    if not kept:
        raise UsageError(
            f"{labels.path} makes no groups: no column has 2 to {MOST_GROUPS} labels for the "
            f"{len(references)} inputs",
            "its first column, or the one named file, holds the names of the files",
        )
    return kept


def _in_order(group: tuple[str, list[int]]) -> tuple[tuple[bool, int, str], ...]:
    """Names in the order of the alphabet, numbers in them by size: 3-9 before 10-19."""
    parts = re.findall(r"\d+|\D+", group[0])
    return tuple((not p.isdecimal(), int(p) if p.isdecimal() else 0, p) for p in parts)


def _row_of(labels: Labels, stem: str, reference: Path) -> Mapping[str, str]:
    rows = labels.rows.get(stem, [])
    if len(rows) > 1:
        rows = [row for row in rows if reference.parent.name in row.values()] or rows
    if any(row != rows[0] for row in rows):
        raise UsageError(
            f"{labels.path} has {len(rows)} different rows for {stem}",
            "keep one, or a column with the name of the folder of the references",
        )
    return rows[0] if rows else {}
