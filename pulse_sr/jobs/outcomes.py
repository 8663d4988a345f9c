"""What became of each input: its files, its row of the manifest, its record."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulse_sr.errors import PulseError, SetupError, is_disk_full
from pulse_sr.inversion.blind.ranking import recorded_ranking
from pulse_sr.inversion.stream import Request
from pulse_sr.jobs import store
from pulse_sr.jobs.manifest import Index, Row
from pulse_sr.jobs.plan import Plan
from pulse_sr.jobs.reading import Taken
from pulse_sr.jobs.task import Task

if TYPE_CHECKING:
    from pulse_sr.inversion.result import Result

log = logging.getLogger(__name__)


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


def write_outcome(
    plan: Plan, index: Index, request: Request, outcome: Result | Exception
) -> Record:
    """Writes what became of an input: its folder and its row of the manifest.

    Several threads may do so for different inputs.

    Args:
        plan: the run.
        index: its manifest.
        request: as `reading.read_input` made it.
        outcome: the samples, or what stopped the search; an error while they are written counts as
            one of this input too.

    Raises:
        SetupError: the disk is full, or the search says that it can not go on.
    """
    taken: Taken = request.tag
    try:
        if isinstance(outcome, Exception):
            _write_failure(plan, request, outcome)
            raise outcome
        return _write(plan, index, taken, outcome)
    except SetupError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise SetupError(
                f"the disk is full: could not write {plan.out / taken.task.stem}",
                "free some space; the same command resumes",
            ) from error
        return failed(plan, index, taken.task, error, taken.load_s)


def failed_before(index: Index, task: Task) -> Record:
    """Returns the record of an input that failed in an earlier run, and is not tried again."""
    row = task.earlier or {}
    note = "failed in an earlier run; --retry-failed tries it again"
    error, hint = str(row.get("error", "")), str(row.get("hint", ""))
    if task.stem not in index.rows:  # the manifest was lost, the folder says so
        index.put(_failure_row(task, 0.0, 0, error, hint))
    return Record(task.stem, str(task.path), task.sha256, "failed", 0.0, error, hint, 1, note=note)


def skipped(plan: Plan, index: Index, task: Task) -> Record:
    """Returns the record of a complete input, shown in the order that the plan asks for.

    Raises:
        SetupError: the disk is full, or the place can not be written.
    """
    document = store.set_order(plan.out / task.stem, cluster=plan.cluster)
    if document:
        index.repair(store.row_of(task.stem, str(task.path), document))
    numbers = _numbers(document.get("samples", []))
    return Record(task.stem, str(task.path), task.sha256, "skipped", note="complete", **numbers)


def failed(plan: Plan, index: Index, task: Task, error: Exception, seconds: float) -> Record:
    """Writes down in the manifest that an input failed.

    Args:
        plan: the run.
        index: its manifest.
        task: the input.
        error: what happened.
        seconds: that were spent on it.

    Raises:
        SetupError: the disk is full, or the place can not be written.
    """
    log.debug("%s failed", task.path, exc_info=error)
    message, hint, code = _describe(error)
    samples = len(store.done_indices(plan.out / task.stem, task.fingerprint))
    row = _failure_row(task, seconds, samples, message, hint)
    index.put(row)
    base = (task.stem, str(task.path), task.sha256)
    return Record(*base, "failed", row["seconds"], message, hint, code, samples=row["samples"])


def _failure_row(task: Task, seconds: float, samples: int, error: str, hint: str) -> Row:
    return {
        "stem": task.stem,
        "path": str(task.path),
        "sha256": task.sha256,
        "status": "failed",
        "seconds": round(seconds, 3),
        "samples": samples,
        "fingerprint": task.fingerprint,
        "error": error,
        "hint": hint,
        "base": task.base,
    }


def _write(plan: Plan, index: Index, taken: Taken, result: Result) -> Record:
    task = taken.task
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
    row = store.row_of(task.stem, str(task.path), document)
    index.put(row)
    numbers = _numbers(document["samples"])
    base = (task.stem, row["path"], task.sha256)
    searched, note = len(task.indices), _choice(document)
    return Record(*base, "done", row["seconds"], searched=searched, note=note, **numbers)


def _write_failure(plan: Plan, request: Request, error: Exception) -> None:
    if isinstance(error, SetupError):
        return
    message, hint, _ = _describe(error)
    task, placement = request.tag.task, request.tag.placement
    folder = plan.out / task.stem
    store.write_failure(folder, request.image, task.fingerprint, message, hint, placement)


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
