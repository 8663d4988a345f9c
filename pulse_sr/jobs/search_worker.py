"""The worker of `run`: what is searched, and what became of each input, on disk and in words."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import torch

from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError, SetupError, UsageError, describe_error, is_disk_full
from pulse_sr.inversion.blind.ranking import recorded_ranking
from pulse_sr.inversion.result import Result
from pulse_sr.inversion.stream import SearchProgress
from pulse_sr.jobs import store
from pulse_sr.jobs.manifest import Index, Row
from pulse_sr.jobs.photo import OnPasting, Photos
from pulse_sr.jobs.plan import Plan
from pulse_sr.jobs.reading import Reader, TaskRequest
from pulse_sr.jobs.result_record import read_record
from pulse_sr.jobs.task import ENLARGE, Task
from pulse_sr.models.registry import on_device
from pulse_sr.priors.base import Prior
from pulse_sr.search.capacity import MOST_SLOTS

log = logging.getLogger(__name__)

#: A copy of a worker gets inputs of so many samples at a time: twice what the most slots take,
#: since they run empty at the end of its stream.
_CHUNK_SAMPLES = 2 * MOST_SLOTS

#: Called with the request and how far its search is.
Report = Callable[[TaskRequest, SearchProgress], None]


@dataclass(frozen=True)
class Record:
    """What happened to one input.

    Attributes:
        stem: its folder in the run folder.
        path: the input.
        sha256: of the file, empty if it could not be opened.
        status: "done" (searched and written now), "skipped" (complete already) or "failed".
        seconds: time spent on it now: of steps that it shared with other inputs, its share.
        error, hint: for "failed": what happened, and what helps.
        exit_code: the exit code of that error, 0 without one.
        searched: how many samples were searched now.
        samples: how many samples its folder holds.
        lowest_db: the smallest LR-PSNR of them in dB, None without samples.
        below_target: how many of them are below the target.
        note: a remark, such as that a failure is from an earlier run, or which operator was chosen.
    """

    stem: str
    path: str
    sha256: str
    status: str
    seconds: float = 0.0
    error: str = ""
    hint: str = ""
    exit_code: int = 0
    searched: int = 0
    samples: int = 0
    lowest_db: float | None = None
    below_target: int = 0
    note: str = ""


class Search(Protocol):
    """The stream of searches: `inversion.stream.search_images`, or a stand-in for tests."""

    def __call__(
        self,
        requests: Iterable[TaskRequest],
        prior: Prior,
        config: SearchConfig,
        progress: Report | None = None,
        samples: int | None = None,
    ) -> Generator[tuple[TaskRequest, Result | Exception], None, None]: ...


class SearchWorker:
    """Searches the inputs of a plan: a `job.Worker`.

    Args:
        plan: the run.
        index: its manifest.
        search: the stream of searches.
        report: called during each search, None: nobody is.
        pasting: called while photos are written (`photo.OnPasting`).
        samples: how many the whole run asks for; None: the plan.
    """

    prepare = None

    def __init__(
        self,
        plan: Plan,
        index: Index,
        search: Search,
        report: Report | None = None,
        pasting: OnPasting | None = None,
        samples: int | None = None,
    ) -> None:
        self.plan, self.index, self.search, self.report = plan, index, search, report
        asked = sum(len(task.indices) for task in plan.tasks)
        self.samples = asked if samples is None else samples
        self.chunk = max(1, _CHUNK_SAMPLES // plan.config.samples)
        self.reader = Reader(plan)
        self.photos = Photos(
            plan.out,
            plan.tasks,
            plan.options,
            plan.config.samples,
            plan.background,
            pasting,
        )

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        """In another process nobody is told of steps, and `among` says which tasks there are."""
        plan = replace(self.plan, tasks=())
        return type(self), (plan, self.index, self.search, None, None, self.samples)

    def on(self, device: torch.device) -> Self:
        """Returns the worker with prior and network on a device."""
        plan, background = self.plan, self.plan.background
        prior = on_device(plan.prior, device)
        background = None if background is None else on_device(background, device)
        return self._with(replace(plan, prior=prior, background=background))

    def among(self, tasks: Sequence[Task]) -> Self:
        """Returns the worker for a part of the tasks."""
        return self._with(replace(self.plan, tasks=tuple(tasks)))

    def _with(self, plan: Plan) -> Self:
        told = (self.report, self.photos.pasting)
        return type(self)(plan, self.index, self.search, *told, self.samples)

    def group(self, task: Task) -> str:
        """Returns the stem of the input: a photo is put together where its faces were found."""
        return task.base

    def known(self, task: Task) -> Record | None:
        """Returns the record of an input that is complete, or is not tried again."""
        if task.action == "skip":
            record = self._skipped(task)
        elif task.action == "failed_before":
            record = self._failed_before(task)
        elif task.action == ENLARGE:
            return self._enlarged(task)
        else:
            return None
        self.photos.settle(task)
        return record

    def read(self, place: int, task: Task) -> TaskRequest:
        """Reads an input as it is to be searched."""
        return self.reader.read(place, task)

    def work(
        self, requests: Iterable[TaskRequest]
    ) -> Generator[tuple[TaskRequest, Result | Exception], None, None]:
        """Searches the inputs."""
        plan = self.plan
        return self.search(requests, plan.prior, plan.config, self.report, samples=self.samples)

    def place(self, request: TaskRequest) -> int:
        """Returns the place of the task of a request."""
        return request.place

    def write(self, request: TaskRequest, outcome: Result | Exception) -> Record:
        """Writes what became of an input: its folder and its row of the manifest.

        Args:
            request: as `read` made it.
            outcome: the samples, or what stopped the search; an error while they are written counts
                as one of this input too.

        Raises:
            SetupError: the disk is full, or the search says that it can not go on.
        """
        try:
            if isinstance(outcome, Exception):
                self._write_failure(request, outcome)
                raise outcome
            record = self._write(request, outcome)
            self.photos.settle(request.task)
            return record
        except SetupError:
            raise
        except Exception as error:
            if is_disk_full(error):
                raise SetupError(
                    f"the disk is full: could not write {self.plan.out / request.task.stem}",
                    "free some space; the same command resumes",
                ) from error
            return self.failed(request.task, error, request.load_s)

    def failed(self, task: Task, error: Exception, seconds: float) -> Record:
        """Writes down in the manifest that an input failed after so many seconds.

        Raises:
            SetupError: the disk is full, or the place can not be written.
        """
        log.debug("%s failed", task.path, exc_info=error)
        self.photos.settle(task)
        message, hint, code = describe_error(error)
        samples = len(store.done_indices(self.plan.out / task.stem, task.fingerprint))
        row = _failure_row(task, seconds, samples, message, hint)
        self.index.put(row)
        base = (task.stem, str(task.path), task.sha256)
        return Record(*base, "failed", row["seconds"], message, hint, code, samples=samples)

    def _enlarged(self, task: Task) -> Record:
        """A photo none of whose faces is searched."""
        started = time.perf_counter()
        try:
            written = self.photos.enlarge(task)
        except SetupError:
            raise
        except Exception as error:
            return self.failed(task, error, time.perf_counter() - started)
        seconds = round(time.perf_counter() - started, 3)
        row: Row = {**_row(task, seconds, 0), "status": "ok"}
        if written:
            self.index.put(row)
        else:
            self.index.repair(row)
        note = "; ".join(["enlarged; --scale 2 searches it all the same", *task.left_out])
        status = "done" if written else "skipped"
        return Record(
            task.stem, str(task.path), task.sha256, status, seconds if written else 0.0, note=note
        )

    def _failed_before(self, task: Task) -> Record:
        earlier = task.earlier or {}
        note = "failed in an earlier run; --retry-failed tries it again"
        error, hint = str(earlier.get("error", "")), str(earlier.get("hint", ""))
        # A record has a list of no samples, a row their number.
        self.index.repair(_failure_row(task, 0.0, earlier.get("samples") or 0, error, hint))
        base = (task.stem, str(task.path), task.sha256)
        return Record(*base, "failed", 0.0, error, hint, 1, note=note)

    def _skipped(self, task: Task) -> Record:
        """A complete input, shown in the order that the plan asks for."""
        folder = self.plan.out / task.stem
        try:
            document = store.set_order(folder, cluster=self.plan.options.cluster)
        except (InputError, UsageError) as error:
            log.warning("%s could not be ordered anew: %s", folder, error.message)
            document = read_record(folder) or {}
        if document:
            self.index.repair(store.row_of(task.stem, str(task.path), document))
        numbers = _numbers(document.get("samples", []))
        base = (task.stem, str(task.path), task.sha256)
        return Record(*base, "skipped", note="complete", **numbers)

    def _write(self, request: TaskRequest, result: Result) -> Record:
        plan, task = self.plan, request.task
        document = store.write_result(
            plan.out / task.stem,
            result,
            fresh=plan.options.overwrite,
            prior_source=plan.options.prior,
            load_s=request.load_s,
            selection=plan.options.selection(),
            base=task.base,
            cluster=plan.options.cluster,
            frames=request.frames,
        )
        row = store.row_of(task.stem, str(task.path), document)
        self.index.put(row)
        numbers = _numbers(document["samples"])
        base = (task.stem, row["path"], task.sha256)
        searched, note = len(task.indices), _choice(document)
        return Record(*base, "done", row["seconds"], searched=searched, note=note, **numbers)

    def _write_failure(self, request: TaskRequest, error: Exception) -> None:
        if isinstance(error, SetupError):
            return
        message, hint, _ = describe_error(error)
        task, folder = request.task, self.plan.out / request.task.stem
        store.write_failure(folder, request.image, task.fingerprint, message, hint, task.base)


def _row(task: Task, seconds: float, samples: int) -> Row:
    return {
        "stem": task.stem,
        "path": str(task.path),
        "sha256": task.sha256,
        "seconds": round(seconds, 3),
        "samples": samples,
        "fingerprint": task.fingerprint,
        "base": task.base,
    }


def _failure_row(task: Task, seconds: float, samples: int, error: str, hint: str) -> Row:
    return {**_row(task, seconds, samples), "status": "failed", "error": error, "hint": hint}


def _numbers(samples: Sequence[store.Document]) -> dict[str, Any]:
    return {
        "samples": len(samples),
        "lowest_db": min((each["lr_psnr"] for each in samples), default=None),
        "below_target": sum(each["status"] != "ok" for each in samples),
    }


def _choice(document: store.Document) -> str:
    """Which operator `--operator auto` chose, empty where it had no choice."""
    ranking = recorded_ranking(document["operator"])
    return "" if ranking is None else ranking.sentence()
