"""The samples of a search: found ones, and how far the others are.

Shapes: H W high-res, h w low-res.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from pulse_sr.errors import InputError
from pulse_sr.operators.base import Operator
from pulse_sr.priors.base import Prior, SeedBank
from pulse_sr.search.engine import Chain
from pulse_sr.search.goals import Goal, sample_seed, search_goals
from pulse_sr.search.methods import Settings, uses_bank
from pulse_sr.search.stream import Found, Running

__all__ = [
    "Candidate",
    "OnStep",
    "SearchProgress",
    "Settings",
    "check_found",
    "find_candidates",
    "progress_of",
    "sample_seed",
    "tell_steps",
    "uses_bank",
]


@dataclass(frozen=True)
class SearchProgress:
    """One step of the search of an input: `done` of `samples` have their result."""

    step: int
    steps: int
    best_db: float
    done: int
    samples: int


#: Called with the index of a sample, its step from 0, its image `[3, H, W]` in [0, 1] and LR-PSNR.
OnStep = Callable[[int, int, torch.Tensor, float], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A sample before the projection.

    Attributes:
        index: its place among the samples of the input.
        seed: of its generator.
        steps: after how many steps it was found.
        image: `[3, H, W]` float32 in [0, 1] on the CPU.
        restarts: how often it was started again, since a loss was not finite.
        chain: of a sampler: how its chain ended.
    """

    index: int
    seed: int
    steps: int
    image: torch.Tensor
    restarts: int = 0
    chain: Chain | None = None


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
    on_step: OnStep | None = None,
) -> list[Candidate]:
    """Search the samples `indices` of one input.

    Args:
        prior: the generator.
        operator, target, low_side, sha256, indices: see `pulse_sr.search.goals.Goal`.
        settings: method, steps, seed.
        progress: called after every step.
        bank: where methods that use it find their starts; None: random points of the prior.
        on_step: called with every step of every sample.

    Returns:
        The candidates in the order of `indices`.

    Raises:
        InputError: when no iterate of a sample was finite.
        SetupError: when the memory does not suffice.
    """
    goal = Goal(operator, target, low_side, sha256, indices)
    found: dict[int, Found] = {}
    for tick in search_goals(prior, [goal], settings, bank):
        found |= {each.tag.index: each for each in tick.found}
        if on_step is not None:
            tell_steps(tick.running, on_step)
        if progress is not None:
            progress(progress_of(goal, tick.running, settings.steps, len(found)))
    check_found(found.values())
    return [candidate for index in indices if (candidate := candidate_of(found[index]))]


def candidate_of(found: Found) -> Candidate | None:
    """What left a slot as a sample of its goal; None where no iterate was finite."""
    if found.image is None:
        return None
    tag = found.tag
    return Candidate(tag.index, tag.seed, found.steps, found.image, found.restarts, found.chain)


def check_found(found: Iterable[Found]) -> None:
    """Check that every sample has an image.

    Raises:
        InputError: when no iterate of one was finite.
    """
    lost = sorted(each.tag.index for each in found if each.image is None)
    if lost:
        raise InputError(
            f"the search found no finite image for the samples {lost}",
            "try another --seed, or --precision fp32",
        )


def tell_steps(running: Iterable[Running], on_step: OnStep) -> None:
    """Pass on what a step found for the samples of one goal that were in it."""
    for each in running:
        on_step(each.tag.index, each.step, each.image, each.db)


def progress_of(goal: Goal, running: Sequence[Running], steps: int, done: int) -> SearchProgress:
    """How far a goal is: its most advanced sample in a slot, and the worst match of them."""
    own = [each for each in running if each.tag.goal is goal]
    step = max((each.step + 1 for each in own), default=steps)
    db = min((each.best_db for each in own), default=0.0)
    return SearchProgress(step, steps, db, done, len(goal.indices))
