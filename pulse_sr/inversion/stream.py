"""Many inputs through one stream of searches: each one posed, searched, projected, measured.

Inputs are taken when a slot is free, and given back soon after their last sample has left: memory
does not grow with their number. Projecting and measuring go on beside the search.

Shapes: H W high-res, h w low-res.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

import torch

from pulse_sr.config import SearchConfig
from pulse_sr.devices import choose_bf16, give_back_freed_memory, keep_freed_memory
from pulse_sr.errors import SetupError
from pulse_sr.images.read import LowResImage
from pulse_sr.inversion.background import Background
from pulse_sr.inversion.finish import finish
from pulse_sr.inversion.problem import Problem, pose_problem
from pulse_sr.inversion.result import Result, Sample
from pulse_sr.priors.bank import bank_of
from pulse_sr.priors.base import Prior, SeedBank
from pulse_sr.search.capacity import automatic_slots
from pulse_sr.search.diagnostics import describe_chains
from pulse_sr.search.goals import Goal, search_goals
from pulse_sr.search.methods import Settings, uses_bank
from pulse_sr.search.sampling import (
    OnStep,
    SearchProgress,
    candidate_of,
    check_found,
    progress_of,
    tell_steps,
)
from pulse_sr.search.stream import Found, Tick
from stylegan_ops import library


@dataclass(frozen=True, eq=False)
class Request:
    """An input to search.

    Attributes:
        image: the input as read.
        indices: which samples, from 0.
        tag: whatever the caller knows it by.
        on_step: called with every step of every sample.
    """

    image: LowResImage
    indices: Sequence[int]
    tag: Any = None
    on_step: OnStep | None = None


#: After so many inputs, freed memory goes back: its gaps would add up (docs/search.md).
_TRIM_EVERY = 8

#: An input and what became of it.
Outcome = tuple[Request, Result | Exception]


def search_images(
    requests: Iterable[Request],
    prior: Prior,
    config: SearchConfig,
    progress: Callable[[Request, SearchProgress], None] | None = None,
    samples: int | None = None,
) -> Generator[Outcome, None, None]:
    """Search inputs, project and measure their samples.

    A sample is the same, to the bit on a CPU, whatever else is searched with it.

    Args:
        requests: taken one by one, when a slot asks for more.
        prior: the generator.
        config: the settings; the indices of the requests stand for its `samples`.
        progress: called after every step, for the input that has waited longest.
        samples: how many are asked for in all, for the choice of slots; None: many.

    Yields:
        each input when its last sample is done and measured, with its result or with the error that
        stopped it: one bad input does not stop the others.

    Raises:
        SetupError: the device can not be used, or its memory does not suffice.
    """
    keep_freed_memory()
    prior.bf16 = choose_bf16(config.precision, prior.device)
    settings = Settings(
        method=config.method,
        strict=config.strict_pulse,
        steps=config.total_steps,
        target_db=config.target_db,
        slots=automatic_slots(prior, samples) if config.batch is None else config.batch,
        seed=config.seed,
    )
    bank = bank_of(prior) if uses_bank(settings.method) else None
    # As many wait to be projected as are searched: all slots may be left at the same step.
    projecting = Background("project", most=settings.slots)
    try:
        yield from _search(_Inputs(requests, prior, config, projecting), settings, bank, progress)
    finally:
        projecting.close(complete=False)


def _search(
    inputs: _Inputs,
    settings: Settings,
    bank: SeedBank | None,
    progress: Callable[[Request, SearchProgress], None] | None,
) -> Iterator[Outcome]:
    while inputs.are_left:
        try:
            clock = time.perf_counter()
            for tick in search_goals(inputs.prior, inputs.goals(), settings, bank):
                inputs.take(tick, time.perf_counter() - clock)
                if progress is not None:
                    inputs.show(tick, progress)
                yield from inputs.finished()
                clock = time.perf_counter()
        except Exception as error:
            if isinstance(error, SetupError) or not inputs.give_up(error):
                yield from inputs.finished(wait=True)
                raise
        yield from inputs.finished(wait=True)


class _Open:
    """An input that is being searched."""

    def __init__(self, request: Request, problem: Problem, prepare_s: float) -> None:
        self.request, self.problem = request, problem
        self.samples: dict[int, Future[tuple[Sample, float]]] = {}
        self.traces: dict[int, torch.Tensor] = {}
        self.lost: list[Found] = []
        self.notes: list[str] = []
        self.slots = 0
        self.timing = {"prepare_s": prepare_s, "search_s": 0.0, "project_s": 0.0}
        fitted = problem.fitted
        self.goal = Goal(
            problem.operator,
            problem.target,
            fitted.side,
            request.image.sha256,
            request.indices,
            group=(problem.spec, fitted.side, fitted.rows, fitted.columns),
            target_db=problem.target_db,
            tag=self,
        )

    def take(self, found: Found, projecting: Background) -> None:
        """Keep a sample that has left its slot, to be projected and measured."""
        candidate = candidate_of(found)
        if candidate is None:
            self.lost.append(found)
        else:
            future = projecting.submit(finish, candidate, self.problem)
            self.samples[candidate.index] = future
            if candidate.chain is not None:
                self.traces[candidate.index] = candidate.chain.trace
        if found.restarts:
            times = "once" if found.restarts == 1 else f"{found.restarts} times"
            index = found.tag.index
            self.notes.append(f"sample {index} was started again {times}: its loss was not finite")

    @property
    def done(self) -> int:
        """How many samples have left their slots."""
        return len(self.samples) + len(self.lost)

    @property
    def searched(self) -> bool:
        """Whether all samples have left their slots."""
        return self.done == len(self.request.indices)

    @property
    def measured(self) -> bool:
        """Whether all samples that have left are projected and measured."""
        return all(sample.done() for sample in self.samples.values())

    def outcome(self, prior: Prior, config: SearchConfig) -> Result | Exception:
        """The result, or what is wrong with it; waits until all samples are measured."""
        try:
            check_found(self.lost)
            return self._result(prior, config)
        except Exception as error:
            return error

    def _result(self, prior: Prior, config: SearchConfig) -> Result:
        problem, fitted = self.problem, self.problem.fitted
        finished = [self.samples[index].result() for index in self.request.indices]
        self.timing["project_s"] = sum(seconds for _, seconds in finished)
        return Result(
            image=self.request.image,
            low_res=problem.pixels,
            side=fitted.side,
            rows=fitted.rows,
            columns=fitted.columns,
            operator_spec=problem.spec,
            operator_facts=problem.facts,
            projection=problem.projection,
            ok_db=problem.ok_db,
            scale=prior.resolution // fitted.side,
            prior_name=prior.name,
            prior_sha256=prior.sha256,
            resolution=prior.resolution,
            config=config,
            samples_list=tuple(sample for sample, _ in finished),
            timing=self.timing,
            device=str(prior.device),
            torch_version=torch.__version__,
            ops=library.used_by_generators(prior.device.type),
            notes=(*problem.notes, *self.notes),
            slots=self.slots,
            diagnostics=self._diagnostics(),
        )

    def _diagnostics(self) -> dict[str, Any] | None:
        """Whether the chains of a sampler have mixed; None for the other methods."""
        if not self.traces:
            return None
        traces = [self.traces[index] for index in sorted(self.traces)]
        return {"samples": sorted(self.traces)} | describe_chains(torch.stack(traces))


class _Inputs:
    """The inputs of a stream: those that are open, and those that are done."""

    def __init__(
        self,
        requests: Iterable[Request],
        prior: Prior,
        config: SearchConfig,
        projecting: Background,
    ) -> None:
        self.prior, self.config = prior, config
        self.projecting = projecting
        self.open: list[_Open] = []
        self.again: deque[_Open] = deque()
        self.outcomes: deque[Outcome] = deque()
        self.exhausted, self.ended = False, 0
        self.aside = 0.0
        self._fresh = self._posed(requests)

    @property
    def are_left(self) -> bool:
        """Whether there are inputs that no search has taken yet."""
        return bool(self.again) or not self.exhausted

    def goals(self) -> Iterator[Goal]:
        """The inputs that are left, each posed when it is asked for."""
        while self.again:
            yield self.again.popleft().goal
        # Not `yield from`: the next search goes on where this one ends.
        for goal in self._fresh:  # noqa: UP028
            yield goal

    def _posed(self, requests: Iterable[Request]) -> Iterator[Goal]:
        try:
            yield from self._pose(requests)
        finally:  # also where the requests end in an error: nothing more will come
            self.exhausted = True

    def _pose(self, requests: Iterable[Request]) -> Iterator[Goal]:
        clock = time.perf_counter()
        for request in requests:
            started = time.perf_counter()
            try:
                problem = pose_problem(request.image, self.prior, self.config)
                entry = _Open(request, problem, time.perf_counter() - started)
            except SetupError:
                raise
            except Exception as error:
                self.outcomes.append((request, error))
                continue
            self.open.append(entry)
            self.aside += time.perf_counter() - clock
            yield entry.goal
            clock = time.perf_counter()

    def take(self, tick: Tick, seconds: float) -> None:
        """Share the time of a step among the samples that were in it; keep those that are done."""
        share = max(0.0, seconds - self.aside) / max(1, len(tick.running))
        self.aside = 0.0
        for running in tick.running:
            entry = running.tag.goal.tag
            entry.timing["search_s"] += share
            if entry.request.on_step is not None:
                tell_steps([running], entry.request.on_step)
        for found in tick.found:
            entry = found.tag.goal.tag
            entry.slots = tick.slots
            entry.take(found, self.projecting)

    def show(self, tick: Tick, progress: Callable[[Request, SearchProgress], None]) -> None:
        """Report the input that has waited longest of those in the slots."""
        running = {each.tag.goal for each in tick.running}
        first = next((entry for entry in self.open if entry.goal in running), None)
        if first is not None:
            steps = self.config.total_steps
            progress(first.request, progress_of(first.goal, tick.running, steps, first.done))

    def give_up(self, error: Exception) -> bool:
        """End the inputs in the slots with what stopped their search; False: there are none.

        Groups are searched one after the other. An input of the next group may be posed already: it
        is left for the next search.
        """
        unfinished = [entry for entry in self.open if not entry.searched]
        if not unfinished:
            return False
        group = unfinished[0].goal.group
        stopped = [entry for entry in unfinished if entry.goal.group == group]
        self.again.extend(entry for entry in unfinished if entry.goal.group != group)
        self.open = [entry for entry in self.open if entry not in stopped]
        self.outcomes.extend((entry.request, error) for entry in stopped)
        return True

    def finished(self, *, wait: bool = False) -> Iterator[Outcome]:
        """Hand out what is done; with `wait` also what only has to be measured."""
        searched = [entry for entry in self.open if entry.searched]
        for entry in [each for each in searched if wait or each.measured]:
            self.open.remove(entry)
            self.outcomes.append((entry.request, entry.outcome(self.prior, self.config)))
            self.ended += 1
            if self.ended % _TRIM_EVERY == 0:
                give_back_freed_memory()
            del entry.goal  # a cycle would keep the samples until the garbage is looked through
        while self.outcomes:
            yield self.outcomes.popleft()
