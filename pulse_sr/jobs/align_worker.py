"""The worker of `align`: the faces of a photo as crops, with what is known of them.

Shape legend: S side of a crop.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch

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
from pulse_sr.data.picture import make_side_folder
from pulse_sr.errors import InputError, SetupError, describe_error
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_bytes, read_json
from pulse_sr.images.pixels import Pixels
from pulse_sr.images.places import check_place, stays_in
from pulse_sr.images.read import LowResImage, read_image
from pulse_sr.images.write import write_png
from pulse_sr.jobs.manifest import Index, Row
from pulse_sr.jobs.sidecar import SidecarShape, left_out_entry, sidecar
from pulse_sr.jobs.stems import Names, face_names
from pulse_sr.jobs.task import Input
from pulse_sr.operators.degrading import degrade

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """A photo and its faces, at its place among the inputs.

    Attributes:
        place: of its task in the job.
        photo: the input.
        image: as read; None: it is complete.
        faces: those that are good enough, and what the manifest says of the others, in the order in
            which they were found; None: nobody has looked.
    """

    place: int
    photo: Input
    image: LowResImage | None
    faces: Sequence[Crop | Row] | None = None


@dataclass(frozen=True)
class Crop:
    """A face that is good enough; `twin` is the earlier crop that it nearly equals, if any."""

    framed: FramedFace
    sharp: float
    pixels: Pixels  # [3, S, S]
    phash: str
    twin: str | None = None


@dataclass(frozen=True)
class Faces:
    """What is written of a photo, with the names of the crops."""

    names: Sequence[str] = ()
    crops: Sequence[Crop] = ()
    left_out: Sequence[Row] = ()


class AlignWorker:
    """Crops the faces of photos: a `job.Worker`, whose records are the rows of the manifest.

    Args:
        index: the manifest.
        settings: of the run.
        landmarks: finds the faces.
        names: those that are in use.
        overwrite: make complete photos again too.
    """

    chunk = 8

    def __init__(
        self,
        index: Index,
        settings: AlignSettings,
        landmarks: Landmarks,
        names: Names,
        overwrite: bool,
    ) -> None:
        self.out, self.index, self.settings = index.out, index, settings
        self.landmarks, self.names, self.overwrite = landmarks, names, overwrite
        self.fingerprint = settings.fingerprint()
        self.seen = SeenHashes()

    def on(self, device: torch.device) -> Self:
        """Returns the worker itself: faces are found on a CPU."""
        return self

    def among(self, tasks: Sequence[Input]) -> Self:
        """Returns the worker itself."""
        return self

    def group(self, task: Input) -> str:
        """Returns the name of the photo."""
        return task.stem

    def known(self, task: Input) -> Row | None:
        """Returns None: also crops of complete photos take their turn in the search for twins."""
        return None

    def read(self, place: int, task: Input) -> Request:
        """Reads a photo that is not complete."""
        if not self.overwrite and self._is_complete(task):
            return Request(place, task, None)
        return Request(place, task, read_image(task.path))

    def prepare(self, request: Request) -> Request:
        """Cuts out the faces of a photo, whose pixels are not needed any more."""
        image = request.image
        if image is None or request.faces is not None:
            return request
        framed = frame_faces(image, self.landmarks, self.settings.framing)
        faces = [self._face(image, each) for each in framed]
        rest = replace(image, pixels=image.pixels[:, :0, :0].copy())
        return replace(request, image=rest, faces=faces)

    def place(self, request: Request) -> int:
        """Returns the place of a photo."""
        return request.place

    def work(
        self, requests: Iterable[Request]
    ) -> Generator[tuple[Request, Faces | Exception], None, None]:
        """Finds the faces of one photo after the other: each is compared with those before."""
        for request in requests:
            answer: Faces | Exception
            try:
                answer = self._faces(self.prepare(request))
            except SetupError:
                raise
            except Exception as error:
                answer = error
            yield request, answer

    def write(self, request: Request, answer: Faces | Exception) -> Row:
        """Writes the crops of a photo, and its row."""
        photo, image = request.photo, request.image
        if isinstance(answer, Exception):
            return self.failed(photo, answer)
        if image is None:
            return {**self.index.rows[photo.stem], "resumed": True}
        self._remove(photo)
        of = len(answer.crops)
        faces = [
            self._write_crop(image, (number, of), name, crop)
            for number, (name, crop) in enumerate(zip(answer.names, answer.crops, strict=True), 1)
        ]
        found = {"names": list(answer.names), "faces": faces, "left_out": list(answer.left_out)}
        return self._put(photo, {"status": "ok", "notes": list(image.notes), **found})

    def failed(self, task: Input, error: Exception, seconds: float = 0.0) -> Row:
        """Writes down that a photo has no crop."""
        log.debug("%s failed", task.path, exc_info=error)
        self._remove(task)
        message, hint, _ = describe_error(error)
        return self._put(task, {"status": "failed", "error": message, "hint": hint})

    def _put(self, photo: Input, outcome: Row) -> Row:
        row: Row = {"stem": photo.stem, "path": str(photo.path), "sha256": photo.sha256}
        row |= {"fingerprint": self.fingerprint, **outcome}
        self.index.put(row)
        return row

    def _is_complete(self, photo: Input) -> bool:
        row = self.index.rows.get(photo.stem, {})
        if row.get("status") != "ok" or not photo.sha256:
            return False
        if (row.get("sha256"), row.get("fingerprint")) != (photo.sha256, self.fingerprint):
            return False
        files = [self.out / name for name in _files(row)]
        return all(
            file.is_file() and (file.suffix != ".json" or read_json(file, SidecarShape) is not None)
            for file in files
        )

    def _remove(self, photo: Input) -> None:
        """Removes the files of an earlier row, the sidecars first."""
        for name in _files(self.index.rows.get(photo.stem, {})):
            if stays_in((self.out / name).parent, self.out):
                (self.out / name).unlink(missing_ok=True)

    def _faces(self, request: Request) -> Faces:
        """Chooses among the faces of a photo, and names them; of a complete one, they are known.

        Raises:
            InputError: there is no usable face.
        """
        if request.image is None:
            for face in self.index.rows[request.photo.stem].get("faces", ()):
                self.seen.add(str(face["name"]), str(face["phash"]))
            return Faces()
        crops, left_out = self._chosen(request.faces or ())
        if not crops:
            raise _nothing(request.image, left_out)
        names = face_names(request.photo.stem, len(crops), self.names)
        self._check_place(request.photo, names)
        self.names.add(request.photo.stem, names)
        for name, crop in zip(names, crops, strict=True):
            self.seen.add(name, crop.phash)
        return Faces(names, crops, left_out)

    def _check_place(self, photo: Input, names: Sequence[str]) -> None:
        """Refuses to write over files that are not ours, or are crops of another photo.

        Raises:
            InputError: there is one.
        """
        known = _files(self.index.rows.get(photo.stem, {}))
        files = [f"{name}{suffix}" for name in names for suffix in (".json", ".png")]
        files += [f"lr_{low}/{name}.png" for name in names for low in self.settings.lr]
        new = [self.out / file for file in files if file not in known]
        check_place(self.out, new)
        for file in new:
            found = read_json(file, SidecarShape, quiet=True) if file.suffix == ".json" else None
            if found is not None and found["source"]["sha256"] != photo.sha256:
                raise InputError(
                    f"{file} is of {found['source']['path']}, not of {photo.path}",
                    "choose another folder with -o DIR",
                )

    def _face(self, image: LowResImage, framed: FramedFace) -> Crop | Row:
        """A face of a photo, or why it is left out."""
        sharp = sharpness(image, framed)
        reason = reason_against(framed, sharp, self.settings.limits)
        if reason is not None:
            return left_out_entry(framed, sharp, reason)
        pixels = cut_out(image, framed, self.settings.size, self.settings.framing)
        return Crop(framed, sharp, pixels, perceptual_hash(pixels))

    def _chosen(self, faces: Sequence[Crop | Row]) -> tuple[list[Crop], list[Row]]:
        """The faces that get a crop, and what the manifest says of the others."""
        crops: list[Crop] = []
        left_out: list[Row] = []
        for face in faces:
            if not isinstance(face, Crop):
                left_out.append(face)
                continue
            twin = self.seen.nearest(face.phash)
            if twin is None or not self.settings.skip_duplicates:
                crops.append(replace(face, twin=twin))
            else:
                reason = f"near-duplicate of {twin}"
                left_out.append(left_out_entry(face.framed, face.sharp, reason))
        return crops, left_out

    def _write_crop(self, image: LowResImage, place: tuple[int, int], name: str, crop: Crop) -> Row:
        framed, text = crop.framed, {"Software": f"pulse-sr {__version__}"}
        write_png(self.out / f"{name}.png", crop.pixels, text)
        lr: dict[str, str] = {}
        for low in self.settings.lr:
            if low <= framed.side:  # pixels that the photo does not have are not made up
                lr[str(low)] = f"lr_{low}/{name}.png"
                make_side_folder(self.out / f"lr_{low}")
                small = degrade(crop.pixels, self.settings.operator, self.settings.size // low)
                write_png(self.out / lr[str(low)], small, text)
        short = {
            "name": name,
            "score": round(framed.face.score, 4),
            "real_size": round(framed.side, 2),
            "inside": round(framed.inside, 4),
            "sharpness": round(crop.sharp, 2),
            "near_duplicate_of": crop.twin,
            "phash": crop.phash,
            "lr": lr,
        }
        document = sidecar(image, place, framed, self.settings) | short
        write_atomic(self.out / f"{name}.json", json_bytes(document))
        return short


def _files(row: Row) -> list[str]:
    """The files of the crops of a row, the sidecar of each first."""
    return [
        file
        for face in row.get("faces", ())
        for file in (f"{face['name']}.json", f"{face['name']}.png", *face["lr"].values())
    ]


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
