"""The worker of `upscale`: a picture through a supervised network into a file.

Shapes: h w size, s scale.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray

from pulse_sr import __version__
from pulse_sr.errors import InputError, SetupError, describe_error
from pulse_sr.files.atomic import write_atomic, write_parts_atomic
from pulse_sr.files.documents import Amount, FileName, Side, json_bytes, json_text, read_json
from pulse_sr.images.original import Original, read_original
from pulse_sr.images.places import check_place
from pulse_sr.images.png import png_parts
from pulse_sr.jobs.manifest import NAME, Index, NotedShape, Row, read_rows
from pulse_sr.jobs.stems import Input, belongs
from pulse_sr.models.registry import on_device
from pulse_sr.sr.files import SrModel
from pulse_sr.sr.tiling import Tiling, enlarge

log = logging.getLogger(__name__)

#: The text chunk of a picture that says by which network it was made.
MARK = "pulse-sr:upscale"


class OutputShape(TypedDict):
    """The picture that was written."""

    file: FileName
    width: Side
    height: Side


class TimingShape(TypedDict):
    """Seconds."""

    upscale_s: Amount


class RecordShape(TypedDict):
    """What is read back of a record."""

    status: Literal["ok"]
    fingerprint: str
    input: NotedShape
    output: OutputShape
    timing: TimingShape


@dataclass(frozen=True)
class Request:
    """A picture as read, at its place among the inputs."""

    place: int
    entry: Input
    picture: Original


class UpscaleWorker:
    """Enlarges pictures: a `job.Worker`, whose records are the rows of the manifest.

    Args:
        index: the manifest.
        model: the network.
        tiling: how pictures are cut.
        overwrite: make complete pictures again too.
    """

    prepare, chunk = None, 8

    def __init__(self, index: Index, model: SrModel, tiling: Tiling, overwrite: bool) -> None:
        self.out, self.index, self.model, self.tiling = index.out, index, model, tiling
        self.overwrite = overwrite
        self.mark = fingerprint(model)

    def on(self, device: torch.device) -> Self:
        """Returns the worker with its network on a device."""
        model = on_device(self.model, device)
        return type(self)(self.index, model, self.tiling, self.overwrite)

    def among(self, tasks: Sequence[Input]) -> Self:
        """Returns the worker itself."""
        return self

    def group(self, task: Input) -> str:
        """Returns the name of the picture."""
        return task.stem

    def known(self, task: Input) -> Row | None:
        """Returns the row of a picture that is complete."""
        if self.overwrite or not is_complete(
            self.out, self.index.rows.get(task.stem), task, self.mark
        ):
            return None
        return {**self.index.rows[task.stem], "resumed": True}

    def read(self, place: int, task: Input) -> Request:
        """Reads a picture.

        Raises:
            InputError: it can not be read, or a file that no record names is in the way.
        """
        row, picture = self.index.rows.get(task.stem), self._files(task)[0]
        if row is not None and not belongs(row, task):
            raise InputError(
                f"{picture} was made from {row['path']} by a run that was killed",
                "run it again: it gets another name then",
            )
        made = row is not None and row.get("status") == "ok"
        files = self._files(task)
        check_place(self.out, files, [file.name for file in files] if made else ())
        return Request(place, task, read_original(task.path))

    def place(self, request: Request) -> int:
        """Returns the place of a picture."""
        return request.place

    def work(
        self, requests: Iterable[Request]
    ) -> Generator[tuple[Request, float | Exception], None, None]:
        """Enlarges one picture after the other straight into its file; gives the seconds it took.

        A picture can be larger than memory once it is enlarged: no two are made at a time.
        """
        for request in requests:
            started = time.perf_counter()
            answer: float | Exception
            try:
                self._make(request)
                answer = time.perf_counter() - started
            except SetupError:
                raise
            except Exception as error:
                answer = error
            yield request, answer

    def _make(self, request: Request) -> None:
        picture = request.picture
        image, record = self._files(request.entry)
        record.unlink(missing_ok=True)  # without a record the picture counts as not made
        height, width = (size * self.model.scale for size in picture.size)
        text = {
            "Software": f"pulse-sr {__version__}",
            MARK: json_text(self._settings(), sort_keys=True),
        }
        parts = png_parts((height, width), self.bands(picture), text, picture.about)
        write_parts_atomic(image, parts)

    def bands(self, picture: Original) -> Iterator[NDArray[Any]]:
        """The enlarged picture from top to bottom, `[c, s b, s w]`; opacity is the last channel."""
        colour = picture.colour
        network, tiling = self.model.network, self.tiling
        bands = enlarge(network, np.broadcast_to(colour, (3, *picture.size)), tiling)
        if picture.opacity is None:
            for band in bands:
                yield _grey(band) if len(colour) == 1 else band
            return
        opacity = np.broadcast_to(picture.opacity, (3, *picture.size))
        for band, over in zip(bands, enlarge(network, opacity, tiling), strict=True):
            yield np.concatenate([_grey(band) if len(colour) == 1 else band, _grey(over)])

    def write(self, request: Request, answer: float | Exception) -> Row:
        """Writes the record of a picture, and its row."""
        if isinstance(answer, Exception):
            return self.failed(request.entry, answer)
        picture, (image, record) = request.picture, self._files(request.entry)
        height, width = picture.size
        scale = self.model.scale
        document = {
            "schema": 1,
            "version": __version__,
            "status": "ok",
            "input": {
                "path": str(request.entry.path),
                "sha256": picture.sha256,
                "width": width,
                "height": height,
                "mode": picture.mode,
                "notes": list(picture.notes),
            },
            "output": {
                "file": image.name,
                "width": width * scale,
                "height": height * scale,
                "bits": 8 * picture.colour.itemsize,
                "channels": len(picture.colour) + (picture.opacity is not None),
                "profile": picture.about.profile is not None,
            },
            **self._settings(),
            "fingerprint": self.mark,
            "tile": self.tiling.tile,
            "overlap": self.tiling.overlap,
            "timing": {"upscale_s": round(answer, 3)},
            "device": str(self.model.device),
            "torch": torch.__version__,
        }
        write_atomic(record, json_bytes(document))
        row = row_of(request.entry.stem, document)
        self.index.put(row)
        return row

    def failed(self, task: Input, error: Exception, seconds: float = 0.0) -> Row:
        """Writes down that a picture was not enlarged."""
        log.debug("%s failed", task.path, exc_info=error)
        message, hint, _ = describe_error(error)
        row: Row = {"stem": task.stem, "path": str(task.path), "sha256": task.sha256}
        row |= {"fingerprint": self.mark, "status": "failed", "error": message, "hint": hint}
        if belongs(self.index.rows.get(task.stem, row), task):
            self.index.put(row)
        return row

    def _files(self, entry: Input) -> tuple[Path, Path]:
        """The picture and its record."""
        return self.out / f"{entry.stem}.png", self.out / f"{entry.stem}.json"

    def _settings(self) -> dict[str, Any]:
        model = self.model
        return {"model": {"name": model.name, "sha256": model.sha256, "scale": model.scale}}


def fingerprint(model: SrModel) -> str:
    """What the pixels follow from besides the input: the network. Tiles change rounding only."""
    return hashlib.sha256(f"upscale 1 {model.sha256}".encode()).hexdigest()


def row_of(stem: str, record: Row) -> Row:
    """The row of the manifest that a record stands for."""
    source, output = record["input"], record["output"]
    return {
        "stem": stem,
        "path": source["path"],
        "sha256": source["sha256"],
        "fingerprint": record["fingerprint"],
        "status": record["status"],
        "file": output["file"],
        "width": output["width"],
        "height": output["height"],
        "seconds": record["timing"]["upscale_s"],
        "notes": source["notes"],
    }


def known_rows(out: Path) -> tuple[list[Row], list[Row]]:
    """The rows of the manifest, and those that a killed run did not come to write."""
    rows = read_rows(out)
    listed, lost = {row["stem"] for row in rows}, []
    for file in sorted(out.glob("*.json")):
        record = None
        if file.stem not in listed and file.name != NAME:
            record = read_json(file, RecordShape, quiet=True)  # it may be somebody else's
        if record is not None and record["output"]["file"] == f"{file.stem}.png":
            lost.append(row_of(file.stem, record))
    return rows, lost


def is_complete(out: Path, row: Row | None, entry: Input, mark: str) -> bool:
    """Whether the picture and its record are there, made from this input by this network."""
    if row is None or row.get("status") != "ok" or not entry.sha256:
        return False
    if (row.get("sha256"), row.get("fingerprint")) != (entry.sha256, mark):
        return False
    record = read_json(out / f"{entry.stem}.json", RecordShape)
    return record is not None and (out / f"{entry.stem}.png").is_file()


def _grey(band: NDArray[Any]) -> NDArray[Any]:  # [3, b, w] -> [1, b, w]
    return np.rint(band.mean(axis=0, keepdims=True, dtype=np.float32)).astype(band.dtype)
