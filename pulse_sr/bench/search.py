"""`pulse-sr bench search`: our search against the original's loop, and how the program starts.

All sides run in one process, one step of each in turn, so that whatever else the machine does falls
on all of them alike. Peak memory and system time come from one process per side.
"""

from __future__ import annotations

import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pulse_sr.bench.environment import describe_machine
from pulse_sr.bench.sides import SIDES, low_side, synchronize
from pulse_sr.devices import keep_freed_memory
from pulse_sr.errors import UsageError
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import save_prior
from pulse_sr.priors.stylegan2 import StyleGAN2Prior

#: What "seconds for a run" means: PULSE's own number of steps.
FULL_STEPS = 100

Report = dict[str, Any]
Row = dict[str, Any]


def bench_search(
    prior: Prior,
    samples: int = 8,
    steps: int = FULL_STEPS,
    repeats: int = 3,
    alone: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Compare our search with the original's loop on the same prior.

    Args:
        prior: a StyleGAN2 prior; the low-res side is an eighth of its resolution.
        samples: how many are searched at once.
        steps: of every run.
        repeats: interleaved runs.
        alone: also run every side in a process of its own, for memory and system time.
        progress: gets a line of text now and then.

    Returns:
        `ratio` (baseline / ours per step of method pulse, which does the same computation), `rows`
        with `name, ours_s, baseline_s, ratio` and more, and `environment`.

    Raises:
        UsageError: the prior is no StyleGAN2, or there are too few steps.
    """
    if not isinstance(prior, StyleGAN2Prior):
        raise UsageError("bench search needs a StyleGAN2 prior", "--prior NAME|PATH")
    if steps < 2 or samples < 1 or repeats < 1:
        raise UsageError(f"--steps {steps} expects 2 or more, --samples and --repeats 1 or more")
    keep_freed_memory()
    _interleaved(prior, samples, 2, 1, lambda text: progress("warm-up"))
    times = _interleaved(prior, samples, steps, repeats, progress)
    processes = _alone(prior, samples, steps, progress) if alone else {}
    rows = step_rows(times) + run_rows(times, processes, samples)
    rows.append(_start_row(repeats, progress))
    return {
        "ratio": rows[0]["ratio"],
        "rows": rows,
        "environment": environment(prior)
        | {"samples": samples, "steps": steps, "repeats": repeats},
    }


def step_rows(times: dict[str, list[list[float]]]) -> list[Row]:
    """Medians of the step times; `times[side][repeat]` are the seconds of every step.

    `ratio_range` is the least and the largest ratio of the medians of one repeat: the spread.
    """
    medians = {side: [statistics.median(run) for run in runs] for side, runs in times.items()}
    overall = {side: statistics.median(itertools.chain(*runs)) for side, runs in times.items()}
    rows = []
    for side in ("pulse", "phased"):
        pairs = zip(medians["baseline"], medians[side], strict=True)
        ratios = [theirs / ours for theirs, ours in pairs]
        row = _row(f"{side}: one step", overall[side], overall["baseline"])
        rows.append(row | {"ratio_range": [min(ratios), max(ratios)]})
    return rows


def run_rows(
    times: dict[str, list[list[float]]], alone: dict[str, dict[str, float]], samples: int
) -> list[Row]:
    """Whole runs: medians over the repeats of the summed step times.

    Scaled to `FULL_STEPS` where fewer or more were done (`measured_steps`). What `alone` (see
    `measure_alone`) says of a process of its own is added as it is, unscaled.
    """
    steps = len(times["baseline"][0])
    scale = FULL_STEPS / steps
    seconds = {side: statistics.median(map(sum, runs)) * scale for side, runs in times.items()}
    rows = []
    for side in ("pulse", "phased"):
        name = f"{side}: {samples} samples x {FULL_STEPS} steps"
        row = _row(name, seconds[side], seconds["baseline"]) | {"measured_steps": steps}
        for key in alone.get(side, {}):
            row[f"ours_{key}"], row[f"baseline_{key}"] = alone[side][key], alone["baseline"][key]
        rows.append(row)
    return rows


def _row(name: str, ours: float, baseline: float) -> Row:
    return {"name": name, "ours_s": ours, "baseline_s": baseline, "ratio": baseline / ours}


def _interleaved(
    prior: StyleGAN2Prior,
    samples: int,
    steps: int,
    repeats: int,
    progress: Callable[[str], None],
) -> dict[str, list[list[float]]]:
    times: dict[str, list[list[float]]] = {side: [] for side in SIDES}
    for repeat in range(repeats):
        running = {name: side(prior, samples, steps, repeat) for name, side in SIDES.items()}
        taken: dict[str, list[float]] = {name: [] for name in SIDES}
        for step in range(steps):
            progress(f"repeat {repeat + 1}/{repeats}, step {step + 1}/{steps}")
            for name, run in running.items():
                synchronize(prior.device)
                clock = time.perf_counter()
                next(run)
                synchronize(prior.device)
                taken[name].append(time.perf_counter() - clock)
        for name in SIDES:
            times[name].append(taken[name])
    return times


def _alone(
    prior: StyleGAN2Prior, samples: int, steps: int, progress: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prior.safetensors"
        save_prior(path, prior)
        results = {}
        for side in SIDES:
            progress(f"{side} in a process of its own")
            words = [str(path), side, str(samples), str(steps), str(prior.device)]
            command = [sys.executable, "-m", "pulse_sr.bench.sides", *words]
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
    return _row("pulse-sr --help (baseline: import torch)", *medians)


def _seconds_of(command: Sequence[str]) -> float:
    clock = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - clock


def environment(prior: StyleGAN2Prior) -> dict[str, Any]:
    """What the numbers were measured with."""
    return describe_machine(prior.device) | {
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "resolution": prior.resolution,
        "low_res": low_side(prior),
    }
