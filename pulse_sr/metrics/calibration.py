"""Whether samples say how sure one may be: coverage of intervals, and ranks of the truth.

Both ask of every pixel value of a truth that is known whether it could be one more sample. They do
not ask whether the samples are good: very different ones cover everything.

Shapes: S samples, L levels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pulse_sr.metrics.interval import sample_interval

#: A value of a picture of 8 bits stands for what rounds to it.
HALF_LEVEL = 0.5 / 255


def exact_levels(count: int) -> list[float]:
    """The levels at which S samples have an interval from one of them to another, ascending.

    `(S + 1 - 2 k) / (S + 1)`: from the k-th least to the k-th greatest. Draws of one distribution
    are held in just this share; between two levels `sample_interval` goes in a straight line, which
    holds up to 4 % too much for 3 samples of a normal distribution.
    """
    return [(count + 1 - 2 * k) / (count + 1) for k in range(count // 2, 0, -1)]


def coverage(samples: Tensor, truth: Tensor, levels: Sequence[float]) -> Tensor:
    """Share of the truth's values that the central interval of each level holds.

    `interval.sample_interval` says which interval, `interval.highest_coverage` how much of a level
    S samples can promise. A value counts as held within half a grey level of the interval.

    Args:
        samples: `[S, ...]` in [0, 1], rounded to 8 bits, S at least 1.
        truth: `[...]` in [0, 1].
        levels: each between 0 and 1.

    Returns:
        float64 `[L]`.

    Raises:
        ValueError: when the shapes differ, or see `sample_interval`.
    """
    _check(samples, truth)
    held = []
    for level in levels:
        low, high = sample_interval(samples, level)
        held.append(((truth >= low - HALF_LEVEL) & (truth <= high + HALF_LEVEL)).double().mean())
    return torch.stack(held)


def rank_histogram(samples: Tensor, truth: Tensor) -> Tensor:
    """Of how many samples each value of the truth is the greater: shares of the ranks 0 to S.

    Flat where the truth is one more draw of what the samples are draws of; high at both ends where
    they differ too little, in the middle where too much (Talagrand diagram; Hamill, "Interpretation
    of Rank Histograms for Verifying Ensemble Forecasts", 2001). A value that equals k samples
    counts to the same part for each of the k + 1 ranks that it may have.

    Args:
        samples: `[S, ...]`.
        truth: `[...]`, of the same rounding.

    Returns:
        float64 `[S + 1]`, sum 1.

    Raises:
        ValueError: when the shapes differ.
    """
    _check(samples, truth)
    count = len(samples)
    below = (samples < truth).sum(dim=0).flatten()
    ties = (samples == truth).sum(dim=0).flatten()
    places = torch.arange(count + 1, device=samples.device)
    pairs = torch.bincount(below * (count + 1) + ties, minlength=(count + 1) ** 2)
    low = places.repeat_interleave(count + 1)
    high = low + places.repeat(count + 1)
    inside = (places >= low[:, None]) & (places <= high[:, None])  # [(S + 1)^2, S + 1]
    shares = inside.double() / (high - low + 1)[:, None]
    found: Tensor = (pairs.double() @ shares / truth.numel()).cpu()
    return found


def _check(samples: Tensor, truth: Tensor) -> None:
    if samples.dim() == 0 or not len(samples) or samples.shape[1:] != truth.shape:
        raise ValueError(f"samples {tuple(samples.shape)} and truth {tuple(truth.shape)} differ")
