"""A photo with all its faces: `photo_00.png` holds sample 0 of each, `photo_01.png` sample 1.

The photo is enlarged, and every face that was searched is pasted into its place. What is not under
a face keeps its bits where the photo is not enlarged: its depth, opacity and colour profile too.

Shape legend: H W enlarged photo, S side of a sample.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_sr import __version__
from pulse_sr.alignment.paste import enlarged_quad
from pulse_sr.config import RunOptions
from pulse_sr.devices import give_back_freed_memory
from pulse_sr.errors import InputError, UsageError
from pulse_sr.files.atomic import make_folder, write_atomic, write_parts_atomic
from pulse_sr.files.documents import json_bytes
from pulse_sr.images.original import Original, read_original
from pulse_sr.images.places import check_place
from pulse_sr.jobs import store
from pulse_sr.jobs.drawing import read_pixels
from pulse_sr.jobs.manifest import PHOTO
from pulse_sr.jobs.photo_canvas import Canvas
from pulse_sr.jobs.photo_record import read_photo
from pulse_sr.jobs.provenance import text_chunks
from pulse_sr.jobs.result_record import sample_name
from pulse_sr.jobs.task import Task
from pulse_sr.sr.files import SrModel

log = logging.getLogger(__name__)

#: What the page shows: the photo enlarged, and with the first sample of each face.
BEFORE, AFTER = "photo_before.jpg", "photo_after.jpg"
#: Why a sample is not in its photo.
SOFTER = "the sample would be softer"
#: Pixels of an enlarged photo from which on its memory counts.
_LARGE = 16 * 2**20
#: Part of every fingerprint: raise it when equal faces start to give another photo.
REVISION = 3

#: Called with the stem of a photo, how many of its pictures are written, and how many will be.
OnPasting = Callable[[str, int, int], None]


class Photos:
    """The photos of a run: each is put together when the last of its faces is settled."""

    def __init__(
        self,
        out: Path,
        tasks: Sequence[Task],
        options: RunOptions,
        samples: int,
        background: SrModel | None = None,
        pasting: OnPasting | None = None,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            out: the run folder.
            tasks: of the run.
            options: how many times as large photos are written, and what enlarges them.
            samples: how many pictures of each photo, at most.
            background: the network that `options` name; None: Lanczos enlarges photos.
            pasting: called before the first picture of a photo, and after each.
        """
        self.out, self.options, self.upscale = out, options, options.upscale
        self.samples, self.background, self.pasting = samples, background, pasting
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
        except (InputError, UsageError) as error:
            log.warning("no photo with the faces of %s: %s", task.path, error.message)

    def enlarge(self, task: Task) -> bool:
        """Writes a photo none of whose faces is searched; False: it was there.

        Raises:
            InputError: it can not be read any more.
            SetupError: see `settle`.
        """
        folder = self.out / task.base
        if store.read_record(folder) is not None:  # of other settings
            store.clear(folder)
        return self._put_together(task, [], 1)

    def _write(self, tasks: Sequence[Task]) -> None:
        found = [_found(self.out / task.stem, task) for task in tasks]
        faces = [face for face in found if face.files]
        if faces:
            count = min(self.samples, max(len(face.files) for face in faces))
            self._put_together(tasks[0], faces, count)

    def _put_together(self, first: Task, faces: Sequence[_Face], count: int) -> bool:
        """Writes the pictures of one photo, and its record last; False: they were there."""
        folder = self.out / first.base
        names = [photo_name(index) for index in range(count)]
        files = [*names, BEFORE, AFTER]
        identity = _identity(first.sha256, self.upscale, count, faces, self.background)
        record = read_photo(folder)
        known = record is not None and record.get("fingerprint") == identity
        if known and all((folder / name).is_file() for name in files):
            return False
        original = read_original(first.path)
        if original.sha256 != first.sha256:
            raise InputError(f"{first.path} changed while the run was going", "run it again")
        named = [PHOTO, BEFORE, AFTER, *record["files"]] if record is not None else []
        check_place(self.out, [folder / name for name in (PHOTO, *files)], named)
        make_folder(folder)
        for name in (PHOTO, *(name for name in named if name not in files)):
            (folder / name).unlink(missing_ok=True)
        self._tell(first.base, 0, count)
        canvas = self._canvas(original)
        write_atomic(folder / BEFORE, canvas.thumbnail())
        chunks = text_chunks(
            {"input_sha256": first.sha256, "upscale": self.upscale} | self._network()
        )
        softer: list[str] = []
        for index, name in enumerate(names):
            for face in faces:
                if index < len(face.files):
                    sample = read_pixels(self.out / face.stem / face.files[index])
                    if not canvas.put(sample, face.corners, face.real_size, face.detail):
                        softer.append(f"face {face.number}: left as it is in {name}, {SOFTER}")
            write_parts_atomic(folder / name, canvas.png(chunks))
            if index == 0:
                write_atomic(folder / AFTER, canvas.thumbnail())
            canvas.restore()
            self._tell(first.base, index + 1, count)
        for line in softer:
            log.warning("%s: %s", first.path, line)
        document = {
            "version": __version__,
            "input": {"path": str(first.path), "sha256": first.sha256},
            "upscale": self.upscale,
            "background": {"source": self.options.background, **self._network()},
            "width": canvas.size[1],
            "height": canvas.size[0],
            "files": names,
            "faces": [face.describe(self.upscale) for face in faces],
            "left_out": [*(first.left_out if first.face is None else first.face.left_out), *softer],
            "fingerprint": identity,
        }
        write_atomic(folder / PHOTO, json_bytes(document))
        return True

    def _canvas(self, original: Original) -> Canvas:
        """The enlarged photo; what searching and reading have freed makes room for a large one."""
        if math.prod(original.size) * self.upscale**2 > _LARGE:
            give_back_freed_memory()
        return Canvas(original, self.upscale, self.background)

    def _network(self) -> dict[str, str]:
        """The network that enlarges photos; empty: Lanczos does."""
        model = self.background
        return {} if model is None else {"network": model.name, "network_sha256": model.sha256}

    def _tell(self, base: str, done: int, total: int) -> None:
        if self.pasting is not None:
            self.pasting(base, done, total)


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
    files = tuple(sample_name(index) for index in done)
    face = task.face
    numbers = (face.index, face.corners, face.real_size, face.detail, face.side)
    return _Face(task.stem, *numbers, task.fingerprint, files)


def _identity(
    sha256: str, upscale: int, count: int, faces: Sequence[_Face], background: SrModel | None
) -> str:
    """A sha256 over what decides the pictures of a photo."""
    parts = [[face.fingerprint, face.corners.tolist(), len(face.files)] for face in faces]
    network = [] if background is None else [background.sha256]
    text = json.dumps([REVISION, sha256, upscale, count, parts, *network])
    return hashlib.sha256(text.encode()).hexdigest()
