"""The worker of `compare`: an input searched and enlarged, every picture measured and written."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypedDict

import torch

from pulse_sr import __version__
from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError, SetupError, describe_error
from pulse_sr.files.atomic import make_folder, write_atomic
from pulse_sr.files.documents import Amount, json_bytes, read_json
from pulse_sr.images.pixels import Pixels
from pulse_sr.images.places import check_place
from pulse_sr.images.read import read_image
from pulse_sr.images.write import write_png
from pulse_sr.inversion.observation import fitted_input
from pulse_sr.inversion.result import Result
from pulse_sr.inversion.stream import Request
from pulse_sr.jobs.comparison import METHODS, SYNTHETIC, enlargements, inside, measured, titles
from pulse_sr.jobs.drawing import read_pixels
from pulse_sr.jobs.manifest import COMPARED, Index, MethodShape, NotedShape, Row
from pulse_sr.jobs.provenance import XMP, settings_of, text_chunks
from pulse_sr.jobs.record import grid_entry, input_entry, timing_entry
from pulse_sr.jobs.task import Input
from pulse_sr.models.registry import load_network_of_scale, on_device
from pulse_sr.priors.base import Prior
from pulse_sr.report.comparison import comparison
from pulse_sr.sr.enlarging import Enlarge, by_network
from pulse_sr.sr.files import SrModel

log = logging.getLogger(__name__)

RECORD, PICTURE = COMPARED, "compare.png"
#: The text chunk by which a picture is known as one of ours.
MARK = "pulse-sr:compare"


class RecordShape(TypedDict):
    """What is read back of a record."""

    status: Literal["ok"]
    fingerprint: str
    input: NotedShape
    methods: list[MethodShape]
    timing: dict[str, Amount]


@dataclass(frozen=True, kw_only=True)
class CompareTask(Input):
    """An input of a comparison.

    Attributes:
        truth: the high-res picture that it was made from; None: not known.
        truth_sha256: of that file.
        fingerprint: of everything that the pictures and numbers follow from.
    """

    truth: Path | None
    truth_sha256: str
    fingerprint: str


@dataclass(frozen=True, eq=False, kw_only=True)
class CompareRequest(Request):
    """An input as read.

    Attributes:
        place: of its task in the job.
        task: what it was read for.
        model: the network of its scale; None: there is none.
        truth: uint8 `[3, s h, s w]`; None: not known.
        load_s: seconds that reading took.
    """

    place: int
    task: CompareTask
    model: SrModel | None
    truth: Pixels | None
    load_s: float


@dataclass(frozen=True)
class Compared:
    """What was searched and enlarged, and the seconds of what was not the search."""

    result: Result
    pictures: dict[str, Pixels]
    seconds: float


#: The stream of searches: `inversion.stream.search_images`, or a stand-in for tests.
Search = Callable[..., Iterator[tuple[Any, Result | Exception]]]


class CompareWorker:
    """Compares inputs: a `job.Worker`, whose records are the rows of the manifest.

    Args:
        index: the manifest.
        prior: the generator.
        config: of the search.
        model: the network; None: the bundled one of the scale of each input.
        search: the stream of searches.
        report: called during each search, with the request; None: nobody is.
        overwrite: compare complete inputs again too.
    """

    prepare, chunk = None, 8

    def __init__(
        self,
        index: Index,
        prior: Prior,
        config: SearchConfig,
        model: SrModel | None,
        search: Search,
        report: Callable[[CompareRequest, Any], None] | None,
        overwrite: bool,
    ) -> None:
        self.index, self.prior, self.config, self.model = index, prior, config, model
        self.search, self.report, self.overwrite = search, report, overwrite
        self._bundled: dict[int, SrModel | None] = {}
        self._ways: dict[str, Enlarge] = {}

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """In another process nobody is told of steps."""
        return type(self), self._arguments(self.prior, self.model, None)

    def on(self, device: torch.device) -> Self:
        """Returns the worker with prior and network on a device."""
        model = None if self.model is None else on_device(self.model, device)
        prior = on_device(self.prior, device)
        return type(self)(*self._arguments(prior, model, self.report))

    def _arguments(self, prior: Prior, model: SrModel | None, report: Any) -> tuple[Any, ...]:
        return self.index, prior, self.config, model, self.search, report, self.overwrite

    def among(self, tasks: Sequence[CompareTask]) -> Self:
        """Returns the worker itself."""
        return self

    def group(self, task: CompareTask) -> str:
        """Returns the name of the input."""
        return task.stem

    def known(self, task: CompareTask) -> Row | None:
        """Returns the row of an input that is complete."""
        row = None if self.overwrite else complete_row(self.index.out / task.stem, task)
        if row is None:
            return None
        if self.index.rows.get(task.stem) != row:  # a killed run did not come to write it
            self.index.put(row)
        return {**row, "resumed": True}

    def read(self, place: int, task: CompareTask) -> CompareRequest:
        """Reads an input and its truth.

        Raises:
            InputError: one can not be read; they do not fit each other, the prior or the network;
                or a file that no record names is in the way.
        """
        started, folder = time.perf_counter(), self.index.out / task.stem
        self._check_place(folder)
        image = read_image(task.path)
        fitted = fitted_input(image, self.prior.resolution, self.config)
        scale = self.prior.resolution // fitted.side
        truth = None if task.truth is None else read_image(task.truth).pixels
        expected = tuple(scale * side for side in fitted.pixels.shape[1:])
        if truth is not None and truth.shape[1:] != expected:
            raise InputError(
                f"the truth {task.truth} has {truth.shape[2]}x{truth.shape[1]} px, expected "
                f"{expected[1]}x{expected[0]} px: {scale} times {task.path}",
                "give the picture that the input was made from",
            )
        return CompareRequest(
            image,
            range(self.config.samples),
            place=place,
            task=task,
            model=self._model_of(scale, task),
            truth=truth,
            load_s=time.perf_counter() - started,
        )

    def place(self, request: CompareRequest) -> int:
        """Returns the place of an input."""
        return request.place

    def work(
        self, requests: Iterable[CompareRequest]
    ) -> Generator[tuple[CompareRequest, Compared | Exception], None, None]:
        """Searches the inputs in one stream, and enlarges each when its search is done."""
        for request, outcome in self.search(requests, self.prior, self.config, self.report):
            answer: Compared | Exception
            try:
                if isinstance(outcome, Exception):
                    raise outcome
                started = time.perf_counter()
                pictures = enlargements(outcome, self._way_of(request.model))
                answer = Compared(outcome, pictures, time.perf_counter() - started)
            except SetupError:
                raise
            except Exception as error:
                answer = error
            yield request, answer

    def write(self, request: CompareRequest, answer: Compared | Exception) -> Row:
        """Writes the pictures, measures them as read back, and writes the record last."""
        try:
            if isinstance(answer, Exception):
                raise answer
            document = self._write(request, answer)
        except SetupError:
            raise
        except Exception as error:
            return self.failed(request.task, error, request.load_s)
        row = row_of(request.task.stem, document)
        self.index.put(row)
        return row

    def failed(self, task: CompareTask, error: Exception, seconds: float) -> Row:
        """Writes down that an input was not compared."""
        log.debug("%s failed", task.path, exc_info=error)
        message, hint, _ = describe_error(error)
        row: Row = {"stem": task.stem, "path": str(task.path), "sha256": task.sha256}
        row |= {"fingerprint": task.fingerprint, "status": "failed", "seconds": round(seconds, 3)}
        row |= {"error": message, "hint": hint}
        self.index.put(row)
        return row

    def _write(self, request: CompareRequest, compared: Compared) -> dict[str, Any]:
        started, task, result = time.perf_counter(), request.task, compared.result
        folder, observation = self.index.out / task.stem, result.observation
        make_folder(folder)
        for name in (RECORD, *sorted(self._named(folder) - {RECORD})):
            (folder / name).unlink(missing_ok=True)  # without a record the input counts as not done
        chunks = {**text_chunks(settings_of(result)), MARK: task.fingerprint}
        named = titles(request.model.name if request.model else "", len(result.samples_list))
        methods, read_back = [], []
        for name, pixels in compared.pictures.items():
            made_up = name in SYNTHETIC
            marks = chunks if made_up else {"Software": chunks["Software"], MARK: chunks[MARK]}
            write_png(folder / _file(name), pixels, marks, XMP if made_up else None)
            read_back.append(read_pixels(folder / _file(name)))
            numbers = measured(read_back[-1], observation, request.truth)
            methods.append({"method": name, "title": named[name], "file": _file(name), **numbers})
        shown = [inside(pixels, observation) for pixels in read_back]
        about = (
            f"{observation.operator.spec}, {observation.side} to {result.resolution} px, "
            f"{result.prior_name}; LR: match with the input"
        )
        about += "" if request.truth is None else "; PSNR, SSIM, feature distance to the truth"
        write_png(folder / PICTURE, comparison(shown, methods, about, request.truth), chunks, XMP)
        timing = timing_entry(result, request.load_s, time.perf_counter() - started)
        timing["enlarge_s"] = round(compared.seconds, 3)
        document = self._document(request, result) | {"methods": methods, "timing": timing}
        write_atomic(folder / RECORD, json_bytes(document))
        return document

    def _document(self, request: CompareRequest, result: Result) -> dict[str, Any]:
        task, model, observation = request.task, request.model, result.observation
        truth = {"path": str(task.truth), "sha256": task.truth_sha256} if task.truth else None
        return {
            "schema": 1,
            "version": __version__,
            "status": "ok",
            "input": input_entry(observation.image, _notes(result, model)),
            "truth": truth,
            "operator": {
                "spec": observation.operator.spec,
                "scale": result.scale,
                **observation.facts,
            },
            "grid": grid_entry(observation),
            "prior": {
                "name": result.prior_name,
                "sha256": result.prior_sha256,
                "resolution": result.resolution,
            },
            "model": model and {name: model.describe()[name] for name in _OF_MODEL},
            "samples": len(result.samples_list),
            "options": result.config.pixel_options() | {"project": observation.projection},
            "picture": PICTURE,
            "fingerprint": task.fingerprint,
            "device": result.device,
            "torch": torch.__version__,
        }

    def _check_place(self, folder: Path) -> None:
        files = [folder / name for name in (RECORD, PICTURE, *map(_file, METHODS))]
        check_place(self.index.out, files, self._named(folder))

    def _named(self, folder: Path) -> set[str]:
        """The files of an input by its record, or where that is damaged by its row."""
        known = read_json(folder / RECORD, RecordShape) or self.index.rows.get(folder.name, {})
        files = {each["file"] for each in known.get("methods", ())}
        return {RECORD, PICTURE, *files} if files else set()

    def _model_of(self, scale: int, task: CompareTask) -> SrModel | None:
        if self.model is not None:
            if self.model.scale != scale:
                raise InputError(
                    f"{self.model.name} enlarges by {self.model.scale}, {task.path} is to become "
                    f"{scale} times as large",
                    "leave --model out, or give a network of that scale",
                )
            return self.model
        if scale not in self._bundled:
            self._bundled[scale] = load_network_of_scale(scale, self.prior.device)
        return self._bundled[scale]

    def _way_of(self, model: SrModel | None) -> Enlarge | None:
        if model is None:
            return None
        if model.sha256 not in self._ways:
            self._ways[model.sha256] = by_network(model)
        return self._ways[model.sha256]


_OF_MODEL = ("name", "sha256", "scale")


def complete_row(folder: Path, task: CompareTask) -> Row | None:
    """The row of an input whose record and pictures are there, made from the same by the same."""
    record = read_json(folder / RECORD, RecordShape)
    if record is None or not task.sha256 or record["fingerprint"] != task.fingerprint:
        return None
    row = row_of(task.stem, record)
    files = [PICTURE, *(each["file"] for each in row["methods"])]
    done = all((folder / file).is_file() for file in files)
    return row | {"path": str(task.path)} if done else None


def row_of(stem: str, record: Row) -> Row:
    """The row of the manifest that a record stands for."""
    return {
        "stem": stem,
        "path": record["input"]["path"],
        "sha256": record["input"]["sha256"],
        "fingerprint": record["fingerprint"],
        "status": record["status"],
        "seconds": round(sum(record["timing"].values()), 3),
        "notes": record["input"]["notes"],
        "methods": record["methods"],
    }


def _file(method: str) -> str:
    return f"{method}.png"


def _notes(result: Result, model: SrModel | None) -> tuple[str, ...]:
    missing = f"no bundled network enlarges by {result.scale}: nothing supervised"
    return result.notes if model is not None else (*result.notes, missing)
