"""From a low-res target to candidate faces: seeds, slots, methods.

Samples are searched in chunks of a fixed number of slots; sample k always sits in slot
`k mod slots` of a full chunk, whichever samples are asked for. A convolution therefore sees the
same shapes, and a sample the same neighbours in memory, whether it is computed with others, alone,
first or after a restart: on a CPU its bits are the same.

Shapes: S slots, H W high-res, h w low-res.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from pulse_sr.errors import InputError
from pulse_sr.operators import Operator
from pulse_sr.priors.bank import SeedBank
from pulse_sr.priors.base import Prior
from pulse_sr.search.engine import Best, Last, Method, search
from pulse_sr.search.latents import diagonal_map, full_map
from pulse_sr.search.losses import mse_of
from pulse_sr.search.phased import Phased, PhasedSettings
from pulse_sr.search.pulse import Pulse
from pulse_sr.search.seedbank import Deck, bank_errors

#: In the place of a sample's index: the seed that the seed bank is shuffled by.
_SHUFFLE = -1


@dataclass(frozen=True)
class Settings:
    """What the search needs to know.

    Attributes:
        method: "phased" or "pulse".
        strict: with "pulse": one random stream for the whole batch, and the last iterate is kept.
        steps: optimiser steps.
        target_db: a sample that comes this close freezes.
        slots: samples searched at once.
        seed: the user's seed.
        phased: constants of the method "phased".
    """

    method: str
    strict: bool
    steps: int
    target_db: float
    slots: int
    seed: int
    phased: PhasedSettings = field(default_factory=PhasedSettings)


@dataclass(frozen=True)
class SearchProgress:
    """One step of the search: `done` of `samples` have their result."""

    step: int
    steps: int
    best_db: float
    done: int
    samples: int


@dataclass(frozen=True)
class Candidate:
    """A sample before the projection: image `[3, H, W]` float32 in [0, 1] on the CPU."""

    index: int
    seed: int
    steps: int
    image: torch.Tensor


def sample_seed(seed: int, sha256: str, index: int) -> int:
    """The seed of one sample of one input, 48 bits: exact in every JSON reader."""
    digest = hashlib.sha256(f"{seed}:{sha256}:{index}".encode()).digest()
    return int.from_bytes(digest[:6], "big")


def find_candidates(
    prior: Prior,
    operator: Operator,
    target: torch.Tensor,
    low_side: int,
    sha256: str,
    indices: Sequence[int],
    settings: Settings,
    progress: Callable[[SearchProgress], None] | None = None,
    bank: SeedBank | None = None,
) -> list[Candidate]:
    """Search the samples `indices` of one input.

    Args:
        prior: the generator.
        operator: from its images to the low-res input.
        target: the picture `[3, h, w]` in [0, 1], or what the operator observes of it.
        low_side: side of the square low-res grid (h or w may be smaller where padded).
        sha256: of the input, part of every seed.
        indices: which samples, from 0.
        settings: method, steps, seed.
        progress: called after every step.
        bank: where the method "phased" finds its starts; None: random points of the prior.

    Returns:
        The candidates in the order of `indices`.

    Raises:
        InputError: when no iterate of a sample was finite.
    """
    target = operator.observe(target.to(prior.device, torch.float32)[None])
    deck = None
    if bank is not None and settings.method == "phased":
        shuffle = sample_seed(settings.seed, sha256, _SHUFFLE)
        errors = bank_errors(bank, operator, target, prior.resolution)
        deck = Deck(prior, bank, errors, shuffle, settings.phased.hand)
    found: dict[int, Candidate] = {}
    chunks = sorted({index // settings.slots for index in indices})
    for chunk in chunks:
        members = range(chunk * settings.slots, (chunk + 1) * settings.slots)
        seeds = [sample_seed(settings.seed, sha256, member) for member in members]
        if settings.strict:
            seeds = seeds[:1] * settings.slots
        wanted = [member in indices for member in members]
        starts = deck.candidates(members, settings.phased.candidates) if deck else None
        method = _method(prior, operator, target, low_side, seeds, settings, starts)
        best = Last() if settings.strict else Best(mse_of(settings.target_db))
        for db, step in _steps(method, operator, target, best, wanted):
            if progress is not None:
                progress(SearchProgress(step, settings.steps, db, len(found), len(indices)))
        _check_finite(best, members, wanted)
        taken = (best.step + 1).tolist()
        for slot, member in enumerate(members):
            if wanted[slot]:
                image = best.images[slot].float().cpu()
                found[member] = Candidate(member, seeds[slot], taken[slot], image)
    return [found[index] for index in indices]


def _check_finite(best: Best, members: Sequence[int], wanted: Sequence[bool]) -> None:
    finite = best.mse.isfinite().tolist()
    lost = [m for m, good, asked in zip(members, finite, wanted, strict=True) if asked and not good]
    if lost:
        raise InputError(
            f"the search found no finite image for the samples {lost}",
            "try another --seed, or --precision fp32",
        )


def _steps(
    method: Method,
    operator: Operator,
    target: torch.Tensor,
    best: Best,
    wanted: Sequence[bool],
) -> Iterator[tuple[float, int]]:
    """Run one chunk; yields the worst best dB of the wanted samples, and the step."""
    mask = torch.tensor(wanted, device=target.device)
    for record in search(method, operator, target, best, mask):
        yield record.best_db[mask].min().item(), record.step + 1


def _method(
    prior: Prior,
    operator: Operator,
    target: torch.Tensor,
    low_side: int,
    seeds: Sequence[int],
    settings: Settings,
    starts: torch.Tensor | None,
) -> Method:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    if settings.strict:  # one stream, drawn from sample after sample
        generators = generators[:1] * len(seeds)
    if settings.method == "pulse":
        to_style = diagonal_map(prior.statistics)
        return Pulse.from_generators(prior, to_style, generators, settings.steps)
    to_style = full_map(prior.statistics)
    steps, constants = settings.steps, settings.phased
    return Phased.from_generators(
        prior, to_style, generators, operator, target, low_side, steps, constants, starts
    )
