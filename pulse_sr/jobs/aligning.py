"""Photos to a folder of aligned crops: `align` over many inputs, resumable.

    OUT/<stem>.png, <stem>.json     a crop and its sidecar; <stem>-1, -2, ... for several faces
    OUT/lr_16/<stem>.png            the crop through the operator, for every LR size asked for
    OUT/report/contact_sheet.png    all crops in one picture
    OUT/manifest.json               one row per photo: what became of it, and every face left out

The sidecar is written last: a crop without one is incomplete and is made again.

Shape legend: S side of a crop.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from pulse_sr import __version__
from pulse_sr.alignment.duplicates import SeenHashes, perceptual_hash
from pulse_sr.alignment.faces import (
    FramedFace,
    cut_out,
    frame_faces,
    reason_against,
    sharpness,
)
from pulse_sr.alignment.landmarks.base import Landmarks
from pulse_sr.alignment.settings import AlignSettings
from pulse_sr.data.picture import NOT_TRAINING_DATA, licence_files
from pulse_sr.errors import InputError, PulseError, SetupError
from pulse_sr.files.atomic import write_atomic
from pulse_sr.images.pixels import Pixels
from pulse_sr.images.read import LowResImage, read_image
from pulse_sr.images.write import write_png
from pulse_sr.jobs.manifest import NAME, Index, json_bytes, read_rows
from pulse_sr.jobs.sidecar import left_out_entry, sidecar
from pulse_sr.jobs.stems import Names, assign_stems, face_names
from pulse_sr.jobs.store import make_folder
from pulse_sr.jobs.task import file_sha256
from pulse_sr.operators.degrading import degrade
from pulse_sr.report.sheet import contact_sheet

log = logging.getLogger(__name__)

REPORT = "report"
_MOST_ON_SHEET = 500

Row = dict[str, Any]


def align(
    inputs: Sequence[Path],
    out: Path,
    settings: AlignSettings,
    landmarks: Landmarks,
    *,
    overwrite: bool = False,
) -> Generator[Row, None, None]:
    """Crops the faces of all photos; yields the manifest row of each photo when it is done.

    A row has stem, path, sha256, status ("ok" or "failed"), names (of the crops), faces (a short
    record of each crop), left_out (reason, score, side of each face that was not used), and for
    failures error and hint. Rows of photos that were complete already have `resumed` true.

    Raises:
        SetupError: the disk is full, or the landmark source can not work.
    """
    make_folder(out)
    sources = [(path, file_sha256(path)) for path in inputs]
    stems = assign_stems(out, sources, (Path(NAME).stem, REPORT))
    run = _Run(out, settings, landmarks, stems, overwrite)
    try:
        for (path, sha256), stem in zip(sources, stems, strict=True):
            yield run.do(path, sha256, stem)
    finally:
        run.index.flush()
        _write_contact_sheet(out)


def copy_licences(inputs: Sequence[str], out: Path) -> list[Path]:
    """Copies the licence files of folders among the inputs to `out`; returns the copies."""
    copies: list[Path] = []
    for folder in filter(Path.is_dir, map(Path, inputs)):
        for file in licence_files(folder):
            target, number = out / file.name, 1
            while target in copies:
                number += 1
                target = out / f"{file.stem}-{number}{file.suffix}"
            make_folder(out)
            if file.resolve() != target.resolve():
                write_atomic(target, file.read_bytes())
            copies.append(target)
    return copies


class _Run:
    """The rows so far, and the crops that later ones are compared with."""

    def __init__(
        self,
        out: Path,
        settings: AlignSettings,
        landmarks: Landmarks,
        stems: Sequence[str],
        overwrite: bool,
    ) -> None:
        self.out, self.settings, self.landmarks = out, settings, landmarks
        self.mark = settings.fingerprint()
        rows = read_rows(out)
        self.index = Index(out, rows)
        self.known = {} if overwrite else dict(self.index.rows)
        self.names = Names(rows, stems)
        self.seen = SeenHashes()

    def do(self, path: Path, sha256: str, stem: str) -> Row:
        """Aligns one photo, or finds that it is complete."""
        earlier = self.known.get(stem)
        if earlier is not None and self._is_complete(earlier, sha256):
            self._remember(earlier)
            return {**earlier, "resumed": True}
        self._remove(self.index.rows.get(stem, {}))
        row: Row = {"stem": stem, "path": str(path), "sha256": sha256, "fingerprint": self.mark}
        try:
            row |= self._align(read_image(path), stem)
        except SetupError:
            raise
        except PulseError as error:
            log.debug("%s failed", path, exc_info=error)
            row |= {"status": "failed", "error": error.message, "hint": error.hint}
        self._remember(row)
        self.index.put(row)
        self.names.add(stem, row.get("names", ()))
        return row

    def _is_complete(self, row: Row, sha256: str) -> bool:
        if row.get("status") != "ok" or not sha256:
            return False
        if (row.get("sha256"), row.get("fingerprint")) != (sha256, self.mark):
            return False
        names = row.get("names", [])
        files = [self.out / f"{name}.{kind}" for name in names for kind in ("png", "json")]
        files += [self.out / file for face in row["faces"] for file in face["lr"].values()]
        return all(file.is_file() for file in files)

    def _remember(self, row: Row) -> None:
        for face in row.get("faces", ()):
            self.seen.add(str(face["name"]), str(face["phash"]))

    def _remove(self, row: Row) -> None:
        """Removes the files of an earlier row, the sidecars first."""
        for face in row.get("faces", ()):
            for file in (f"{face['name']}.json", f"{face['name']}.png", *face["lr"].values()):
                (self.out / file).unlink(missing_ok=True)

    def _align(self, image: LowResImage, stem: str) -> Row:
        good: list[tuple[FramedFace, float, Pixels, str]] = []
        left_out: list[Row] = []
        twins: list[str | None] = []
        for framed in frame_faces(image, self.landmarks, self.settings.framing):
            sharp = sharpness(image, framed)
            reason = reason_against(framed, sharp, self.settings.limits)
            if reason is None:
                crop = cut_out(image, framed, self.settings.size)
                phash = perceptual_hash(crop)
                twin = self.seen.nearest(phash)
                if twin is None or not self.settings.skip_duplicates:
                    good.append((framed, sharp, crop, phash))
                    twins.append(twin)
                    continue
                reason = f"near-duplicate of {twin}"
            left_out.append(left_out_entry(framed, sharp, reason))
        if not good:
            raise _nothing(image, left_out)
        names = face_names(stem, len(good), self.names)
        faces = [
            self._write(image, (place + 1, len(good)), name, twin, *each)
            for place, (name, twin, each) in enumerate(zip(names, twins, good, strict=True))
        ]
        return {
            "status": "ok",
            "notes": list(image.notes),
            "names": names,
            "faces": faces,
            "left_out": left_out,
        }

    def _write(
        self,
        image: LowResImage,
        place: tuple[int, int],
        name: str,
        twin: str | None,
        framed: FramedFace,
        sharp: float,
        crop: Pixels,
        phash: str,
    ) -> Row:
        text = {"Software": f"pulse-sr {__version__}"}
        write_png(self.out / f"{name}.png", crop, text)
        lr: dict[str, str] = {}
        for low in self.settings.lr:
            if low <= framed.side:  # pixels that the photo does not have are not made up
                lr[str(low)] = f"lr_{low}/{name}.png"
                make_side_folder(self.out / f"lr_{low}")
                small = degrade(crop, self.settings.operator, self.settings.size // low)
                write_png(self.out / lr[str(low)], small, text)
        short = {
            "name": name,
            "score": round(framed.face.score, 4),
            "real_size": round(framed.side, 2),
            "inside": round(framed.inside, 4),
            "sharpness": round(sharp, 2),
            "near_duplicate_of": twin,
            "phash": phash,
            "lr": lr,
        }
        document = sidecar(image, place, framed, self.settings) | short
        write_atomic(self.out / f"{name}.json", json_bytes(document))
        return short


def make_side_folder(folder: Path) -> None:
    """Makes a folder inside a data set whose pictures are not for training."""
    marker = folder / NOT_TRAINING_DATA
    if not marker.is_file():
        make_folder(folder)
        write_atomic(marker, b"train-prior leaves this folder out\n")


def _nothing(image: LowResImage, left_out: list[Row]) -> InputError:
    if not left_out:
        return InputError(
            f"no face found in {image.path} ({image.width}x{image.height} px)",
            "give the points yourself with --landmarks FILE.json",
        )
    reasons = "; ".join(row["reason"] for row in left_out[:3])
    more = f"; and {len(left_out) - 3} more" if len(left_out) > 3 else ""
    return InputError(
        f"no usable face in {image.path}: {reasons}{more}",
        "--min-score, --min-size and --min-sharpness set what is usable",
    )


def contact_sheet_path(out: Path) -> Path | None:
    """Returns the contact sheet of a folder of crops, None if it has none."""
    path = out / REPORT / "contact_sheet.png"
    return path if path.is_file() else None


def _write_contact_sheet(out: Path) -> None:
    crops = [each for each in read_crops(out) if (out / f"{each['name']}.png").is_file()]
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
    make_side_folder(out / REPORT)
    picture = contact_sheet(shown, f"{len(crops)} crops{first}: name, side in the photo, score")
    write_png(out / REPORT / "contact_sheet.png", picture)


def read_crops(out: Path) -> list[Row]:
    """Returns the short record of every crop that the manifest of `out` lists, in its order."""
    return [face for row in read_rows(out) for face in row.get("faces", ())]
