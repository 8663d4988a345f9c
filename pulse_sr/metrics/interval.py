"""An interval for every pixel from a few samples, and how often it may be hoped to hold the truth.

Where the truth is one more draw of what the samples are draws of, it is equally likely to fall into
each of the S + 1 gaps that S samples make. The k-th smallest of them is therefore the k / (S + 1)
quantile on average (David and Nagaraja, "Order Statistics", 3rd edition, section 2.5; type 6 of
Hyndman and Fan, 1996), and least to largest holds the truth in (S - 1) / (S + 1) of all cases.

Shapes: S samples.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The level that reports are written with.
DEFAULT_LEVEL = 0.9


def sample_interval(samples: Tensor, level: float = DEFAULT_LEVEL) -> tuple[Tensor, Tensor]:
    """The central interval of each value over the samples.

    Its ends are the quantiles (1 - level) / 2 and (1 + level) / 2, at the places q (S + 1) of the
    sorted samples, between two of them by a straight line. A place before the first or after the
    last sample becomes that sample: under 19 samples, 90 % is the range from least to largest.

    Args:
        samples: float `[S, ...]`, S at least 1; every value is taken by itself.
        level: between 0 and 1.

    Returns:
        Lower and upper end, each `[...]`, of the type of `samples`.

    Raises:
        ValueError: no samples, integers, or a level that is not between 0 and 1.
    """
    _check_level(level)
    if samples.dim() == 0 or not len(samples) or not samples.is_floating_point():
        raise ValueError(f"no float samples: {samples.dtype} {tuple(samples.shape)}")
    ordered = samples.sort(dim=0).values
    return _at(ordered, (1 - level) / 2), _at(ordered, (1 + level) / 2)


def highest_coverage(count: int, level: float = DEFAULT_LEVEL) -> float:
    """The share of truths that the interval of `count` samples can promise to hold, at most.

    It is the smaller of `level` and (S - 1) / (S + 1): 78 % for the 90 % interval of 8 samples,
    90 % from 19 samples on. The promise holds for samples that are drawn as the truth is; a search
    that keeps the best iterate draws too narrowly, and its real coverage is lower.

    Raises:
        ValueError: no samples, or a level that is not between 0 and 1.
    """
    _check_level(level)
    if count < 1:
        raise ValueError(f"{count} samples have no interval")
    return min(level, (count - 1) / (count + 1))


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"a level lies between 0 and 1, got {level}")


def _at(ordered: Tensor, quantile: float) -> Tensor:  # [S, ...] -> [...]
    place = min(max(quantile * (len(ordered) + 1), 1.0), float(len(ordered))) - 1
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return torch.lerp(ordered[below], ordered[above], place - below)
