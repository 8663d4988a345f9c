"""Inputs to search as a stream of jobs: every sample of every input is one.

The jobs of all inputs that are seen through the same operator share one stream of slots
(`pulse_sr.search.stream`). On a CPU the bits of a sample depend on the prior, the settings, the
input and its index alone, not on its company.

Shapes: C channels of the observation, h w low-res.
"""

from __future__ import annotations

import hashlib
import logging
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import groupby

import torch

from pulse_sr.errors import InputError, SetupError
from pulse_sr.operators.base import Operator
from pulse_sr.priors.base import Prior, SeedBank
from pulse_sr.search.engine import Start
from pulse_sr.search.losses import mse_of
from pulse_sr.search.methods import METHODS, Settings, uses_bank
from pulse_sr.search.records import Found, Observed, SampleJob, Tick
from pulse_sr.search.seedbank import SeenBank, ShuffledBank
from pulse_sr.search.stream import stream
from pulse_sr.search.strict import strict_pulse

log = logging.getLogger(__name__)

#: In the place of a sample's index: the seed that the seed bank is shuffled by.
_SHUFFLE = -1


def sample_seed(seed: int, sha256: str, index: int, attempt: int = 0) -> int:
    """The seed of one sample of one input, 48 bits: exact in every JSON reader.

    It follows from the user's seed, the sha256 of the input, the index of the sample and how often
    it was started before.
    """
    text = f"{seed}:{sha256}:{index}" + (f":{attempt}" if attempt else "")
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def search_samples(
    prior: Prior,
    observations: Iterable[Observed],
    settings: Settings,
    bank: SeedBank | None = None,
) -> Iterator[Tick]:
    """Search inputs, in their order, with all slots busy as long as there is work.

    Inputs that follow each other and have the same operator share the slots; the next group begins
    when the last sample of the one before has left. Out of memory, the slots are halved and the
    samples that were under way begin again.

    Args:
        prior: the generator.
        observations: taken one by one, when a slot asks for more.
        settings: method, steps, seed.
        bank: where methods that use it find their starts; None: random points of the prior.

    Yields:
        what happened in every step.

    Raises:
        SetupError: when the memory does not suffice for one slot.
    """
    if settings.strict:
        yield from _search_strictly(prior, observations, settings)
        return
    for (operator, side), group in groupby(observations, lambda each: (each.operator, each.side)):
        jobs = _Jobs(_jobs(prior, group, settings, bank))
        settings = yield from _search_group(prior, operator, side, jobs, settings)


def find_samples(
    prior: Prior, observation: Observed, settings: Settings, bank: SeedBank | None = None
) -> list[Found]:
    """Search the samples of one input alone; see `search_samples`.

    Returns:
        the samples in the order of `observation.indices`.

    Raises:
        InputError: when no iterate of a sample was finite.
        SetupError: when the memory does not suffice.
    """
    ticks = search_samples(prior, [observation], settings, bank)
    found = {each.job.index: each for tick in ticks for each in tick.found}
    check_found(found.values())
    return [found[index] for index in observation.indices]


def check_found(found: Iterable[Found]) -> None:
    """Check that every sample has an image.

    Raises:
        InputError: when no iterate of one was finite.
    """
    lost = sorted(each.job.index for each in found if each.image is None)
    if lost:
        raise InputError(
            f"the search found no finite image for the samples {lost}",
            "try another --seed, or --precision fp32",
        )


class _Jobs:
    """Jobs that can be taken again, as long as they have not come back."""

    def __init__(self, jobs: Iterator[SampleJob]) -> None:
        self.jobs = jobs
        self.again: deque[SampleJob] = deque()
        self.out: dict[SampleJob, None] = {}  # in their order

    def __iter__(self) -> Iterator[SampleJob]:
        return self

    def __next__(self) -> SampleJob:
        job = self.again.popleft() if self.again else next(self.jobs)
        self.out[job] = None
        return job

    def put_back(self) -> None:
        """Take back all that are out: they come again, before the others."""
        self.again.extendleft(reversed(self.out))
        self.out.clear()


def _search_group(
    prior: Prior, operator: Operator, side: int, jobs: _Jobs, settings: Settings
) -> Generator[Tick, None, Settings]:
    """Search all jobs; returns the settings with the slots that the memory sufficed for."""
    while True:
        try:
            method = METHODS[settings.method](prior, operator, side, settings)
            for tick in stream(method, operator, jobs):
                for found in tick.found:
                    del jobs.out[found.job]
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
    prior: Prior, observations: Iterable[Observed], settings: Settings, bank: SeedBank | None
) -> Iterator[SampleJob]:
    """The jobs of inputs that all have the same operator."""
    seen = None
    for each in observations:
        target, shuffled = _target(prior, each), None
        if bank is not None and uses_bank(settings.method):
            seen = seen or SeenBank(bank, each.operator, prior.resolution)
            seed = sample_seed(settings.seed, each.sha256, _SHUFFLE)
            errors, share = seen.errors(target), settings.phased.share
            shuffled = ShuffledBank(prior, bank, errors, seed, share)
        mse = mse_of(settings.target_db if each.target_db is None else each.target_db)
        for index in each.indices:
            start = partial(_start, each.sha256, index, settings, target, shuffled)
            seed = sample_seed(settings.seed, each.sha256, index)
            yield SampleJob(each, index, seed, target, mse, start)


def _target(prior: Prior, observation: Observed) -> torch.Tensor:  # [1, C, h, w]
    y = observation.y.to(prior.device, torch.float32)
    return observation.operator.observe(y[None])


def _start(
    sha256: str,
    index: int,
    settings: Settings,
    target: torch.Tensor,
    shuffled: ShuffledBank | None,
    attempt: int,
) -> Start:
    """What an attempt begins with: after a failure, random points instead of the bank's."""
    candidates = None
    if shuffled is not None and attempt == 0:
        candidates = shuffled.candidates(index, settings.phased.candidates)
    seed = sample_seed(settings.seed, sha256, index, attempt)
    return Start(torch.Generator().manual_seed(seed), target, candidates)


def _search_strictly(
    prior: Prior, observations: Iterable[Observed], settings: Settings
) -> Iterator[Tick]:
    """Batch after batch; sample k always sits in slot `k mod slots` of a full one."""
    for each in observations:
        for chunk in sorted({index // settings.slots for index in each.indices}):
            members = range(chunk * settings.slots, (chunk + 1) * settings.slots)
            seed = sample_seed(settings.seed, each.sha256, members[0])
            yield from strict_pulse(
                prior, each, _target(prior, each), seed, settings.steps, members
            )
