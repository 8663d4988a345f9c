"""The loop over many inputs in this process: plan, search, write, go on.

The samples of all inputs go through one stream of slots (`pulse_sr.streaming`): an input is read
when a slot is free, and written as soon as its last sample is done. One bad input never stops the
others. What is finished is on disk, so the same command resumes after an interruption.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pulse_sr.alignment.intake import low_res_face
from pulse_sr.atomic import remove_leftovers
from pulse_sr.blind_ranking import recorded_ranking
from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError, PulseError, SetupError, is_disk_full
from pulse_sr.images import read_image
from pulse_sr.jobs import store
from pulse_sr.jobs.manifest import base_of, drop_rows, put_row, read_rows
from pulse_sr.jobs.placement import Placement
from pulse_sr.jobs.plan import DEFAULT_OUT, Plan, plan_run
from pulse_sr.jobs.steps import FOLDER, begin_steps
from pulse_sr.jobs.task import Task
from pulse_sr.report.animation import StepFrames
from pulse_sr.streaming import Outcome, Request

if TYPE_CHECKING:
    from pulse_sr.result import Result

log = logging.getLogger(__name__)

#: Other shards write to the run folder too; none of them takes so long for one file, in seconds.
_LEFT_BEHIND_S = 60.0

#: Called with the task and the search's own progress record (step, steps, best_db, done, samples).
OnProgress = Callable[[Task, Any], None]


class Search(Protocol):
    """The stream of searches: `pulse_sr.streaming.search_images`, or a stand-in for tests."""

    def __call__(
        self,
        requests: Iterable[Request],
        prior: Any,
        config: SearchConfig,
        progress: Callable[[Request, Any], None] | None = None,
        samples: int | None = None,
    ) -> Iterator[Outcome]: ...


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


def run(
    inputs: Sequence[str | Path],
    out: str | Path = DEFAULT_OUT,
    config: SearchConfig | None = None,
    prior: Any = None,
    *,
    overwrite: bool = False,
    retry_failed: bool = False,
    shard: tuple[int, int] | None = None,
    search: Search | None = None,
    progress: OnProgress | None = None,
    align: str = "auto",
    cluster: bool = False,
    save_steps: bool = False,
) -> Generator[Record, None, None]:
    """Searches faces for all inputs and writes them to `out`; yields a record after each input.

    The call itself checks everything and loads the prior; the work happens while iterating.

    Args:
        inputs: image files, folders or globs.
        out: the run folder.
        config: the settings; None is `SearchConfig()`.
        prior: a loaded prior, a name or a path; None is the default one.
        overwrite: do everything again instead of skipping what is complete.
        retry_failed: try again what failed in an earlier run with the same settings.
        shard: (i, N): only every N-th input from the i-th, in the order of their resolved paths,
            so that N processes can share one run folder.
        search: stands in for `pulse_sr.streaming.search_images`.
        progress: called during each search.
        align: "auto" finds the faces of photos, searches each and pastes it back, and leaves
            low-res faces as they are (`alignment.intake.faces_to_search`); "always" takes every
            input as a photo, "never" none.
        cluster: show the samples in covering order (`metrics.covering`), also of complete inputs.
        save_steps: keep frames of each search and make an animation of them; samples that were
            found without are searched again.

    Raises:
        UsageError, SetupError: see `plan_run`; while iterating, SetupError (disk full, no such
            device) ends the run. Errors of one input become records with the status "failed".
    """
    plan = plan_run(
        inputs,
        out,
        config,
        prior,
        overwrite=overwrite,
        retry_failed=retry_failed,
        shard=shard,
        align=align,
        cluster=cluster,
        save_steps=save_steps,
    )
    return run_plan(plan, search=search, progress=progress)


def run_plan(
    plan: Plan, *, search: Search | None = None, progress: OnProgress | None = None
) -> Generator[Record, None, None]:
    """Carries out a plan: see `run`. The page is written at the end, also after an interruption."""
    search = search or _real_search()
    store.make_folder(plan.out)
    remove_leftovers(plan.out, _LEFT_BEHIND_S)
    _forget_other_names(plan)
    work = _Run(plan)
    report = None if progress is None else lambda request, step: progress(request.tag.task, step)
    samples = sum(len(task.indices) for task in plan.tasks)
    try:
        found = search(work.requests(), plan.prior, plan.config, report, samples=samples)
        for request, outcome in found:
            work.finish(request, outcome)
            yield from work.ready()
        yield from work.ready()
    except BaseException:
        with contextlib.suppress(SetupError):  # what ended the run is the thing to say
            store.write_page(plan.out)
        raise
    store.write_page(plan.out)


def _forget_other_names(plan: Plan) -> None:
    """Drops rows of inputs whose faces have other folders now; the folders themselves stay."""
    names: dict[str, set[str]] = {}
    for task in plan.tasks:
        names.setdefault(task.base, set()).add(task.stem)
    drop_rows(plan.out, lambda row: row["stem"] not in names.get(base_of(row), {row["stem"]}))


@dataclass(frozen=True)
class _Taken:
    """An input that is with the search."""

    place: int
    task: Task
    placement: Placement | None
    load_s: float
    frames: StepFrames | None


class _Run:
    """What is known of each input of a plan; records come in the order of the plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.next = plan, 0
        self.records: dict[int, Record] = {}

    def requests(self) -> Iterator[Request]:
        """The inputs that are to be searched, each read when it is asked for."""
        for place, task in enumerate(self.plan.tasks):
            if task.action == "skip":
                self.records[place] = _skipped(self.plan, task)
            elif task.action == "failed_before":
                self.records[place] = _failed_before(task)
            else:
                started = time.perf_counter()
                try:
                    request = _read(self.plan, place, task)
                except SetupError:
                    raise
                except Exception as error:
                    seconds = time.perf_counter() - started
                    self.records[place] = _failed(self.plan, task, error, seconds)
                else:
                    yield request

    def finish(self, request: Request, outcome: Result | Exception) -> None:
        """Write what was found.

        Raises:
            SetupError: the disk is full.
        """
        taken: _Taken = request.tag
        plan, task = self.plan, taken.task
        try:
            if isinstance(outcome, Exception):
                _write_failure(plan, request, outcome)
                raise outcome
            self.records[taken.place] = _write(plan, taken, outcome)
        except SetupError:
            raise
        except Exception as error:
            if is_disk_full(error):
                raise SetupError(
                    f"the disk is full: could not write {plan.out / task.stem}",
                    "free some space; the same command resumes",
                ) from error
            self.records[taken.place] = _failed(plan, task, error, taken.load_s)

    def ready(self) -> Iterator[Record]:
        """The records up to the first input that is not done."""
        while self.next in self.records:
            yield self.records.pop(self.next)
            self.next += 1


def _read(plan: Plan, place: int, task: Task) -> Request:
    if task.refusal is not None:
        raise task.refusal
    started = time.perf_counter()
    image = read_image(task.path)
    if image.sha256 != task.sha256:
        raise InputError(f"{task.path} changed while the run was going", "run the command again")
    folder = plan.out / task.stem
    for each in (folder, folder / FOLDER):  # an earlier run may have been killed here
        remove_leftovers(each)
    placement = None
    if task.face is not None:
        placement = Placement(image, task.face, task.base)
        image = low_res_face(image, task.face, plan.prior.resolution)
    frames = None
    if plan.save_steps:
        keep = task.action == "extend"
        frames = begin_steps(folder, plan.config, keep=keep)
    taken = _Taken(place, task, placement, time.perf_counter() - started, frames)
    return Request(image, task.indices, taken, None if frames is None else frames.on_step)


def _write(plan: Plan, taken: _Taken, result: Result) -> Record:
    started, task = time.perf_counter(), taken.task
    document = store.write_result(
        plan.out / task.stem,
        result,
        fresh=plan.overwrite,
        prior_source=plan.prior_source,
        load_s=taken.load_s,
        align=plan.align,
        placement=taken.placement,
        cluster=plan.cluster,
        frames=taken.frames,
    )
    write_s = time.perf_counter() - started
    seconds = round(taken.load_s + sum(result.timing.values()) + write_s, 3)
    path = str(task.path)
    put_row(plan.out, store.row_of(task.stem, path, document, seconds))
    numbers = _numbers(document["samples"])
    searched, note = len(task.indices), _choice(document)
    return Record(
        task.stem, path, task.sha256, "done", seconds, searched=searched, note=note, **numbers
    )


def _write_failure(plan: Plan, request: Request, error: Exception) -> None:
    if isinstance(error, SetupError):
        return
    message, hint, _ = _describe(error)
    task, placement = request.tag.task, request.tag.placement
    folder = plan.out / task.stem
    store.write_failure(folder, request.image, task.fingerprint, message, hint, placement)


def _failed_before(task: Task) -> Record:
    row = task.earlier or {}
    note = "failed in an earlier run; --retry-failed tries it again"
    error, hint = str(row.get("error", "")), str(row.get("hint", ""))
    return Record(task.stem, str(task.path), task.sha256, "failed", 0.0, error, hint, 1, note=note)


def _skipped(plan: Plan, task: Task) -> Record:
    store.set_order(plan.out / task.stem, cluster=plan.cluster)
    document = store.read_record(plan.out / task.stem) or {}
    if task.stem not in {row["stem"] for row in read_rows(plan.out)}:  # the manifest was lost
        put_row(plan.out, store.row_of(task.stem, str(task.path), document, 0.0))
    numbers = _numbers(document.get("samples", []))
    return Record(task.stem, str(task.path), task.sha256, "skipped", note="complete", **numbers)


def _failed(plan: Plan, task: Task, error: Exception, seconds: float) -> Record:
    log.debug("%s failed", task.path, exc_info=error)
    message, hint, code = _describe(error)
    row: dict[str, Any] = {
        "stem": task.stem,
        "path": str(task.path),
        "sha256": task.sha256,
        "status": "failed",
        "seconds": round(seconds, 3),
        "samples": len(store.done_indices(plan.out / task.stem, task.fingerprint)),
        "fingerprint": task.fingerprint,
        "error": message,
        "hint": hint,
        "base": task.base,
    }
    put_row(plan.out, row)
    base = (task.stem, str(task.path), task.sha256)
    return Record(*base, "failed", row["seconds"], message, hint, code, samples=row["samples"])


def _describe(error: Exception) -> tuple[str, str, int]:
    if isinstance(error, PulseError):
        return error.message, error.hint, error.exit_code
    lines = str(error).strip().splitlines() or ["no message"]
    return f"unexpected {type(error).__name__}: {lines[0]}", "-v shows where it happened", 1


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


def _real_search() -> Search:
    from pulse_sr.api import search_images

    return search_images
