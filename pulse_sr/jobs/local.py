"""The loop over many inputs in this process: plan, search, write, go on.

One bad input never stops the others. What is finished is on disk before the next input starts, so
the same command resumes after an interruption.
"""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pulse_sr.alignment.intake import low_res_face
from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError, PulseError, SetupError
from pulse_sr.images import LowResImage, read_image
from pulse_sr.jobs import store
from pulse_sr.jobs.manifest import base_of, drop_rows, put_row, read_rows
from pulse_sr.jobs.placement import Placement
from pulse_sr.jobs.plan import DEFAULT_OUT, Plan, plan_run
from pulse_sr.jobs.task import Task

if TYPE_CHECKING:
    from pulse_sr.result import Result

log = logging.getLogger(__name__)

#: Called with the task and the search's own progress record (step, steps, best_db, done, samples).
OnProgress = Callable[[Task, Any], None]


class Search(Protocol):
    """The function that finds samples: `pulse_sr.api.search_image`, or a stand-in for tests."""

    def __call__(
        self,
        image: LowResImage,
        prior: Any,
        config: SearchConfig,
        indices: Sequence[int],
        progress: Callable[[Any], None] | None = None,
    ) -> Result: ...


@dataclass(frozen=True)
class Record:
    """What happened to one input.

    Attributes:
        stem: its folder in the run folder.
        path: the input.
        sha256: of the file, empty if it could not be opened.
        status: "done" (searched and written now), "skipped" (complete already) or "failed".
        seconds: wall time spent on it now.
        error, hint: for "failed": what happened, and what helps.
        exit_code: the exit code of that error, 0 without one.
        searched: how many samples were searched now.
        samples: how many samples its folder holds.
        lowest_db: the smallest LR-PSNR of them in dB, None without samples.
        below_target: how many of them are below the target.
        note: a remark, such as that a failure is from an earlier run.
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
        search: stands in for `pulse_sr.api.search_image`.
        progress: called during each search.
        align: "auto" finds the faces of photos, searches each and pastes it back, and leaves
            low-res faces as they are (`alignment.intake.faces_to_search`); "always" takes every
            input as a photo, "never" none.

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
    )
    return run_plan(plan, search=search, progress=progress)


def run_plan(
    plan: Plan, *, search: Search | None = None, progress: OnProgress | None = None
) -> Generator[Record, None, None]:
    """Carries out a plan: see `run`. The page is written at the end, also after an interruption."""
    search = search or _real_search()
    store.make_folder(plan.out)
    _forget_other_names(plan)
    try:
        for task in plan.tasks:
            yield _do(plan, task, search, progress)
    finally:
        store.write_page(plan.out)


def _forget_other_names(plan: Plan) -> None:
    """Drops rows of inputs whose faces have other folders now; the folders themselves stay."""
    names: dict[str, set[str]] = {}
    for task in plan.tasks:
        names.setdefault(task.base, set()).add(task.stem)
    drop_rows(plan.out, lambda row: row["stem"] not in names.get(base_of(row), {row["stem"]}))


def _do(plan: Plan, task: Task, search: Search, progress: OnProgress | None) -> Record:
    base = (task.stem, str(task.path), task.sha256)
    if task.action == "skip":
        return _skipped(plan, task)
    if task.action == "failed_before":
        row = task.earlier or {}
        note = "failed in an earlier run; --retry-failed tries it again"
        error, hint = str(row.get("error", "")), str(row.get("hint", ""))
        return Record(*base, "failed", 0.0, error, hint, 1, note=note)
    started = time.perf_counter()
    try:
        document = _search_and_write(plan, task, search, progress)
    except SetupError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SetupError(
                f"the disk is full: could not write {plan.out / task.stem}",
                "free some space; the same command resumes",
            ) from error
        return _failed(plan, task, error, time.perf_counter() - started)
    seconds = round(time.perf_counter() - started, 3)
    put_row(plan.out, store.row_of(task.stem, str(task.path), document, seconds))
    return Record(
        *base, "done", seconds, searched=len(task.indices), **_numbers(document["samples"])
    )


def _search_and_write(
    plan: Plan, task: Task, search: Search, progress: OnProgress | None
) -> store.Document:
    if task.refusal is not None:
        raise task.refusal
    started = time.perf_counter()
    image = read_image(task.path)
    if image.sha256 != task.sha256:
        raise InputError(f"{task.path} changed while the run was going", "run the command again")
    placement = None
    if task.face is not None:
        placement = Placement(image, task.face, task.base)
        image = low_res_face(image, task.face, plan.prior.resolution)
    load_s = time.perf_counter() - started
    report = None if progress is None else lambda record: progress(task, record)
    try:
        result = search(image, plan.prior, plan.config, task.indices, report)
    except Exception as error:
        if not isinstance(error, SetupError):
            message, hint, _ = _describe(error)
            folder = plan.out / task.stem
            store.write_failure(folder, image, task.fingerprint, message, hint, placement)
        raise
    return store.write_result(
        plan.out / task.stem,
        result,
        fresh=plan.overwrite,
        prior_source=plan.prior_source,
        load_s=load_s,
        align=plan.align,
        placement=placement,
    )


def _skipped(plan: Plan, task: Task) -> Record:
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


def _real_search() -> Search:
    from pulse_sr.api import search_image

    return search_image
