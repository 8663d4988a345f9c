"""`pulse-sr bench search`: our search against the original's loop, and how the program starts.

All sides run in one process, one step of each in turn (`pulse_sr.bench.search_turns`). Peak memory
and system time come from one process per side. The rates of a large copy and of large matrix
products are measured in the same process before and after, for the roofline of our step.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pulse_sr.bench.ceilings import Clock, measure_rates
from pulse_sr.bench.frame import (
    BASELINE,
    Progress,
    Record,
    Report,
    Row,
    Runs,
    compared,
    report_of,
    side_process,
    timed,
)
from pulse_sr.bench.options import SearchBench
from pulse_sr.bench.roofline import Pass, count_passes, report_step
from pulse_sr.bench.search_turns import Turns, fit_memory, give_back_device_memory, take_turns
from pulse_sr.bench.sides import METHODS, begin, low_side, prepared
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import save_prior
from pulse_sr.priors.stylegan2 import StyleGAN2Prior
from stylegan_ops import library

#: What "seconds for a run" means: PULSE's own number of steps.
FULL_STEPS = 100
#: Measurements of each rate, of which the best counts; they are made twice.
_RATES = 5


def bench_search(
    prior: Prior, options: SearchBench, progress: Progress = lambda text: None
) -> Report:
    """Compare our search with the original's loop on the same prior.

    Args:
        prior: a StyleGAN2 prior; the low-res side is an eighth of its resolution.
        options: how; the plain loop computes in float32 whatever the precision.
        progress: gets a line of text now and then.

    Returns:
        `ratio` (baseline / ours per step of method pulse, which does the same computation), `rows`
        with `name, ours_s, baseline_s, ratio` and more, and `environment`. Where the memory does
        not suffice for the plain loop at all, `ratio` and `baseline_s` are None and
        `baseline_missing` says why. The rows of a step have `roofline` (`roofline.report_step`).

    Raises:
        UsageError: the prior is no StyleGAN2, or a number does not fit.
        SetupError: out of memory with our own sides.
    """
    prior = prepared(prior, options.precision, "bench search")
    until = math.inf if options.seconds is None else time.perf_counter() + options.seconds
    samples = options.samples
    turns = Turns(samples, options.steps, samples, options.of_baseline, options.repeats, until)
    turns = fit_memory(prior, turns, progress)
    passes = {side: _passes_of_step(prior, side, samples) for side in METHODS}
    formats = dict.fromkeys(each.number_format for found in passes.values() for each in found)
    clock = Clock(prior.device)
    progress("ceilings")
    rates = measure_rates(clock, formats, _RATES)
    times = take_turns(prior, turns, progress)
    progress("ceilings")
    rates = rates.or_better(measure_rates(clock, formats, _RATES))
    del clock
    give_back_device_memory()
    alone = _alone(prior, turns, options.precision, progress) if options.alone else {}
    rows = step_rows(times, turns)
    for row, side in zip(rows, METHODS, strict=True):
        row["roofline"] = report_step(passes[side], rates, row["ours_s"])
    rows += [*run_rows(times, alone, turns), _start_row(turns.repeats, progress)]
    ceilings = {"copy_bandwidth": rates.copy, "matrix_rates": rates.products}
    return report_of(rows, prior.device, _settings(prior, turns, len(times["pulse"])) | ceilings)


def _passes_of_step(prior: StyleGAN2Prior, side: str, samples: int) -> list[Pass]:
    run = begin(side, prior, samples, 2, 0)
    next(run)  # what follows is the update of this step and the look of the next one
    return count_passes(lambda: next(run))


def _scaled(times: Mapping[str, Runs], turns: Turns) -> dict[str, Runs]:
    """The times of as many samples as ours, where the plain loop searched fewer at once."""
    scaled = dict(times)
    if BASELINE in times:
        more = turns.samples / turns.baseline_samples
        scaled[BASELINE] = [[more * seconds for seconds in run] for run in times[BASELINE]]
    return scaled


def step_rows(times: Mapping[str, Runs], turns: Turns) -> list[Row]:
    """One step of each of our sides against one of the plain loop."""
    scaled = _scaled(times, turns)
    return [compared(f"{side}: one step", scaled[side], scaled.get(BASELINE)) for side in METHODS]


def run_rows(times: Mapping[str, Runs], alone: Mapping[str, Record], turns: Turns) -> list[Row]:
    """Whole runs of `FULL_STEPS` steps, from the mean step of each repeat.

    `measured_steps`, `baseline_measured_steps` and `baseline_samples` say how much was done. What
    `alone` says of a process of its own is added as it is.
    """
    whole = {
        side: [[FULL_STEPS * statistics.mean(run)] for run in runs]
        for side, runs in _scaled(times, turns).items()
    }
    rows = []
    for side in METHODS:
        name = f"{side}: {turns.samples} samples x {FULL_STEPS} steps"
        row = compared(name, whole[side], whole.get(BASELINE))
        for who, key, prefix in ((side, "ours", ""), (BASELINE, "baseline", "baseline_")):
            if who in times:
                row[f"{key}_s_per_sample"] = row[f"{key}_s"] / turns.samples
                row[f"{prefix}measured_steps"] = len(times[who][0])
            row |= {f"{key}_{what}": value for what, value in alone.get(who, {}).items()}
        if BASELINE in times:
            row["baseline_samples"] = turns.baseline_samples
        rows.append(row)
    return rows


def _alone(
    prior: StyleGAN2Prior, turns: Turns, precision: str, progress: Progress
) -> dict[str, Record]:
    """Each side in a process of its own; one for which there is no time left is left out."""
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prior.safetensors"
        save_prior(path, prior)
        for side, amounts in turns.amounts.items():
            if turns.is_over:
                break
            progress(f"{side} in a process of its own")
            words = (path, side, *amounts, prior.device, precision)
            with side_process("pulse_sr.bench.sides", *words) as turn:
                results[side] = turn()
    return results


def _start_row(repeats: int, progress: Progress) -> Row:
    """Start of `pulse-sr --help` against `import torch`, medians of fresh processes."""
    progress("start of the command line")
    ours, theirs = ["-m", "pulse_sr", "--help"], ["-c", "import torch"]
    pairs = [[[_seconds_of(words)] for words in (ours, theirs)] for _ in range(repeats)]
    runs = map(list, zip(*pairs, strict=True))
    return compared("pulse-sr --help (baseline: import torch)", *runs)


def _seconds_of(words: list[str]) -> float:
    command = [sys.executable, *words]
    run = partial(subprocess.run, command, check=True, capture_output=True)
    return timed(torch.device("cpu"), run)[0]


def _settings(prior: StyleGAN2Prior, turns: Turns, repeats: int) -> dict[str, Any]:
    """What was measured, and how much of it."""
    return {
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "resolution": prior.resolution,
        "low_res": low_side(prior),
        "ops": library.used_by_generators(prior.device.type),
        "precision": "bf16" if prior.bf16 else "fp32",
        "samples": turns.samples,
        "steps": turns.steps,
        "baseline_steps": turns.baseline_steps,
        "repeats": repeats,
    }
