"""Photos to a folder of aligned crops: `align` over many inputs, resumable.

    OUT/<stem>.png, <stem>.json     a crop and its sidecar; <stem>-1, -2, ... for several faces
    OUT/lr_16/<stem>.png            the crop through the operator, for every LR size asked for
    OUT/report/contact_sheet.png    all crops in one picture
    OUT/manifest.json               one row per photo: what became of it, and every face left out

The sidecar is written last: a crop without one is incomplete and is made again.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Generator, Sequence
from pathlib import Path

from pulse_sr import __version__
from pulse_sr.alignment.geometry import FFHQ, framing_of
from pulse_sr.alignment.landmarks.base import Landmarks
from pulse_sr.alignment.landmarks.choice import NAMES, make_landmarks
from pulse_sr.alignment.options import AlignOptions, CropOptions, Limits
from pulse_sr.alignment.settings import AlignSettings
from pulse_sr.data.picture import licence_files, make_side_folder
from pulse_sr.devices import choose_device
from pulse_sr.errors import InputError
from pulse_sr.files.atomic import make_folder, remove_leftovers, write_atomic
from pulse_sr.images.places import check_place, refuse_inputs
from pulse_sr.images.read import read_image
from pulse_sr.images.write import write_png
from pulse_sr.jobs.align_worker import AlignWorker
from pulse_sr.jobs.executors.local import run_local
from pulse_sr.jobs.job import Executor, Job
from pulse_sr.jobs.manifest import NAME, Index, Row, check_manifest, read_rows
from pulse_sr.jobs.stems import Names, list_inputs
from pulse_sr.jobs.task import sha256_of_input
from pulse_sr.models import registry
from pulse_sr.report.sheet import contact_sheet

log = logging.getLogger(__name__)

REPORT = "report"
_MOST_ON_SHEET = 500


def landmarks_of(options: AlignOptions, limits: Limits) -> Landmarks:
    """Returns the source of landmarks that the options name.

    Raises:
        UsageError: no such source, or an option that it does not have.
        SetupError: no such device, or the weights of "fan" are missing or damaged.
    """
    fan = options.landmarks == "fan"
    return make_landmarks(
        options.landmarks,
        # Fainter faces are found too, so that the report can say what was left out.
        min_score=min(0.3, limits.min_score),
        weights=options.weights,
        download=options.download,
        device=str(choose_device(options.device)) if fan else "cpu",
    )


def settings_of(options: AlignOptions, limits: Limits) -> AlignSettings:
    """Returns what decides the crops: framing and landmarks by their content.

    Raises:
        UsageError: no such prior, or sizes that do not go together.
    """
    source, own = options.landmarks, options.framing == "prior"
    return AlignSettings(
        **options.of(CropOptions),
        framing=framing_of(registry.load(options.prior).card) if own else FFHQ,
        limits=limits,
        landmarks=source if source in NAMES else f"file {sha256_of_input(Path(source))}",
    )


def align(
    inputs: Sequence[Path],
    out: Path,
    settings: AlignSettings,
    landmarks: Landmarks,
    *,
    overwrite: bool = False,
    executor: Executor = run_local,
) -> Generator[Row, None, None]:
    """Crops the faces of all photos; yields the manifest row of each photo when it is done.

    A row has stem, path, sha256, status ("ok" or "failed"), names (of the crops), faces (a short
    record of each crop), left_out (reason, score, side of each face that was not used), and for
    failures error and hint. Rows of photos that were complete already have `resumed` true.

    Raises:
        UsageError: see `keep_inputs`.
        SetupError: the disk is full, or the landmark source can not work.
    """
    keep_inputs(inputs, out, settings)
    make_folder(out)
    for folder in (out, *_below(out, settings)):
        remove_leftovers(folder)
    photos = list_inputs(out, inputs, (Path(NAME).stem, REPORT))
    rows = read_rows(out)
    index, names = Index(out, rows), Names(rows, [photo.stem for photo in photos])
    worker = AlignWorker(index, settings, landmarks, names, overwrite)
    yield from Job(photos, worker, index, _write_contact_sheet).carry_out(executor)


def keep_inputs(inputs: Sequence[Path], out: Path, settings: AlignSettings) -> None:
    """Refuses a folder where crops could replace an input, or whose manifest is not ours.

    Raises:
        UsageError: it is such a folder.
    """
    refuse_inputs(inputs, out, below=_below(out, settings), flat=True)
    check_manifest(out)


def _below(out: Path, settings: AlignSettings) -> list[Path]:
    """The folders in `out` that files of ours go to."""
    return [out / REPORT, *(out / f"lr_{low}" for low in settings.lr)]


def copy_licences(inputs: Sequence[str], out: Path) -> list[Path]:
    """Copies the licence files of folders among the inputs to `out`; returns the copies."""
    copies: list[Path] = []
    for folder in filter(Path.is_dir, map(Path, inputs)):
        for file in licence_files(folder):
            content, target, number = file.read_bytes(), out / file.name, 1
            while target in copies or not _is_free(target, content):
                number += 1
                target = out / f"{file.stem}-{number}{file.suffix}"
            make_folder(out)
            if not target.exists():
                write_atomic(target, content)
            copies.append(target)
    return copies


def _is_free(path: Path, content: bytes) -> bool:
    """Whether a file of this content may be there: nothing is, or the same is already."""
    if not os.path.lexists(path):
        return True
    return path.is_file() and not path.is_symlink() and path.read_bytes() == content


def contact_sheet_path(out: Path) -> Path | None:
    """Returns the contact sheet of a folder of crops, None if it has none."""
    path = out / REPORT / "contact_sheet.png"
    return path if path.is_file() else None


def _write_contact_sheet(out: Path) -> None:
    # A crop that was sent to a URL is an empty file here.
    crops = [each for each in read_crops(out) if _has_bytes(out / f"{each['name']}.png")]
    if not crops:
        return
    shown = [
        (
            read_image(out / f"{each['name']}.png").pixels,
            each["name"],
            f"{each['real_size']:.0f} px  {each['score']:.2f}",
        )
        for each in crops[:_MOST_ON_SHEET]
    ]
    first = f", the first {_MOST_ON_SHEET} of them" if len(crops) > _MOST_ON_SHEET else ""
    sheet = out / REPORT / "contact_sheet.png"
    try:
        check_place(out, [sheet])
    except InputError as error:
        log.warning("no contact sheet: %s", error.message)
        return
    make_side_folder(out / REPORT)
    picture = contact_sheet(shown, f"{len(crops)} crops{first}: name, side in the photo, score")
    write_png(sheet, picture, {"Software": f"pulse-sr {__version__}"})


def _has_bytes(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def read_crops(out: Path) -> list[Row]:
    """Returns the short record of every crop that the manifest of `out` lists, in its order."""
    return [face for row in read_rows(out) for face in row.get("faces", ())]
