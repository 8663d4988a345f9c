"""The records of a search: what is known of an input, one sample of it, and what became of that.

Shapes: H W high-res, h w low-res, C channels of the observation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from pulse_sr.operators.base import Operator
from pulse_sr.search.engine import Chain, Start


@dataclass(frozen=True, eq=False, kw_only=True)
class Observed:
    """What the search has to know of one low-res input, and which samples of it are wanted.

    Attributes:
        y: the picture `[3, h, w]` in [0, 1], or what the operator observes of it.
        operator: from high-res images to what is known of the input. Inputs that follow each other
            and have the same object share the slots.
        side: side of the square low-res grid (h or w may be smaller where padded).
        sha256: of the input, part of every seed.
        indices: which samples, from 0.
        target_db: a sample that comes this close leaves; None: that of the settings.
    """

    y: torch.Tensor
    operator: Operator
    side: int
    sha256: str
    indices: Sequence[int]
    target_db: float | None = None


@dataclass(frozen=True, eq=False)
class SampleJob:
    """One sample to search.

    Attributes:
        observation: of the input.
        index: its place among the samples of the input.
        seed: of its generator.
        target: what the operator observes of the input, `[1, C, h, w]`.
        target_mse: low-res error at which it is done.
        start: what the n-th attempt begins with, from 0.
    """

    observation: Observed
    index: int
    seed: int
    target: torch.Tensor
    target_mse: float
    start: Callable[[int], Start]


@dataclass(frozen=True, eq=False)
class Found:
    """A sample that has left its slot.

    Attributes:
        job: which one.
        image: `[3, H, W]` float32 in [0, 1] on the CPU; None where no iterate was finite.
        steps: after how many steps it was found, in the attempt that it comes from.
        restarts: how often it was started again, since a loss was not finite.
        chain: of a sampler: how its chain ended.
    """

    job: SampleJob
    image: torch.Tensor | None
    steps: int
    restarts: int
    chain: Chain | None = None


@dataclass(frozen=True, eq=False)
class Running:
    """A sample in its slot.

    Attributes:
        job: which one.
        step: which step this is, from 0.
        best_db: its best match so far, in dB.
        image: of this step, `[3, H, W]` in [0, 1].
        db: how well that matches.
    """

    job: SampleJob
    step: int
    best_db: float
    image: torch.Tensor
    db: float


@dataclass(frozen=True, eq=False)
class Tick:
    """One step of all slots: who left, who was there, and how many slots there are."""

    found: list[Found]
    running: list[Running]
    slots: int
