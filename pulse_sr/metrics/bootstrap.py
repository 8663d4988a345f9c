"""How far a mean, or the gap between groups, may be off by which images happened to be there.

Percentile bootstrap (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3)
over inputs, and a permutation test of the gap. Samples of one input are averaged before: they are
not independent.

Shapes: N inputs, R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

RESAMPLES = 2000
#: The interval and the level of the test.
LEVEL = 0.95
#: Smaller groups have no mean to speak of: they would nearly always be the extremes.
LEAST_GROUP = 10
_AT_ONCE = 1 << 22


def resampled_means(values: Array, rng: np.random.Generator) -> Array:
    """Means of `RESAMPLES` samples of `[N]` with replacement, `[R]`."""
    count = len(values)
    rows = max(1, _AT_ONCE // count)
    parts = [
        rng.multinomial(count, np.full(count, 1 / count), min(rows, RESAMPLES - start)) @ values
        for start in range(0, RESAMPLES, rows)
    ]
    found: Array = np.concatenate(parts) / count
    return found


def _ends(values: Array) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def interval_of_mean(values: Array, seed: int = 0) -> tuple[float, float] | None:
    """The 95 % interval of the mean of `[N]`; None for fewer than two values."""
    if len(values) < 2:
        return None
    return _ends(resampled_means(values, np.random.default_rng([seed, len(values)])))


@dataclass(frozen=True)
class Gap:
    """The largest difference of the means of two groups.

    Attributes:
        least: name of the group with the least mean.
        most: name of the group with the greatest.
        value: their difference.
        low: lower end of the 95 % interval of the difference of these two groups, over samples of
            each with replacement.
        high: upper end.
        by_chance: what the gap stays below in 95 % of cases when groups are drawn at random: the
            greatest of some means is never the least of them.
    """

    least: str
    most: str
    value: float
    low: float
    high: float
    by_chance: float


def largest_gap(groups: Mapping[str, Array], seed: int = 0) -> Gap | None:
    """The largest gap of the means of some groups; None for fewer than two large enough ones.

    Args:
        groups: name -> values `[N]`; groups with fewer than `LEAST_GROUP` values are left out.
        seed: of the resampling.
    """
    groups = {name: values for name, values in groups.items() if len(values) >= LEAST_GROUP}
    if len(groups) < 2:
        return None
    means = {name: float(values.mean()) for name, values in groups.items()}
    least, most = min(means, key=lambda n: means[n]), max(means, key=lambda n: means[n])
    rng = np.random.default_rng([seed, len(groups)])
    low, high = _ends(resampled_means(groups[most], rng) - resampled_means(groups[least], rng))
    by_chance = np.quantile(_shuffled_gaps(list(groups.values()), rng), LEVEL)
    return Gap(least, most, means[most] - means[least], low, high, float(by_chance))


def _shuffled_gaps(groups: list[Array], rng: np.random.Generator) -> Array:
    values, sizes = np.concatenate(groups), np.array([len(each) for each in groups])
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    gaps = [
        np.ptp(np.add.reduceat(rng.permutation(values), starts) / sizes) for _ in range(RESAMPLES)
    ]
    return np.array(gaps)
