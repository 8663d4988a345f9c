"""`pulse-sr bench train`: our training step against the plain port of the usual one.

Each side trains in a process of its own (`pulse_sr.bench.train_sides`). They take turns: while one
trains, the other waits, so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Sequence

import torch

from pulse_sr.bench.frame import Progress, Record, Report, Row, compared, report_of, side_process
from pulse_sr.bench.options import TrainBench
from pulse_sr.bench.train_sides import SIDES, steps_in_turn, training_config
from pulse_sr.devices import choose_bf16, choose_device
from pulse_sr.errors import UsageError
from pulse_sr.training.gan.config import TrainConfig

#: What each turn found: `turns[side][repeat][turn]`.
Turns = dict[str, list[list[Record]]]


def bench_train(
    options: TrainBench, resolutions: Sequence[int], progress: Progress = lambda text: None
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
    device, repeats = choose_device(options.device), options.repeats
    try:
        configs = [training_config(side, options.batch, options.ngf) for side in resolutions]
    except ValueError as error:
        raise UsageError(str(error), "FastGAN has 64, 128, 256, 512 and 1024 px") from error
    in_turn = steps_in_turn(device)
    turns, rows = math.ceil(options.steps / in_turn), []
    for config in configs:
        words = (config.network.resolution, config.batch, options.ngf, device)
        found = _interleaved(words, turns, repeats, progress)
        rows.append(make_row(config, found, in_turn))
    details = {
        "precision": "bf16" if choose_bf16("auto", device) else "fp32",
        "reconstruction": configs[0].reconstruction,
        "ngf": options.ngf,
        "steps": turns * in_turn,
        "repeats": repeats,
    }
    return report_of(rows, device, details)


def make_row(config: TrainConfig, turns: Turns, in_turn: int) -> Row:
    """Medians of the steps, of which a turn has `in_turn`, and the memory at the end."""
    times = {
        side: [[record["seconds"] / in_turn for record in run] for run in runs]
        for side, runs in turns.items()
    }
    name = f"FastGAN {config.network.resolution} px, batch {config.batch}"
    row = compared(name, times["ours"], times["baseline"])
    for side, runs in turns.items():
        records = list(itertools.chain(*runs))
        row[f"{side}_images_per_s"] = config.batch / row[f"{side}_s"]
        row[f"{side}_system_s"] = statistics.median(each["system_s"] for each in records) / in_turn
        row |= {f"{side}_{key}": records[-1][key] for key in ("peak_mb", "added_mb")}
    return row


def _interleaved(
    words: tuple[int, int, int, torch.device], turns: int, repeats: int, progress: Progress
) -> Turns:
    """Records of `repeats` times `turns` turns of each side, after one that is not counted."""
    found: Turns = {name: [[] for _ in range(repeats)] for name in SIDES}
    with contextlib.ExitStack() as stack:
        sides = {
            name: stack.enter_context(side_process("pulse_sr.bench.train_sides", name, *words))
            for name in SIDES
        }
        for number in range(-1, turns * repeats):
            text = "warm-up" if number < 0 else f"turn {number + 1}/{turns * repeats}"
            progress(f"FastGAN {words[0]} px: {text}")
            for name, turn in sides.items():
                record = turn()
                if number >= 0:
                    found[name][number // turns].append(record)
    return found
