"""A photo with all its faces: `photo_00.png` holds sample 0 of each, `photo_01.png` sample 1.

The photo is enlarged, and every face that was searched is pasted into its place. What is not under
a face keeps its bits where the photo is not enlarged: its depth, opacity and colour profile too.

Shape legend: H W enlarged photo, S side of a sample.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_sr import __version__
from pulse_sr.alignment.crop import crop_quad
from pulse_sr.alignment.detail import beyond_detail
from pulse_sr.alignment.paste import add_into, enlarged_quad, mask_box, paste_into
from pulse_sr.errors import InputError
from pulse_sr.files.atomic import write_atomic, write_parts_atomic
from pulse_sr.files.documents import json_bytes, read_json
from pulse_sr.images.colour import from_srgb, is_srgb
from pulse_sr.images.original import Original, read_original
from pulse_sr.images.pixels import Pixels, to_pillow
from pulse_sr.images.png import png_parts
from pulse_sr.images.read import read_image
from pulse_sr.jobs import store
from pulse_sr.jobs.drawing import read_pixels
from pulse_sr.jobs.manifest import PHOTO
from pulse_sr.jobs.provenance import XMP, text_chunks
from pulse_sr.jobs.task import Task

log = logging.getLogger(__name__)

#: What the page shows: the photo enlarged, and with the first sample of each face.
BEFORE, AFTER = "photo_before.jpg", "photo_after.jpg"
_THUMBNAIL = 1000
#: Part of every fingerprint: raise it when equal faces start to give another photo.
REVISION = 1
_BAND = 256  # rows that are given to the PNG writer at once


class Photos:
    """The photos of a run: each is put together when the last of its faces is settled."""

    def __init__(self, out: Path, tasks: Sequence[Task], upscale: int, samples: int) -> None:
        """Nothing is read or written yet.

        Args:
            out: the run folder.
            tasks: of the run.
            upscale: how many times as large photos are written.
            samples: how many pictures of each photo, at most.
        """
        self.out, self.upscale, self.samples = out, upscale, samples
        self._faces: dict[str, list[Task]] = {}
        for task in tasks:
            if task.face is not None:
                self._faces.setdefault(task.base, []).append(task)
        self._open = {base: {task.stem for task in faces} for base, faces in self._faces.items()}
        self._lock = threading.Lock()

    def settle(self, task: Task) -> None:
        """Takes notice that a face is written, complete or failed; the last one writes the photo.

        A photo that can not be read any more is a warning: the faces have their results.

        Raises:
            SetupError: the disk is full, or the place can not be written.
        """
        if task.face is None:
            return
        with self._lock:
            waiting = self._open.get(task.base, set())
            waiting.discard(task.stem)
            if waiting or self._open.pop(task.base, None) is None:
                return
        try:
            self._write(self._faces[task.base])
        except InputError as error:
            log.warning("no photo with the faces of %s: %s", task.path, error.message)

    def _write(self, tasks: Sequence[Task]) -> None:
        """Writes the pictures of one photo, and its record last, unless they are there."""
        first = tasks[0]
        found = [_found(self.out / task.stem, task) for task in tasks]
        faces = [face for face in found if face.files]
        if not faces:
            return
        folder = self.out / first.base
        count = min(self.samples, max(len(face.files) for face in faces))
        names = [photo_name(index) for index in range(count)]
        files = [*names, BEFORE, AFTER]
        identity = _identity(first.sha256, self.upscale, count, faces)
        record = read_json(folder / PHOTO)
        known = isinstance(record, dict) and record.get("fingerprint") == identity
        if known and all((folder / name).is_file() for name in files):
            return
        original = read_original(first.path)
        if original.sha256 != first.sha256:
            raise InputError(f"{first.path} changed while the run was going", "run it again")
        store.make_folder(folder)
        (folder / PHOTO).unlink(missing_ok=True)
        canvas = _Canvas(original, self.upscale)
        write_atomic(folder / BEFORE, canvas.thumbnail())
        chunks = text_chunks({"input_sha256": first.sha256, "upscale": self.upscale})
        for index, name in enumerate(names):
            for face in faces:
                if index < len(face.files):
                    canvas.put(read_pixels(self.out / face.stem / face.files[index]), face)
            write_parts_atomic(folder / name, canvas.png(chunks))
            if index == 0:
                write_atomic(folder / AFTER, canvas.thumbnail())
            canvas.restore()
        document = {
            "version": __version__,
            "input": {"path": str(first.path), "sha256": first.sha256},
            "upscale": self.upscale,
            "width": canvas.pixels.shape[2],
            "height": canvas.pixels.shape[1],
            "files": names,
            "faces": [face.describe(self.upscale) for face in faces],
            "left_out": list(first.face.left_out) if first.face is not None else [],
            "fingerprint": identity,
        }
        write_atomic(folder / PHOTO, json_bytes(document))


def photo_name(index: int) -> str:
    """Returns the file name of a photo with sample `index` of each face."""
    return f"photo_{index:02d}.png"


@dataclass(frozen=True)
class _Face:
    """A face of a photo with its samples.

    Attributes:
        stem: of its folder.
        number: in the photo, from 1.
        corners: float64 [4, 2], its quad in the photo as it came.
        real_size: side of the crop in pixels of the photo.
        detail: up to which side the photo shows it with detail of its own.
        side: h, the side at which it was searched.
        fingerprint: of its search.
        files: its samples, in the order in which they are shown.
    """

    stem: str
    number: int
    corners: NDArray[np.float64]
    real_size: float
    detail: int
    side: int
    fingerprint: str
    files: tuple[str, ...]

    def describe(self, upscale: int) -> dict[str, Any]:
        """Returns it as JSON, its quad in the enlarged photo."""
        quad = enlarged_quad(self.corners, upscale).round(3).tolist()
        return {"stem": self.stem, "number": self.number, "quad": quad, "side": self.side}


def _found(folder: Path, task: Task) -> _Face:
    """A face as its folder holds it; no files where its search failed."""
    assert task.face is not None  # a whole picture is no photo
    done = store.done_indices(folder, task.fingerprint)
    files = tuple(store.sample_name(index) for index in done)
    face = task.face
    numbers = (face.index, face.corners, face.real_size, face.detail, face.side)
    return _Face(task.stem, *numbers, task.fingerprint, files)


def _identity(sha256: str, upscale: int, count: int, faces: Sequence[_Face]) -> str:
    """A sha256 over what decides the pictures of a photo."""
    parts = [[face.fingerprint, face.corners.tolist(), len(face.files)] for face in faces]
    text = json.dumps([REVISION, sha256, upscale, count, parts])
    return hashlib.sha256(text.encode()).hexdigest()


class _Canvas:
    """The enlarged photo, into which faces are put and taken out again."""

    def __init__(self, original: Original, factor: int) -> None:
        self.original, self.factor = original, factor
        plain = is_srgb(original.about.profile) and original.colour.dtype == np.uint8
        plain = plain and len(original.colour) == 3
        self.photo = original.colour if plain else read_image(original.path).pixels
        self.opacity = None
        if original.opacity is not None:
            self.opacity = _enlarged(original.opacity[None], factor)
        self.stored = _enlarged(original.colour, factor)  # as the file has it
        if plain:
            self.pixels: Pixels = self.stored
        else:
            self.pixels = _enlarged(self.photo, factor)
        self._saved: list[tuple[tuple[slice, slice], Pixels, NDArray[Any]]] = []

    def put(self, sample: Pixels, face: _Face) -> None:
        """Pastes a sample [3, S, S] in the place of a face."""
        quad = enlarged_quad(face.corners, self.factor)
        found = mask_box(quad, self.pixels.shape[2], self.pixels.shape[1])
        if found is None:
            return
        (rows, columns), weight = found
        place = (slice(None), rows, columns)
        before = self.pixels[place].copy()
        self._saved.append(((rows, columns), before, self.stored[place].copy()))
        if face.real_size > sample.shape[-1]:  # searched all the same, because it was asked for
            paste_into(self.pixels, sample, quad)
        else:
            own = crop_quad(self.photo, face.corners, sample.shape[-1], parity=False)
            change = beyond_detail(sample.astype(np.float64) - own, face.detail)
            add_into(self.pixels, change, quad)
        if self.stored is not self.pixels:
            changed = weight > 0
            own = _as_stored(self.pixels[place], self.original, self.stored)
            self.stored[place] = np.where(changed, own, self.stored[place])

    def restore(self) -> None:
        """Takes all faces out again."""
        while self._saved:
            (rows, columns), pixels, stored = self._saved.pop()
            self.pixels[:, rows, columns] = pixels
            self.stored[:, rows, columns] = stored

    def thumbnail(self) -> bytes:
        """A JPEG of at most `_THUMBNAIL` px a side, for the page."""
        image = to_pillow(self.pixels)
        image.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        return buffer.getvalue()

    def png(self, chunks: dict[str, str]) -> Iterator[bytes]:
        """The photo as a PNG file, in pieces."""
        _, height, width = self.stored.shape
        return png_parts((height, width), self._bands(), chunks, self.original.about, XMP)

    def _bands(self) -> Iterator[NDArray[Any]]:
        for start in range(0, self.stored.shape[1], _BAND):
            band = self.stored[:, start : start + _BAND]
            if self.opacity is not None:
                band = np.concatenate([band, self.opacity[:, start : start + _BAND]])
            yield band


def _as_stored(pixels: Pixels, original: Original, stored: NDArray[Any]) -> NDArray[Any]:
    """8-bit sRGB [3, b, t] as the numbers of the file: its profile, channels and depth."""
    own = from_srgb(pixels, original.about.profile, grey=len(stored) == 1)
    return own.astype(stored.dtype) * 257 if stored.dtype == np.uint16 else own


def _enlarged(channels: NDArray[Any], factor: int) -> NDArray[Any]:  # [c, h, w] -> [c, H, W]
    """Enlarges by Lanczos; by 1 it is a copy, bit by bit."""
    if factor == 1:
        return channels.copy()
    height, width = channels.shape[1] * factor, channels.shape[2] * factor
    made = np.empty((len(channels), height, width), channels.dtype)
    for channel, target in zip(channels, made, strict=True):
        deep = channel.dtype == np.uint16
        image = Image.fromarray(channel.astype(np.float32) if deep else channel)
        large = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
        target[:] = np.rint(np.clip(large, 0, 65535)) if deep else large
    return made
