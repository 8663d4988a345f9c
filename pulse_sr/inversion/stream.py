"""Many inputs through one stream of searches: each one observed, searched, projected, measured.

Inputs are taken when a slot is free, and given back soon after their last sample has left: memory
does not grow with their number. Projecting and measuring go on beside the search.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch

from pulse_sr.config import SearchConfig
from pulse_sr.devices import choose_bf16, give_back_freed_memory, keep_freed_memory
from pulse_sr.errors import SetupError
from pulse_sr.images.read import LowResImage
from pulse_sr.inversion.background import Background
from pulse_sr.inversion.finish import finish
from pulse_sr.inversion.observation import Observation, observe
from pulse_sr.inversion.result import Result, Sample
from pulse_sr.priors.bank import bank_of
from pulse_sr.priors.base import Prior, SeedBank
from pulse_sr.search.capacity import automatic_slots
from pulse_sr.search.diagnostics import describe_chains
from pulse_sr.search.methods import Settings, uses_bank
from pulse_sr.search.records import Found, Observed, Running, Tick
from pulse_sr.search.samples import check_found, search_samples
from stylegan_ops import library

#: Called with the index of a sample, its step from 0, its image `[3, H, W]` in [0, 1] and LR-PSNR.
OnStep = Callable[[int, int, torch.Tensor, float], None]


@dataclass(frozen=True, eq=False)
class Request:
    """An input to search; who asks may add to it what it knows the input by.

    Attributes:
        image: the input as read.
        indices: which samples, from 0.
        on_step: called with every step of every sample.
    """

    image: LowResImage
    indices: Sequence[int]
    on_step: OnStep | None = None


R = TypeVar("R", bound=Request)


@dataclass(frozen=True)
class SearchProgress:
    """One step of the search of an input: `done` of `samples` have their result."""

    step: int
    steps: int
    best_db: float
    done: int
    samples: int


#: After so many inputs, freed memory goes back: its gaps would add up (docs/search.md).
_TRIM_EVERY = 8


def search_images(
    requests: Iterable[R],
    prior: Prior,
    config: SearchConfig,
    progress: Callable[[R, SearchProgress], None] | None = None,
    samples: int | None = None,
) -> Generator[tuple[R, Result | Exception], None, None]:
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
    searched = prior.in_precision(bf16=choose_bf16(config.precision, prior.device))
    settings = Settings(
        method=config.method,
        strict=config.strict_pulse,
        steps=config.total_steps,
        target_db=config.target_db,
        slots=automatic_slots(searched, samples) if config.batch is None else config.batch,
        seed=config.seed,
    )
    bank = bank_of(prior) if uses_bank(settings.method) else None
    # As many wait to be projected as are searched: all slots may be left at the same step.
    projecting = Background("project", most=settings.slots)
    inputs = _Inputs(requests, prior, config, projecting)
    try:
        yield from _search(inputs, searched, settings, bank, progress)
    finally:
        projecting.close(complete=False)


def _search(
    inputs: _Inputs[R],
    prior: Prior,
    settings: Settings,
    bank: SeedBank | None,
    progress: Callable[[R, SearchProgress], None] | None,
) -> Iterator[tuple[R, Result | Exception]]:
    while inputs.are_left:
        try:
            clock = time.perf_counter()
            for tick in search_samples(prior, inputs.observations(), settings, bank):
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


class _Open(Generic[R]):
    """An input that is being searched."""

    def __init__(self, request: R, observation: Observation, prepare_s: float) -> None:
        self.request, self.observation = request, observation
        self.samples: dict[int, Future[tuple[Sample, float]]] = {}
        self.traces: dict[int, torch.Tensor] = {}
        self.lost: list[Found] = []
        self.notes: list[str] = []
        self.slots = 0
        self.timing = {"prepare_s": prepare_s, "search_s": 0.0, "project_s": 0.0}

    def take(self, found: Found, projecting: Background) -> None:
        """Keep a sample that has left its slot, to be projected and measured."""
        index = found.job.index
        if found.image is None:
            self.lost.append(found)
        else:
            self.samples[index] = projecting.submit(finish, found, self.observation)
            if found.chain is not None:
                self.traces[index] = found.chain.trace
        if found.restarts:
            times = "once" if found.restarts == 1 else f"{found.restarts} times"
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

    def progress(self, running: Sequence[Running], steps: int) -> SearchProgress:
        """Of its samples in the slots: the most advanced one's step, and the worst match."""
        step = max((each.step + 1 for each in running), default=steps)
        db = min((each.best_db for each in running), default=0.0)
        return SearchProgress(step, steps, db, self.done, len(self.request.indices))

    def outcome(self, prior: Prior, config: SearchConfig) -> Result | Exception:
        """The result, or what is wrong with it; waits until all samples are measured."""
        try:
            check_found(self.lost)
            return self._result(prior, config)
        except Exception as error:
            return error

    def _result(self, prior: Prior, config: SearchConfig) -> Result:
        finished = [self.samples[index].result() for index in self.request.indices]
        self.timing["project_s"] = sum(seconds for _, seconds in finished)
        return Result(
            observation=self.observation,
            prior_name=prior.name,
            prior_sha256=prior.sha256,
            prior_licence=str(prior.card.get("licence") or "unknown"),
            resolution=prior.resolution,
            config=config,
            samples_list=tuple(sample for sample, _ in finished),
            timing=self.timing,
            device=str(prior.device),
            torch_version=torch.__version__,
            ops=library.used_by_generators(prior.device.type),
            notes=(*self.observation.notes, *self.notes),
            slots=self.slots,
            diagnostics=self._diagnostics(),
        )

    def _diagnostics(self) -> dict[str, Any] | None:
        """Whether the chains of a sampler have mixed; None for the other methods."""
        if not self.traces:
            return None
        traces = [self.traces[index] for index in sorted(self.traces)]
        return {"samples": sorted(self.traces)} | describe_chains(torch.stack(traces))


class _Inputs(Generic[R]):
    """The inputs of a stream: those that are open, in their order, and those that are done."""

    def __init__(
        self, requests: Iterable[R], prior: Prior, config: SearchConfig, projecting: Background
    ) -> None:
        self.prior, self.config = prior, config
        self.projecting = projecting
        self.open: dict[Observed, _Open[R]] = {}
        self.again: deque[Observation] = deque()
        self.outcomes: deque[tuple[R, Result | Exception]] = deque()
        self.exhausted, self.ended = False, 0
        self.aside = 0.0
        self._fresh = self._observed(requests)

    @property
    def are_left(self) -> bool:
        """Whether there are inputs that no search has taken yet."""
        return bool(self.again) or not self.exhausted

    def observations(self) -> Iterator[Observation]:
        """The inputs that are left, each observed when it is asked for."""
        while self.again:
            yield self.again.popleft()
        # Not `yield from`: the next search goes on where this one ends.
        for observation in self._fresh:  # noqa: UP028
            yield observation

    def _observed(self, requests: Iterable[R]) -> Iterator[Observation]:
        try:
            yield from self._observe(requests)
        finally:  # also where the requests end in an error: nothing more will come
            self.exhausted = True

    def _observe(self, requests: Iterable[R]) -> Iterator[Observation]:
        clock, last = time.perf_counter(), None
        for request in requests:
            started = time.perf_counter()
            try:
                last = observe(request.image, self.prior, self.config, request.indices, last)
            except SetupError:
                raise
            except Exception as error:
                self.outcomes.append((request, error))
                continue
            self.open[last] = _Open(request, last, time.perf_counter() - started)
            self.aside += time.perf_counter() - clock
            yield last
            clock = time.perf_counter()

    def take(self, tick: Tick, seconds: float) -> None:
        """Share the time of a step among the samples that were in it; keep those that are done."""
        share = max(0.0, seconds - self.aside) / max(1, len(tick.running))
        self.aside = 0.0
        for each in tick.running:
            entry = self.open[each.job.observation]
            entry.timing["search_s"] += share
            if entry.request.on_step is not None:
                entry.request.on_step(each.job.index, each.step, each.image, each.db)
        for found in tick.found:
            entry = self.open[found.job.observation]
            entry.slots = tick.slots
            entry.take(found, self.projecting)

    def show(self, tick: Tick, progress: Callable[[R, SearchProgress], None]) -> None:
        """Report the input that has waited longest of those in the slots."""
        for observation, entry in self.open.items():
            own = [each for each in tick.running if each.job.observation is observation]
            if own:
                progress(entry.request, entry.progress(own, self.config.total_steps))
                return

    def give_up(self, error: Exception) -> bool:
        """End the inputs in the slots with what stopped their search; False: there are none.

        Groups are searched one after the other. An input of the next group may be observed already:
        it is left for the next search.
        """
        unfinished = [entry for entry in self.open.values() if not entry.searched]
        for entry in unfinished:
            if entry.observation.operator is not unfinished[0].observation.operator:
                self.again.append(entry.observation)
                continue
            del self.open[entry.observation]
            self.outcomes.append((entry.request, error))
        return bool(unfinished)

    def finished(self, *, wait: bool = False) -> Iterator[tuple[R, Result | Exception]]:
        """Give out what is done; with `wait` also what only has to be measured."""
        searched = [entry for entry in self.open.values() if entry.searched]
        for entry in [each for each in searched if wait or each.measured]:
            del self.open[entry.observation]
            self.outcomes.append((entry.request, entry.outcome(self.prior, self.config)))
            self.ended += 1
            if self.ended % _TRIM_EVERY == 0:
                give_back_freed_memory()
        while self.outcomes:
            yield self.outcomes.popleft()
