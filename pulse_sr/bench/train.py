"""`pulse-sr bench train`: our training step against the plain port of the usual one.

Both sides run in one process, one turn of each after the other, so that whatever else the machine
does falls on both alike. Peak memory comes from one process per side.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from pulse_sr.bench.environment import describe_machine
from pulse_sr.bench.sides import synchronize
from pulse_sr.bench.train_sides import SIDES, steps_in_turn, training_config
from pulse_sr.devices import choose_bf16, choose_device, keep_freed_memory
from pulse_sr.errors import UsageError
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.training.config import TrainConfig

Report = dict[str, Any]
Row = dict[str, Any]
#: Seconds of one step: `times[side][repeat][turn]`.
Times = dict[str, list[list[float]]]

#: The first is what the ratio of the report is of.
RESOLUTIONS = (256, 64)


def bench_train(
    device: str = "auto",
    batch: int = 8,
    resolutions: Sequence[int] = RESOLUTIONS,
    ngf: int = 64,
    steps: int = 3,
    repeats: int = 3,
    alone: bool = True,
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Compare our FastGAN training with a plain NCHW float32 port, from the same weights.

    Args:
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch: images a step.
        resolutions: one row each.
        ngf: width of both networks.
        steps: of each side in a repeat; rounded up to whole turns of the trainer.
        repeats: of which the spread is shown.
        alone: also run every side in a process of its own, for memory.
        progress: gets a line of text now and then.

    Returns:
        `ratio` (baseline / ours per step at the first resolution), `rows` with `name, ours_s,
        baseline_s, ratio` and more, and `environment`.

    Raises:
        UsageError: no such resolution or width, or a count below its least.
        SetupError: no such device.
    """
    if batch < 2 or steps < 1 or repeats < 1 or not resolutions:
        raise UsageError(
            f"--batch {batch} expects 2 or more, --steps {steps} and --repeats {repeats} 1 or more"
        )
    chosen = choose_device(device)
    try:
        configs = [training_config(side, batch, ngf) for side in resolutions]
    except ValueError as error:
        raise UsageError(str(error), "FastGAN has 64, 128, 256, 512 and 1024 px") from error
    keep_freed_memory()
    turns = math.ceil(steps / steps_in_turn(chosen))
    rows = []
    for config in configs:
        times = _interleaved(config, chosen, turns, repeats, progress)
        memory = _alone(config, chosen, progress) if alone else {}
        rows.append(make_row(config, times, memory))
    details = {
        "precision": "bf16" if choose_bf16("auto", chosen) else "fp32",
        "reconstruction": configs[0].reconstruction,
        "ngf": ngf,
        "steps": turns * steps_in_turn(chosen),
        "repeats": repeats,
    }
    return {
        "ratio": rows[0]["ratio"],
        "rows": rows,
        "environment": describe_machine(chosen) | details,
    }


def row_name(config: TrainConfig) -> str:
    """What a row is called."""
    return f"FastGAN {config.network.resolution} px, batch {config.batch}"


def make_row(
    config: TrainConfig, times: Times, memory: dict[str, dict[str, float]] | None = None
) -> Row:
    """Medians of the steps, and what was found in processes of their own.

    `ratio_range` is the least and the largest ratio of the medians of one repeat: the spread.
    """
    medians = {side: [statistics.median(run) for run in runs] for side, runs in times.items()}
    pairs = zip(medians["baseline"], medians["ours"], strict=True)
    ratios = [theirs / ours for theirs, ours in pairs]
    ours, baseline = (
        statistics.median(itertools.chain(*times[side])) for side in ("ours", "baseline")
    )
    row: Row = {"name": row_name(config), "ours_s": ours, "baseline_s": baseline}
    row |= {"ratio": baseline / ours, "ratio_range": [min(ratios), max(ratios)]}
    row["ours_images_per_s"] = config.batch / ours
    row["baseline_images_per_s"] = config.batch / baseline
    for side, found in (memory or {}).items():
        row |= {f"{side}_{key}": value for key, value in found.items()}
    return row


def _interleaved(
    config: TrainConfig,
    device: torch.device,
    turns: int,
    repeats: int,
    progress: Callable[[str], None],
) -> Times:
    """Times of `repeats` times `turns` turns of each side, after one that is not counted."""
    running = {name: side(config, device) for name, side in SIDES.items()}
    times: Times = {name: [[] for _ in range(repeats)] for name in SIDES}
    for turn in range(-1, turns * repeats):
        text = "warm-up" if turn < 0 else f"turn {turn + 1}/{turns * repeats}"
        progress(f"{row_name(config)}: {text}")
        for name, side in running.items():
            synchronize(device)
            clock = time.perf_counter()
            next(side)
            synchronize(device)
            seconds = (time.perf_counter() - clock) / steps_in_turn(device)
            if turn >= 0:
                times[name][turn // turns].append(seconds)
    return times


def _alone(
    config: TrainConfig, device: torch.device, progress: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    found = {}
    network = config.network
    assert isinstance(network, FastGANConfig)  # `training_config` made it
    for side in SIDES:
        progress(f"{row_name(config)}: {side} in a process of its own")
        words = (network.resolution, config.batch, network.ngf, device)
        command = [sys.executable, "-m", "pulse_sr.bench.train_sides", side, *map(str, words)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found[side] = json.loads(done.stdout)
    return found
