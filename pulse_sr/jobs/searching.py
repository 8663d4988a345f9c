"""Searches over many inputs: plan, search, write, go on; the worker is `search_worker`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any

from pulse_sr.config import RunOptions, SearchConfig
from pulse_sr.files.atomic import make_folder, remove_leftovers
from pulse_sr.inversion.stream import SearchProgress
from pulse_sr.jobs import store
from pulse_sr.jobs.executors.local import run_local
from pulse_sr.jobs.job import Executor, Job
from pulse_sr.jobs.manifest import Index, Row, base_of, drop_rows
from pulse_sr.jobs.photo import OnPasting
from pulse_sr.jobs.plan import Plan, plan_run
from pulse_sr.jobs.search_worker import Record, Search, SearchWorker
from pulse_sr.jobs.task import Task
from pulse_sr.priors.base import Prior

#: Other shards write to the run folder too; none of them takes so long for one file, in seconds.
_LEFT_BEHIND_S = 60.0

#: Called with the task and how far its search is.
OnProgress = Callable[[Task, SearchProgress], None]


def run(
    inputs: Sequence[str | Path],
    out: str | Path = "pulse_out",
    config: SearchConfig | None = None,
    prior: Prior | str | Path | None = None,
    *,
    search: Search | None = None,
    progress: OnProgress | None = None,
    executor: Executor = run_local,
    **options: Any,
) -> Generator[Record, None, None]:
    """Searches faces for all inputs and writes them to `out`; yields a record after each input.

    The call itself checks everything and loads the prior; the work happens while iterating.

    Args:
        inputs: image files, folders or globs.
        out: the run folder.
        config: the settings; None is `SearchConfig()`.
        prior: a loaded prior, a name or a path; None is the default one.
        search: stands in for `pulse_sr.inversion.stream.search_images`.
        progress: called during each search, by an executor of this process.
        executor: who does the work, see `executors.choice`.
        **options: fields of `RunOptions`: align, cluster, save_steps, overwrite, retry_failed, ...

    Raises:
        UsageError, SetupError: see `plan_run`; while iterating, SetupError (disk full, no such
            device) ends the run. Errors of one input become records with the status "failed".
    """
    if isinstance(prior, str | Path):
        prior, options["prior"] = None, str(prior)
    plan = plan_run(inputs, out, config or SearchConfig(), RunOptions(**options), prior)
    return run_plan(plan, search=search, progress=progress, executor=executor)


def run_plan(
    plan: Plan,
    *,
    search: Search | None = None,
    progress: OnProgress | None = None,
    pasting: OnPasting | None = None,
    executor: Executor = run_local,
) -> Generator[Record, None, None]:
    """Carries out a plan: see `run`. The page is written at the end, also after an interruption.

    `pasting` is called in a thread while a photo is put together (`photo.OnPasting`).
    """
    search = search or _real_search()
    make_folder(plan.out)
    remove_leftovers(plan.out, _LEFT_BEHIND_S)
    index = Index(plan.out, drop_rows(plan.out, _of_other_names(plan)))
    report = None if progress is None else lambda request, step: progress(request.task, step)
    worker = SearchWorker(plan, index, search, report, pasting)
    yield from Job(plan.tasks, worker, index, store.write_page).carry_out(executor)


def _of_other_names(plan: Plan) -> Callable[[Row], bool]:
    """Whether a row is of an input whose faces have other folders now; the folders stay."""
    names: dict[str, set[str]] = {}
    for task in plan.tasks:
        names.setdefault(task.base, set()).add(task.stem)
    return lambda row: row["stem"] not in names.get(base_of(row), {row["stem"]})


def _real_search() -> Search:
    from pulse_sr.inversion.stream import search_images

    return search_images
