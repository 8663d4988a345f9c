"""All metrics of many inputs, one input after the other; then tables of all of them or of some.

Shapes: N inputs, S samples, L levels, K rings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_sr.errors import SetupError
from pulse_sr.metrics.bootstrap import Gap, interval_of_mean, largest_gap
from pulse_sr.metrics.calibration import coverage, exact_levels, rank_histogram
from pulse_sr.metrics.case import Case
from pulse_sr.metrics.gathered import Gathered, Gatherer, Pair, gatherer
from pulse_sr.metrics.registry import DEFAULTS, REGISTRY, OfCase, Settings

Array = NDArray[np.float64]
T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """One number of a table, with what it means.

    Attributes:
        metric: its name in the registry.
        value: a mean over inputs, or of a set; None where it was skipped.
        interval: 95 % bootstrap interval of a mean over inputs.
        count: how many inputs it is of.
        skipped: why there is none, or why some inputs have none; else empty.
        missing: whether a weight file is missing or damaged.
    """

    metric: str
    value: float | None
    interval: tuple[float, float] | None
    count: int
    skipped: str = ""
    missing: bool = False


@dataclass(frozen=True)
class Calibration:
    """What several samples of an input say of its truth, a mean over inputs.

    Attributes:
        samples: S.
        inputs: how many have as many samples.
        levels: nominal ones, L (`calibration.exact_levels`).
        coverage: share of the truth's values that the interval of each holds.
        ranks: rank histogram, S + 1 shares.
    """

    samples: int
    inputs: int
    levels: list[float]
    coverage: Array
    ranks: Array


class Evaluation:
    """Numbers of inputs, gathered one input at a time; no image is kept.

    Args:
        names: of the metrics, in the order of the table.
        count: how many inputs there will be.
        settings: what metrics are prepared with.
        seed: of patches and resampling.

    Attributes:
        values: metric -> one number an input, NaN where it has none.
        each: metric -> the numbers of the samples of each input.
    """

    def __init__(
        self,
        names: Sequence[str],
        count: int,
        settings: Settings = DEFAULTS,
        seed: int = 0,
    ) -> None:
        self.names, self.settings, self._seed = names, settings, seed
        self._missing: dict[str, str] = {}
        self._of_case: dict[str, OfCase] = {}
        self._gatherers: dict[str, Gatherer] = {}
        for name in names:
            try:
                self._prepare(name, count)
            except SetupError as error:
                self._missing[name] = f"{error.message}; {error.hint}"
        self.values: dict[str, list[float]] = {name: [] for name in self._of_case}
        self.each: dict[str, list[list[float]]] = {name: [] for name in self._of_case}
        self._stems: list[str] = []
        #: Metric, or what is gathered -> place of an input -> why it has none.
        self._reasons: dict[str, dict[int, str]] = {}
        self._sizes: list[tuple[int, int]] = []
        self._kept: dict[str, list[Pair | None]] = {kind: [] for kind in self._gatherers}
        self._calibration: dict[int, list[tuple[Array, Array]]] = {}

    def _prepare(self, name: str, count: int) -> None:
        metric, settings = REGISTRY[name], self.settings
        if metric.of_case is not None:
            self._of_case[name] = metric.of_case(settings)
        elif metric.gathers not in self._gatherers:
            self._gatherers[metric.gathers] = gatherer(
                metric.gathers, count, self._seed, settings.weights, settings.device
            )

    def add(self, case: Case, stem: str = "") -> None:
        """Takes in the next input; `stem` is its name in what is said of it."""
        self._stems.append(stem)
        self._sizes.append((int(case.truth.shape[1]), int(case.truth.shape[2])))
        for name, measure in self._of_case.items():
            found = self._tried(name, measure, case) or []
            self.each[name].append(found)
            self.values[name].append(math.fsum(found) / len(found) if found else math.nan)
        for kind, gather in self._gatherers.items():
            self._kept[kind].append(self._tried(kind, gather, case))
        if "coverage" in self._of_case and len(case) > 1:
            held = coverage(case.samples, case.truth, exact_levels(len(case)))
            ranks = rank_histogram(case.bytes, case.truth_bytes)
            self._calibration.setdefault(len(case), []).append((held.numpy(), ranks.numpy()))

    def _tried(self, name: str, measure: Callable[[Case], T], case: Case) -> T | None:
        try:
            return measure(case)
        except ValueError as error:
            self._reasons.setdefault(name, {})[len(self._stems) - 1] = str(error)
            return None

    def _without(self, name: str, places: Sequence[int]) -> str:
        """Which of the inputs have no number, and why."""
        reasons = self._reasons.get(name, {})
        lost = [place for place in places if place in reasons]
        if not lost or len(lost) == len(places):
            return reasons[lost[0]] if lost else ""
        first = f"the first is {self._stems[lost[0]]}"
        return f"{len(lost)} of {len(places)} inputs, {first}: {reasons[lost[0]]}"

    def table(self, rows: Sequence[int] | None = None) -> list[Entry]:
        """All metrics of all inputs, or of those at some places."""
        return [self._entry(name, rows) for name in self.names]

    def _entry(self, name: str, rows: Sequence[int] | None) -> Entry:
        if name in self._missing:
            return Entry(name, None, None, 0, self._missing[name], missing=True)
        places = range(len(self._sizes)) if rows is None else rows
        return (self._mean if name in self._of_case else self._of_sets)(name, places)

    def _mean(self, name: str, places: Sequence[int]) -> Entry:
        values, without = self.known(name, places), self._without(name, places)
        if not len(values):
            return Entry(name, None, None, 0, without or "there are no inputs")
        interval = interval_of_mean(values, self._seed)
        return Entry(name, float(values.mean()), interval, len(values), without)

    def known(self, name: str, places: Sequence[int]) -> Array:
        """The numbers of those of some inputs that have one."""
        values = np.array(self.values[name], dtype=np.float64)[list(places)]
        return values[~np.isnan(values)]

    def _of_sets(self, name: str, places: Sequence[int]) -> Entry:
        metric = REGISTRY[name]
        assert metric.of_sets is not None
        pairs = [self._kept[metric.gathers][i] for i in places]
        known = [each for each in pairs if each is not None]
        if len(known) < len(pairs) or not pairs:
            without = self._without(metric.gathers, places)
            return Entry(name, None, None, 0, without or "there are no inputs")
        sizes = [self._sizes[i] for i in places]
        ours, theirs = (Gathered([pair[side] for pair in known], sizes) for side in (0, 1))
        try:
            return Entry(name, metric.of_sets(ours, theirs), None, len(pairs))
        except ValueError as error:
            return Entry(name, None, None, 0, str(error))

    def gaps(self, groups: Mapping[str, Sequence[int]]) -> dict[str, Gap]:
        """The largest gap between groups of inputs, by metric; metrics of sets have none."""
        found = {
            name: largest_gap({g: self.known(name, rows) for g, rows in groups.items()}, self._seed)
            for name in self.values
        }
        return {name: gap for name, gap in found.items() if gap is not None}

    def calibration(self) -> list[Calibration]:
        """Coverage and ranks, one entry for each number of samples, the commonest first."""
        entries = [
            Calibration(
                samples,
                len(curves),
                exact_levels(samples),
                np.mean([each[0] for each in curves], axis=0),
                np.mean([each[1] for each in curves], axis=0),
            )
            for samples, curves in self._calibration.items()
        ]
        return sorted(entries, key=lambda entry: -entry.inputs)

    def profiles(self) -> tuple[Tensor, Tensor] | None:
        """Spectral profiles of results and references `[N, K]`; None if they do not compare."""
        pairs = [each for each in self._kept.get("profile", []) if each is not None]
        if not pairs or len(set(self._sizes)) > 1:
            return None
        ours, theirs = (torch.stack([pair[side][0] for pair in pairs]) for side in (0, 1))
        return ours, theirs
