"""Which folder of a run folder belongs to which input, and how the faces of an input are called."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Required, TypedDict

from pulse_sr.files.documents import FileName, read_json
from pulse_sr.jobs.manifest import NAME, PAGE, RECORD, Row, base_of, read_rows
from pulse_sr.jobs.task import Input, sha256_of_input

#: Bytes of a stem: file systems take names of 255, and "-face12-345.json" may follow.
_LONGEST, _DIGITS = 200, 8


def list_inputs(
    out: Path,
    paths: Sequence[Path],
    reserved: Sequence[str] = (NAME, PAGE),
    record: str = RECORD,
) -> list[Input]:
    """Returns the inputs with their names, see `assign_stems`."""
    files = [(path, sha256_of_input(path)) for path in paths]
    stems = assign_stems(out, files, reserved, record)
    return [Input(*file, stem) for file, stem in zip(files, stems, strict=True)]


def assign_stems(
    out: Path,
    inputs: Sequence[tuple[Path, str]],
    reserved: Sequence[str] = (NAME, PAGE),
    record: str = RECORD,
) -> list[str]:
    """Returns the folder name of each input (path, sha256): its stem, or stem-2, stem-3, ...

    An input keeps the name that it has in `out` already: it is recognised by its path, or by its
    content if the file that was recorded is gone (moved, or named from another working directory).
    The others take the first free name, in the order given; `reserved` names are never free.
    `record` is the file in each folder that says of which input it is where the manifest does not.
    """
    rows = read_rows(out)
    recorded = _recorded(out, rows, record)
    stems: dict[int, str] = {}
    by_path = {_absolute(path): stem for stem, (path, _) in recorded.items() if path}
    for i, (path, _) in enumerate(inputs):
        if _absolute(path) in by_path:
            stems[i] = by_path.pop(_absolute(path))
    moved = _moved(recorded, set(stems.values()))
    for i, (path, sha256) in enumerate(inputs):
        if i not in stems:
            stem = _claim_moved(path, moved.get(sha256, []))
            if stem is not None:
                stems[i] = stem
    free = _FreeNames(Names(rows).all | {stem.casefold() for stem in recorded} | set(reserved))
    return [
        stems[i] if i in stems else free.name(clean_stem(path))
        for i, (path, _) in enumerate(inputs)
    ]


def belongs(row: Row, entry: Input) -> bool:
    """Whether a row is that of an input, by its content or its place."""
    return _absolute(str(row.get("path"))) == _absolute(entry.path) or (
        row.get("sha256") == entry.sha256
    )


class InputShape(TypedDict):
    """The input of a record."""

    path: str
    sha256: str


class FaceShape(TypedDict):
    """Of a face of a photo, which."""

    base: FileName


class RecordShape(TypedDict, total=False):
    """What is read of the record of any command."""

    input: Required[InputShape]
    face: FaceShape


class Names:
    """Which inputs, by their stems, use which names; upper and lower case are the same.

    Args:
        rows: whose names are in use.
        stems: of more inputs.
    """

    def __init__(self, rows: Sequence[Row], stems: Sequence[str] = ()) -> None:
        self._users: dict[str, set[str]] = {}
        for row in rows:
            self.add(base_of(row), (row["stem"], *row.get("names", ())))
        for stem in stems:
            self.add(stem, (stem,))

    @property
    def all(self) -> set[str]:
        """The names, case-folded."""
        return set(self._users)

    def add(self, stem: str, names: Sequence[str]) -> None:
        """Notes that an input uses `names`."""
        for name in names:
            self._users.setdefault(str(name).casefold(), set()).add(stem)

    def taken(self, name: str, stem: str) -> bool:
        """Whether an input other than `stem` uses the name."""
        return bool(self._users.get(name.casefold(), set()) - {stem})


def face_names(base: str, count: int, names: Names) -> list[str]:
    """Returns the names of the faces of one input: `base`, or base-1, base-2, ... for several.

    Args:
        base: the stem that `assign_stems` gave to the input.
        count: how many faces it has.
        names: those in use; where another input is called base-1, the faces are called base-face1,
            base-face2, ...
    """
    if count == 1:
        return [base]
    middle = "-"
    while any(names.taken(f"{base}{middle}{k}", base) for k in range(1, count + 1)):
        middle += "face"
    return [f"{base}{middle}{k}" for k in range(1, count + 1)]


def clean_stem(path: Path | str | None) -> str:
    """Returns the file's stem, or "image" where that is no usable folder name.

    One above `_LONGEST` bytes in UTF-8 is cut between two characters; a hash of the whole keeps it
    apart from others that begin alike.
    """
    stem = Path(path).stem if path is not None else ""
    if not stem.strip(". "):
        return "image"
    written = os.fsencode(stem)
    if len(written) <= _LONGEST:
        return stem
    digest = hashlib.sha256(written).hexdigest()[:_DIGITS]
    return written[: _LONGEST - _DIGITS - 1].decode("utf-8", "ignore") + "-" + digest


def _recorded(out: Path, rows: Sequence[Row], record: str) -> dict[str, tuple[str, str]]:
    """Which input each folder belongs to: stem -> (path, sha256)."""
    recorded = {
        base_of(row): (str(row.get("path") or ""), str(row.get("sha256") or "")) for row in rows
    }
    listed = {row["stem"] for row in rows}
    for file in sorted(out.glob(f"*/{record}")):
        if file.parent.name not in listed:
            document = read_json(file, RecordShape) or {}
            source, face = document.get("input", {}), document.get("face", {})
            recorded[face.get("base") or file.parent.name] = (
                source.get("path", ""),
                source.get("sha256", ""),
            )
    return recorded


def _moved(recorded: dict[str, tuple[str, str]], claimed: set[str]) -> dict[str, list[str]]:
    """The folders whose input is not where it was, by its content."""
    moved: dict[str, list[str]] = {}
    for stem, (path, sha256) in recorded.items():
        if sha256 and stem not in claimed and not (path and Path(path).exists()):
            moved.setdefault(sha256, []).append(stem)
    return moved


def _claim_moved(path: Path, candidates: list[str]) -> str | None:
    """The first folder of this content that was named after this file: it leaves `candidates`."""
    base = clean_stem(path)
    for stem in candidates:
        if stem == base or stem.startswith(base + "-"):
            candidates.remove(stem)
            return stem
    return None


class _FreeNames:
    """Gives names that nothing else has."""

    def __init__(self, taken: set[str]) -> None:
        self._taken = taken
        self._last: dict[str, int] = {}  # many inputs may have one name: do not count from 1 again

    def name(self, base: str) -> str:
        """Returns `base`, base-2, base-3, ...: the first that is free."""
        number = self._last.get(base.casefold(), 1)
        name = base if number == 1 else f"{base}-{number}"
        while name.casefold() in self._taken:
            number += 1
            name = f"{base}-{number}"
        self._taken.add(name.casefold())
        self._last[base.casefold()] = number
        return name


def _absolute(path: Path | str) -> str:
    return os.path.abspath(path)
