"""The files of a check of training data: pictures to look at, and everything as JSON.

OUT/contact_sheet.png   up to 64 images, evenly picked, as training takes them
OUT/duplicates.png      the groups of near-duplicates, if there are any
OUT/check.json          the document of `--json`, written last
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pulse_sr.atomic import write_atomic
from pulse_sr.images import write_png
from pulse_sr.jobs.aligning import make_side_folder
from pulse_sr.jobs.manifest import json_bytes
from pulse_sr.report.data_check import document
from pulse_sr.report.sheet import Pixels, contact_sheet
from pulse_sr.training.check import DataCheck
from pulse_sr.training.images import decode

_MOST_PICKED = 64
_MOST_DUPLICATES = 200


def write_check(check: DataCheck, out: Path) -> list[Path]:
    """Writes the files of a check to the folder `out`, each atomically; returns them.

    Raises:
        SetupError: the disk is full, or the folder can not be written.
    """
    make_side_folder(out)  # it may lie in the data folder: the sheets are not training data
    sheets = {"contact_sheet.png": _picked(check), "duplicates.png": _duplicates(check)}
    written = []
    for name, sheet in sheets.items():
        if sheet is None:
            (out / name).unlink(missing_ok=True)  # of an earlier check
        else:
            write_png(out / name, sheet)
            written.append(out / name)
    write_atomic(out / "check.json", json_bytes(document(check)))
    return [*written, out / "check.json"]


def _picked(check: DataCheck) -> Pixels | None:
    if not check.images:
        return None
    count = min(_MOST_PICKED, len(check.images))
    places = np.linspace(0, len(check.images) - 1, count).round().astype(int)
    chosen = [check.images[place] for place in places]
    crops = [
        (_as_trained(check, each.file), each.file.name, f"{each.width} x {each.height}")
        for each in chosen
    ]
    heading = f"{count} of {len(check.images)} images of {check.folder}, {check.resolution} px"
    return contact_sheet(crops, heading)


def _duplicates(check: DataCheck) -> Pixels | None:
    files = [
        (file, f"group {number}")
        for number, group in enumerate(check.duplicates, start=1)
        for file in group
    ]
    if not files:
        return None
    shown = files[:_MOST_DUPLICATES]
    first = f", the first {len(shown)} of them" if len(shown) < len(files) else ""
    heading = f"{len(files)} near-duplicates in {len(check.duplicates)} groups{first}"
    return contact_sheet(
        [(_as_trained(check, file), file.name, words) for file, words in shown], heading
    )


def _as_trained(check: DataCheck, file: Path) -> Pixels:  # [3, R, R]
    return decode(check.folder / file, check.resolution)
