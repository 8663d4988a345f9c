"""The rows of the search benchmark: step times of the sides, made comparable.

Where the plain loop searched fewer samples at once, or did fewer steps, its times are scaled to as
many as ours, and the row says how many were measured.
"""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

from pulse_sr.bench.search_turns import Times, Turns
from pulse_sr.bench.sides import BASELINE, METHODS

#: What "seconds for a run" means: PULSE's own number of steps.
FULL_STEPS = 100

Row = dict[str, Any]


def step_rows(times: Times, turns: Turns) -> list[Row]:
    """Medians of the step times; `times[side][repeat]` are the seconds of every step.

    `ratio_range` is the least and the largest ratio of the medians of one repeat: the spread.
    """
    scales = _scales(turns)
    medians = {
        side: [scales[side] * statistics.median(run) for run in runs]
        for side, runs in times.items()
    }
    overall = {
        side: scales[side] * statistics.median(itertools.chain(*runs))
        for side, runs in times.items()
    }
    rows = []
    for side in METHODS:
        row = compared(f"{side}: one step", overall[side], overall.get(BASELINE))
        row["ours_least_s"] = min(itertools.chain(*times[side]))
        if BASELINE in times:
            pairs = zip(medians[BASELINE], medians[side], strict=True)
            ratios = [theirs / ours for theirs, ours in pairs]
            row["ratio_range"] = [min(ratios), max(ratios)]
        rows.append(row)
    return rows


def run_rows(times: Times, alone: dict[str, dict[str, float]], turns: Turns) -> list[Row]:
    """Whole runs: medians over the repeats of the summed step times.

    Scaled to `FULL_STEPS` where fewer or more were done (`measured_steps`,
    `baseline_measured_steps`), and to as many samples where the plain loop had memory for fewer
    (`baseline_samples`). What `alone` (see `sides.measure_alone`) says of a process of its own is
    added as it is, unscaled.
    """
    scales, counts = _scales(turns), {side: len(runs[0]) for side, runs in times.items()}
    seconds = {
        side: scales[side] * statistics.median(FULL_STEPS * statistics.mean(run) for run in runs)
        for side, runs in times.items()
    }
    rows = []
    for side in METHODS:
        name = f"{side}: {turns.samples} samples x {FULL_STEPS} steps"
        row = compared(name, seconds[side], seconds.get(BASELINE))
        row["ours_s_per_sample"] = seconds[side] / turns.samples
        row["measured_steps"] = counts[side]
        if BASELINE in times:
            row["baseline_s_per_sample"] = seconds[BASELINE] / turns.samples
            row["baseline_measured_steps"] = counts[BASELINE]
            row["baseline_samples"] = turns.baseline_samples
        for who, key in ((side, "ours"), (BASELINE, "baseline")):
            for what, value in alone.get(who, {}).items():
                row[f"{key}_{what}"] = value
        rows.append(row)
    return rows


def _scales(turns: Turns) -> dict[str, float]:
    """What makes the seconds of a side those of all samples."""
    fewer = turns.samples / turns.baseline_samples if turns.baseline_samples else math.nan
    return {side: 1.0 for side in METHODS} | {BASELINE: fewer}


def compared(name: str, ours: float, baseline: float | None) -> Row:
    """A row of seconds; without a baseline `ratio` is None and `baseline_missing` says why."""
    row: Row = {"name": name, "ours_s": ours, "baseline_s": baseline, "ratio": None}
    if baseline is None:
        return row | {"baseline_missing": "out of memory with one sample"}
    return row | {"ratio": baseline / ours}
