"""The search methods by name, and the settings that they are made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from pulse_sr.operators.base import Operator
from pulse_sr.priors.base import Prior
from pulse_sr.search.engine import Method
from pulse_sr.search.ilo import Ilo
from pulse_sr.search.langevin import Langevin
from pulse_sr.search.latents import diagonal_map, full_map
from pulse_sr.search.phased import Phased, PhasedSettings
from pulse_sr.search.pulse import Pulse


@dataclass(frozen=True)
class Settings:
    """What the search needs to know.

    Attributes:
        method: one of `METHODS`.
        strict: with "pulse": one random stream for the whole batch, and the last iterate is kept.
        steps: optimiser steps.
        target_db: a sample that comes this close leaves.
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


Make = Callable[[Prior, Operator, int, Settings], Method]


#: What makes each method, with room for `settings.slots` samples, from the prior, the operator, the
#: side of the low-res grid and the settings.
METHODS: dict[str, Make] = {
    "phased": lambda prior, operator, side, s: Phased(
        prior, full_map(prior.statistics), operator, side, s.slots, s.steps, s.phased
    ),
    "pulse": lambda prior, operator, side, s: Pulse.with_slots(
        prior, diagonal_map(prior.statistics), s.slots, s.steps
    ),
    "ilo": lambda prior, operator, side, s: Ilo(
        prior, full_map(prior.statistics), s.slots, s.steps
    ),
    "langevin": lambda prior, operator, side, s: Langevin.with_slots(
        prior, full_map(prior.statistics), operator, side, s.slots, s.steps
    ),
}


def uses_bank(method: str) -> bool:
    """Whether a method starts from the seed bank of its prior."""
    return method == "phased"
