"""The files of a check of training data: pictures to look at, and everything as JSON.

OUT/contact_sheet.png   up to 64 images, evenly picked, as training takes them
OUT/duplicates.png      the groups of near-duplicates, if there are any
OUT/check.json          the document of `--json`, written last
"""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np

from pulse_sr.data.check import DataCheck
from pulse_sr.data.decode import decode_files
from pulse_sr.data.open import open_source
from pulse_sr.data.picture import NOT_TRAINING_DATA, make_side_folder
from pulse_sr.errors import UsageError
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_bytes
from pulse_sr.files.lock import LOCK_NAME
from pulse_sr.images.places import check_place
from pulse_sr.images.write import write_png
from pulse_sr.report.data_check import document
from pulse_sr.report.sheet import Pixels, contact_sheet

_FILES = ("contact_sheet.png", "duplicates.png", "check.json")
_MOST_PICKED = 64
_MOST_DUPLICATES = 200

#: (file, words below its picture)
Shown = tuple[Path, str]


def write_check(check: DataCheck, out: Path) -> list[Path]:
    """Writes the files of a check to the folder `out`, each atomically; returns them.

    Raises:
        UsageError: the folder has such files that no check wrote.
        SetupError: the disk is full, or the folder can not be written.
    """
    made = (out / NOT_TRAINING_DATA).is_file() and not (out / LOCK_NAME).exists()
    if not made:  # by an earlier check, nor a training's folder
        check_place(out, [out / name for name in _FILES], error=UsageError)
    picked, copies = _picked(check), _duplicates(check)
    pixels = _as_trained(check, {file for file, _ in [*picked, *copies[:_MOST_DUPLICATES]]})
    make_side_folder(out)  # it may lie in the data folder: the sheets are not training data
    heading = f"{len(picked)} of {len(check.images)} images of {check.data}, {check.resolution} px"
    sheets = {
        "contact_sheet.png": _sheet(picked, pixels, heading),
        "duplicates.png": _sheet(copies[:_MOST_DUPLICATES], pixels, _heading(check, len(copies))),
    }
    written = []
    for name, sheet in sheets.items():
        if sheet is None:
            (out / name).unlink(missing_ok=True)  # of an earlier check
        else:
            write_png(out / name, sheet)
            written.append(out / name)
    write_atomic(out / "check.json", json_bytes(document(check)))
    return [*written, out / "check.json"]


def _picked(check: DataCheck) -> list[Shown]:
    """Images of the whole set, evenly picked."""
    count = min(_MOST_PICKED, len(check.images))
    places = np.linspace(0, len(check.images) - 1, count).round().astype(int)
    chosen = [check.images[place] for place in places]
    return [(each.file, f"{each.width} x {each.height}") for each in chosen]


def _duplicates(check: DataCheck) -> list[Shown]:
    return [
        (file, f"group {number}")
        for number, group in enumerate(check.duplicates, start=1)
        for file in group
    ]


def _heading(check: DataCheck, count: int) -> str:
    first = f", the first {_MOST_DUPLICATES} of them" if count > _MOST_DUPLICATES else ""
    return f"{count} near-duplicates in {len(check.duplicates)} groups{first}"


def _sheet(shown: list[Shown], pixels: dict[Path, Pixels], heading: str) -> Pixels | None:
    if not shown:
        return None
    crops = [(pixels[file], file.name, words) for file, words in shown if file in pixels]
    return contact_sheet(crops, heading)


def _as_trained(check: DataCheck, files: set[Path]) -> dict[Path, Pixels]:  # each [3, R, R]
    """Reads some of the images again, at the resolution of training."""
    source = open_source(check.data, check.member)
    places = [place for place, name in enumerate(source.names) if Path(name) in files]
    with contextlib.closing(decode_files(source, check.resolution, positions=places)) as decoded:
        return {
            Path(source.names[place]): file.pixels
            for place, file in decoded
            if file.pixels is not None
        }
