"""`pulse-sr bench search`: our search against the original's loop, and how the program starts.

All sides run in one process, one step of each in turn (`pulse_sr.bench.search_turns`). Peak memory
and system time come from one process per side. The rates of a large copy and of large matrix
products are measured in the same process before and after, for the roofline of our step.
"""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pulse_sr.bench.ceilings import Clock
from pulse_sr.bench.environment import describe_machine
from pulse_sr.bench.options import SearchBench
from pulse_sr.bench.roofline import (
    Rates,
    better,
    count_flop,
    formats_in_use,
    measure_rates,
    report_step,
)
from pulse_sr.bench.search_rows import Row, compared, run_rows, step_rows
from pulse_sr.bench.search_turns import (
    Progress,
    Times,
    Turns,
    fit_memory,
    give_back_device_memory,
    take_turns,
)
from pulse_sr.bench.sides import BASELINE, METHODS, low_side, ours, what_moves
from pulse_sr.bench.step_work import Formats, count_step
from pulse_sr.devices import choose_bf16, keep_freed_memory
from pulse_sr.errors import UsageError
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import save_prior
from pulse_sr.priors.stylegan2 import StyleGAN2Prior
from stylegan_ops import library

_LEAST_STEPS = 2

Report = dict[str, Any]


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
        `baseline_missing` says why. The rows of a step have `roofline` (`roofline.report_step`)
        with `flop_counted` beside `flop_run`: the latter follows from shapes, the former is what
        torch's counter saw in one step.

    Raises:
        UsageError: the prior is no StyleGAN2, or a number does not fit.
        SetupError: out of memory with our own sides.
    """
    if not isinstance(prior, StyleGAN2Prior):
        raise UsageError("bench search needs a StyleGAN2 prior", "--prior NAME|PATH")
    until = math.inf if options.seconds is None else time.perf_counter() + options.seconds
    samples, steps = options.samples, options.steps
    turns = Turns(samples, steps, samples, options.of_baseline, options.repeats, until)
    keep_freed_memory()
    prior = prior.in_precision(bf16=choose_bf16(options.precision, prior.device))
    turns = fit_memory(prior, turns, progress)
    formats, clock = formats_in_use(prior.device, prior.bf16), Clock(prior.device)
    progress("ceilings")
    rates = measure_rates(clock, formats)
    times = take_turns(prior, turns, progress)
    progress("ceilings")
    rates = better(rates, measure_rates(clock, formats))
    rows = step_rows(times, turns)
    for row, name in zip(rows, METHODS, strict=True):
        row["roofline"] = _roofline(prior, name, turns.samples, formats, rates, row["ours_s"])
    del clock
    give_back_device_memory()
    alone = {} if turns.is_over or not options.alone else _alone(prior, turns, options, progress)
    rows += run_rows(times, alone, turns)
    rows.append(_start_row(turns.repeats, progress))
    return {
        "ratio": rows[0]["ratio"],
        "rows": rows,
        "environment": environment(prior, formats) | _settings(turns, times, rates),
    }


def _roofline(
    prior: StyleGAN2Prior,
    name: str,
    samples: int,
    formats: Formats,
    rates: Rates,
    step_s: float,
) -> dict[str, Any]:
    method = METHODS[name](prior, samples, _LEAST_STEPS, 0)
    passes = count_step(prior.generator.config, low_side(prior), what_moves(method), formats)
    run = ours(prior, method)
    next(run)  # what follows is the update of this step and the look of the next one
    return report_step(passes, rates, step_s) | {"flop_counted": count_flop(lambda: next(run))}


def _alone(
    prior: StyleGAN2Prior, turns: Turns, options: SearchBench, progress: Progress
) -> dict[str, dict[str, float]]:
    """Each side in a process of its own; one for which there is no time left is left out."""
    amounts = {side: (turns.samples, turns.steps) for side in METHODS}
    if turns.baseline_samples:
        amounts[BASELINE] = turns.baseline_samples, turns.baseline_steps
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prior.safetensors"
        save_prior(path, prior)
        for side, (samples, steps) in amounts.items():
            if turns.is_over:
                break
            progress(f"{side} in a process of its own")
            words = [str(path), side, str(samples), str(steps), str(prior.device)]
            command = [sys.executable, "-m", "pulse_sr.bench.sides", *words, options.precision]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            results[side] = json.loads(done.stdout)
    return results


def _start_row(repeats: int, progress: Callable[[str], None]) -> Row:
    """Start of `pulse-sr --help` against `import torch`, medians of fresh processes."""
    progress("start of the command line")
    ours = [sys.executable, "-m", "pulse_sr", "--help"]
    theirs = [sys.executable, "-c", "import torch"]
    pairs = [(_seconds_of(ours), _seconds_of(theirs)) for _ in range(repeats)]
    medians = [statistics.median(column) for column in zip(*pairs, strict=True)]
    return compared("pulse-sr --help (baseline: import torch)", *medians)


def _seconds_of(command: Sequence[str]) -> float:
    clock = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - clock


def environment(prior: StyleGAN2Prior, formats: Formats) -> dict[str, Any]:
    """What the numbers were measured with."""
    return describe_machine(prior.device) | {
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "resolution": prior.resolution,
        "low_res": low_side(prior),
        "ops": library.used_by_generators(prior.device.type),
        "convolutions": formats.convolution,
        "baseline_convolutions": formats_in_use(prior.device, bf16=False).convolution,
    }


def _settings(turns: Turns, times: Times, rates: Rates) -> dict[str, Any]:
    """How it was measured, and the ceilings."""
    return {
        "samples": turns.samples,
        "steps": turns.steps,
        "baseline_steps": turns.baseline_steps,
        "repeats": len(next(iter(times.values()))),
        "copy_bandwidth": rates.copy,
        "matrix_rates": rates.products,
    }
