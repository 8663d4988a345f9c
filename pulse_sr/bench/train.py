"""`pulse-sr bench train`: our training step against the plain port of the usual one.

Each side trains in a process of its own, with its own allocator settings and its own peak memory.
They take turns: while one trains, the other waits, so that whatever else the machine does falls on
both alike.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch

from pulse_sr.bench.environment import describe_machine
from pulse_sr.bench.options import TrainBench
from pulse_sr.bench.train_sides import SIDES, steps_in_turn, training_config
from pulse_sr.devices import choose_bf16, choose_device
from pulse_sr.errors import SetupError, UsageError
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.training.gan.config import TrainConfig

Report = dict[str, Any]
Row = dict[str, Any]
#: What each turn found: `turns[side][repeat][turn]`, records of `train_sides.take_turns`.
Turns = dict[str, list[list[dict[str, float]]]]

#: The first is what the ratio of the report is of.


def bench_train(
    options: TrainBench,
    resolutions: Sequence[int],
    progress: Callable[[str], None] = lambda text: None,
) -> Report:
    """Compare our FastGAN training with a plain NCHW float32 port, from the same weights.

    Args:
        options: how, and on which device.
        resolutions: one row each.
        progress: gets a line of text now and then.

    Returns:
        `ratio` (baseline / ours per step at the first resolution), `rows` with `name, ours_s,
        baseline_s, ratio` and more, and `environment`.

    Raises:
        UsageError: no such resolution or width.
        SetupError: no such device.
    """
    chosen, repeats = choose_device(options.device), options.repeats
    try:
        configs = [training_config(side, options.batch, options.ngf) for side in resolutions]
    except ValueError as error:
        raise UsageError(str(error), "FastGAN has 64, 128, 256, 512 and 1024 px") from error
    turns = math.ceil(options.steps / steps_in_turn(chosen))
    rows = []
    for config in configs:
        rows.append(make_row(config, _interleaved(config, chosen, turns, repeats, progress)))
    details = {
        "precision": "bf16" if choose_bf16("auto", chosen) else "fp32",
        "reconstruction": configs[0].reconstruction,
        "ngf": options.ngf,
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


def make_row(config: TrainConfig, turns: Turns) -> Row:
    """Medians of the steps, and the memory at the end.

    `ratio_range` is the least and the largest ratio of the medians of one repeat: the spread.
    """
    times = {side: [_values(run, "seconds") for run in runs] for side, runs in turns.items()}
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
    for side, runs in turns.items():
        records = list(itertools.chain(*runs))
        row[f"{side}_system_s"] = statistics.median(_values(records, "system_s"))
        row |= {f"{side}_{key}": records[-1][key] for key in ("peak_mb", "added_mb")}
    return row


def _values(records: Iterable[dict[str, float]], key: str) -> list[float]:
    return [record[key] for record in records]


def _interleaved(
    config: TrainConfig,
    device: torch.device,
    turns: int,
    repeats: int,
    progress: Callable[[str], None],
) -> Turns:
    """Records of `repeats` times `turns` turns of each side, after one that is not counted."""
    found: Turns = {name: [[] for _ in range(repeats)] for name in SIDES}
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(_process(name, config, device)) for name in SIDES}
        for turn in range(-1, turns * repeats):
            text = "warm-up" if turn < 0 else f"turn {turn + 1}/{turns * repeats}"
            progress(f"{row_name(config)}: {text}")
            for name, process in running.items():
                record = _turn(process)
                if turn >= 0:
                    found[name][turn // turns].append(record)
    return found


@contextlib.contextmanager
def _process(
    side: str, config: TrainConfig, device: torch.device
) -> Iterator[subprocess.Popen[str]]:
    """A side in a process of its own, which waits for orders."""
    network = config.network
    assert isinstance(network, FastGANConfig)  # `training_config` made it
    words = (side, network.resolution, config.batch, network.ngf, device)
    command = [sys.executable, "-m", "pulse_sr.bench.train_sides", *map(str, words)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    try:
        yield process
    finally:  # at the end of its orders it ends by itself
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()
        process.stdout.close()


def _turn(process: subprocess.Popen[str]) -> dict[str, float]:
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write("\n")
        process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise SetupError(
            f"a side of the benchmark ended by itself (exit code {process.wait()})",
            "its own message stands above; a smaller --batch or --resolution takes less memory",
        )
    record: dict[str, float] = json.loads(answer)
    return record
