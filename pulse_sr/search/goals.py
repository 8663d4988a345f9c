"""Inputs to search as a stream of jobs: every sample of every input is one.

The jobs of all inputs that are seen through the same operator share one stream of slots
(`pulse_sr.search.stream`). On a CPU the bits of a sample depend on the prior, the settings, the
input and its index alone, not on its company.

Shapes: h w low-res, C channels of the observation.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Generator, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from pulse_sr.errors import SetupError
from pulse_sr.operators.base import Operator
from pulse_sr.priors.base import Prior, SeedBank
from pulse_sr.search.engine import Start
from pulse_sr.search.losses import mse_of
from pulse_sr.search.methods import METHODS, Settings, uses_bank
from pulse_sr.search.seedbank import Deck, SeenBank
from pulse_sr.search.stream import Job, Tick, stream
from pulse_sr.search.strict import strict_pulse

log = logging.getLogger(__name__)

#: In the place of a sample's index: the seed that the seed bank is shuffled by.
_SHUFFLE = -1


@dataclass(frozen=True, eq=False)
class Goal:
    """One low-res input, and which samples of it are wanted.

    Attributes:
        operator: from high-res images to what is known of the input.
        target: the picture `[3, h, w]` in [0, 1], or what the operator observes of it.
        low_side: side of the square low-res grid (h or w may be smaller where padded).
        sha256: of the input, part of every seed.
        indices: which samples, from 0.
        group: inputs of the same group have equal operators and sides; they share slots.
        target_db: a sample that comes this close leaves; None: that of the settings.
        tag: whatever the caller knows it by.
    """

    operator: Operator
    target: torch.Tensor
    low_side: int
    sha256: str
    indices: Sequence[int]
    group: Hashable = None
    target_db: float | None = None
    tag: Any = None


@dataclass(frozen=True)
class SampleTag:
    """The tag of a job: a sample of a goal, and the seed of its generator."""

    goal: Goal
    index: int
    seed: int


def sample_seed(seed: int, sha256: str, index: int, attempt: int = 0) -> int:
    """The seed of one sample of one input, 48 bits: exact in every JSON reader.

    Args:
        seed: the user's.
        sha256: of the input.
        index: of the sample.
        attempt: how often it was started before.
    """
    text = f"{seed}:{sha256}:{index}" + (f":{attempt}" if attempt else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def search_goals(
    prior: Prior, goals: Iterable[Goal], settings: Settings, bank: SeedBank | None = None
) -> Iterator[Tick]:
    """Search inputs, in their order, with all slots busy as long as there is work.

    Inputs that follow each other and are of one group share the slots; the next group begins when
    the last sample of the one before has left. Out of memory, the slots are halved and the samples
    that were under way begin again.

    Args:
        prior: the generator.
        goals: taken one by one, when a slot asks for more.
        settings: method, steps, seed.
        bank: where methods that use it find their starts; None: random points of the prior.

    Yields:
        what happened in every step; the tags are of type `SampleTag`.

    Raises:
        SetupError: when the memory does not suffice for one slot.
    """
    if settings.strict:
        yield from _search_strictly(prior, goals, settings)
        return
    queue = iter(goals)
    first = next(queue, None)
    while first is not None:
        group = _Group(first, queue)
        jobs = _Jobs(_jobs(prior, group, settings, bank))
        settings = yield from _search_group(prior, first, jobs, settings)
        first = group.following


class _Group:
    """The goals from `first` on that are of one group; what comes after is left in `following`."""

    def __init__(self, first: Goal, rest: Iterator[Goal]) -> None:
        self.first, self.rest = first, rest
        self.following: Goal | None = None

    def __iter__(self) -> Iterator[Goal]:
        yield self.first
        for goal in self.rest:
            if goal.group != self.first.group:
                self.following = goal
                return
            yield goal


class _Jobs:
    """Jobs that can be handed out again, as long as they have not come back."""

    def __init__(self, jobs: Iterator[Job]) -> None:
        self.jobs = jobs
        self.again: deque[Job] = deque()
        self.out: dict[SampleTag, Job] = {}

    def __iter__(self) -> Iterator[Job]:
        return self

    def __next__(self) -> Job:
        job = self.again.popleft() if self.again else next(self.jobs)
        self.out[job.tag] = job
        return job

    def put_back(self) -> None:
        """Take back all that are out: they are handed out again, before the others."""
        self.again.extendleft(reversed(self.out.values()))
        self.out.clear()


def _search_group(
    prior: Prior, first: Goal, jobs: _Jobs, settings: Settings
) -> Generator[Tick, None, Settings]:
    """Search all jobs; returns the settings with the slots that the memory sufficed for."""
    while True:
        try:
            make = METHODS[settings.method].make
            method = make(prior, first.operator, first.low_side, settings)
            for tick in stream(method, first.operator, jobs):
                for found in tick.found:
                    del jobs.out[found.tag]
                yield tick
            return settings
        except torch.OutOfMemoryError as error:
            if settings.slots == 1:
                raise SetupError(
                    f"out of memory with one sample on {prior.device}", "--device cpu"
                ) from error
        # Out here the error is gone, and with it what its frames held.
        jobs.put_back()
        settings = _with_fewer_slots(settings)


def _with_fewer_slots(settings: Settings) -> Settings:
    slots = settings.slots // 2
    log.warning("out of memory with %d samples at once: going on with %d", settings.slots, slots)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return replace(settings, slots=slots)


def _jobs(
    prior: Prior, goals: Iterable[Goal], settings: Settings, bank: SeedBank | None
) -> Iterator[Job]:
    """The jobs of goals that are all of one group."""
    seen = None
    for goal in goals:
        target = _observed(prior, goal)
        deck = None
        if bank is not None and uses_bank(settings.method):
            seen = seen or SeenBank(bank, goal.operator, prior.resolution)
            shuffle = sample_seed(settings.seed, goal.sha256, _SHUFFLE)
            deck = Deck(prior, bank, seen.errors(target), shuffle, settings.phased.hand)
        mse = mse_of(settings.target_db if goal.target_db is None else goal.target_db)
        for index in goal.indices:
            tag = SampleTag(goal, index, sample_seed(settings.seed, goal.sha256, index))
            yield Job(tag, target, mse, partial(_start, tag, settings, target, deck))


def _observed(prior: Prior, goal: Goal) -> torch.Tensor:  # [1, C, h, w]
    return goal.operator.observe(goal.target.to(prior.device, torch.float32)[None])


def _start(
    tag: SampleTag, settings: Settings, target: torch.Tensor, deck: Deck | None, attempt: int
) -> Start:
    """What an attempt begins with: after a failure, random points instead of the bank's."""
    candidates = None
    if deck is not None and attempt == 0:
        candidates = deck.candidates([tag.index], settings.phased.candidates)[0]
    seed = sample_seed(settings.seed, tag.goal.sha256, tag.index, attempt)
    return Start(torch.Generator().manual_seed(seed), target, candidates)


def _search_strictly(prior: Prior, goals: Iterable[Goal], settings: Settings) -> Iterator[Tick]:
    """Batch after batch; sample k always sits in slot `k mod slots` of a full one."""
    for goal in goals:
        target = _observed(prior, goal)
        for chunk in sorted({index // settings.slots for index in goal.indices}):
            members = range(chunk * settings.slots, (chunk + 1) * settings.slots)
            seed = sample_seed(settings.seed, goal.sha256, members[0])
            tags = [SampleTag(goal, member, seed) for member in members]
            wanted = [member in goal.indices for member in members]
            yield from strict_pulse(
                prior, goal.operator, target, seed, settings.steps, tags, wanted
            )
