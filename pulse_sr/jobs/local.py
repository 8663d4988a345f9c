"""The loop over many inputs in this process: plan, search, write, go on.

The samples of all inputs go through one stream of slots (`inversion.stream`). Beside it a thread
reads the next inputs, and others write each input as soon as its last sample is done. One bad input
never stops the others. What is finished is on disk, so the same command resumes after an
interruption.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Protocol

from pulse_sr.config import SearchConfig
from pulse_sr.errors import SetupError
from pulse_sr.files.atomic import remove_leftovers
from pulse_sr.inversion.background import Background, read_ahead
from pulse_sr.inversion.stream import Outcome, Request
from pulse_sr.jobs import store
from pulse_sr.jobs.manifest import Index, Row, base_of, drop_rows
from pulse_sr.jobs.outcomes import Record, failed, failed_before, skipped, write_outcome
from pulse_sr.jobs.plan import DEFAULT_OUT, Plan, plan_run
from pulse_sr.jobs.reading import read_input
from pulse_sr.jobs.task import Task

#: Other shards write to the run folder too; none of them takes so long for one file, in seconds.
_LEFT_BEHIND_S = 60.0

#: Threads that write: a quarter of the cores. Writing an input of 128 px takes about 0.2 s of one.
_WRITERS = max(1, min(4, (os.cpu_count() or 1) // 4))

#: Called with the task and the search's own progress record (step, steps, best_db, done, samples).
OnProgress = Callable[[Task, Any], None]

#: The same, called with the request.
Report = Callable[[Request, Any], None]


class Search(Protocol):
    """The stream of searches: `inversion.stream.search_images`, or a stand-in for tests."""

    def __call__(
        self,
        requests: Iterable[Request],
        prior: Any,
        config: SearchConfig,
        progress: Report | None = None,
        samples: int | None = None,
    ) -> Generator[Outcome, None, None]: ...


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
        search: stands in for `pulse_sr.inversion.stream.search_images`.
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
    index = Index(plan.out, drop_rows(plan.out, _of_other_names(plan)))
    work = _Run(plan, index)
    report = None if progress is None else lambda request, step: progress(request.tag.task, step)
    try:
        yield from work.records(search, report)
    except BaseException:
        with contextlib.suppress(SetupError):  # what ended the run is the thing to say
            _finish(index)
        raise
    _finish(index)


def _finish(index: Index) -> None:
    index.flush()
    store.write_page(index.out)


def _of_other_names(plan: Plan) -> Callable[[Row], bool]:
    """Whether a row is of an input whose faces have other folders now; the folders stay."""
    names: dict[str, set[str]] = {}
    for task in plan.tasks:
        names.setdefault(task.base, set()).add(task.stem)
    return lambda row: row["stem"] not in names.get(base_of(row), {row["stem"]})


class _Run:
    """What is known of each input of a plan; records come in the order of the plan."""

    def __init__(self, plan: Plan, index: Index) -> None:
        self.plan, self.index, self.next = plan, index, 0
        self.known: dict[int, Record] = {}
        self.writing: dict[int, Future[Record]] = {}

    def records(self, search: Search, report: Report | None) -> Iterator[Record]:
        """Search all inputs; the record of each comes when it is on disk.

        What is found is written and told in any case, also where an error or an interruption ends
        the run.
        """
        try:
            yield from self._searched(search, report)
            yield from self._ready()
        except GeneratorExit:  # nobody listens any more
            raise
        except BaseException:
            with contextlib.suppress(SetupError):  # what ended the run is the thing to say
                yield from self._ready()
            raise

    def _searched(self, search: Search, report: Report | None) -> Iterator[Record]:
        plan = self.plan
        samples = sum(len(task.indices) for task in plan.tasks)
        with (
            Background("write", _WRITERS, most=_WRITERS + 2) as writing,
            contextlib.closing(read_ahead(self._requests())) as requests,
            contextlib.closing(
                search(requests, plan.prior, plan.config, report, samples=samples)
            ) as found,
        ):
            for request, outcome in found:
                future = writing.submit(write_outcome, plan, self.index, request, outcome)
                self.writing[request.tag.place] = future
                yield from self._ready()

    def _requests(self) -> Iterator[Request]:
        """The inputs that are to be searched, each read when it is asked for."""
        for place, task in enumerate(self.plan.tasks):
            if task.action == "skip":
                self.known[place] = skipped(self.plan, self.index, task)
            elif task.action == "failed_before":
                self.known[place] = failed_before(self.index, task)
            else:
                started = time.perf_counter()
                try:
                    request = read_input(self.plan, place, task)
                except SetupError:
                    raise
                except Exception as error:
                    seconds = time.perf_counter() - started
                    self.known[place] = failed(self.plan, self.index, task, error, seconds)
                else:
                    yield request

    def _ready(self) -> Iterator[Record]:
        """The records up to the first input that is not on disk.

        Raises:
            SetupError: one could not be written.
        """
        for place in [place for place, future in self.writing.items() if future.done()]:
            self.known[place] = self.writing.pop(place).result()
        while self.next in self.known:
            yield self.known.pop(self.next)
            self.next += 1


def _real_search() -> Search:
    from pulse_sr.inversion.stream import search_images

    return search_images
