"""`pulse-sr bench train` and `bench train-sr`: our training step against a port of the usual one.

Each side trains in a process of its own (`train_sides`, `train_sr_sides`). They take turns: while
one trains, the other waits, so that whatever else the machine does falls on both alike.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pulse_sr.bench.frame import (
    BASELINE,
    Progress,
    Record,
    Report,
    Row,
    compared,
    report_of,
    side_process,
)
from pulse_sr.bench.options import TrainBench, TrainSrBench
from pulse_sr.bench.train_sides import steps_in_turn, training_config
from pulse_sr.bench.train_sr_sides import RECIPE, adversarial_recipe
from pulse_sr.devices import choose_bf16, choose_device
from pulse_sr.errors import UsageError

_SIDES = ("ours", BASELINE)
#: What each turn found: `turns[side][repeat][turn]`.
Turns = dict[str, list[list[Record]]]
Steps = TrainBench | TrainSrBench


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
    device = choose_device(options.device)
    try:
        configs = [training_config(side, options.batch, options.ngf) for side in resolutions]
    except ValueError as error:
        raise UsageError(str(error), "FastGAN has 64, 128, 256, 512 and 1024 px") from error
    rows = []
    for config in configs:
        side, batch = config.network.resolution, config.batch
        turns = _Turns(
            f"FastGAN {side} px, batch {batch}",
            "pulse_sr.bench.train_sides",
            (side, batch, options.ngf, device),
        )
        rows.append(turns.row(batch, options, device, progress))
    more = {"reconstruction": configs[0].reconstruction, "ngf": options.ngf}
    return _report(rows, device, options, more)


def bench_train_sr(options: TrainSrBench, progress: Progress = lambda text: None) -> Report:
    """Compare our SRGAN training with a plain NCHW float32 port, from the same weights.

    Args:
        options: how, and on which device.
        progress: gets a line of text now and then.

    Returns:
        as `bench_train`, one row.

    Raises:
        SetupError: no such device.
    """
    device = choose_device(options.device)
    config = adversarial_recipe(options.batch)
    name = f"SRGAN x{config.scale}, patches of {config.patch} px, batch {config.batch}"
    turns = _Turns(name, "pulse_sr.bench.train_sr_sides", (config.batch, device))
    row = turns.row(config.batch, options, device, progress)
    return _report([row], device, options, {"recipe": RECIPE})


def make_row(name: str, batch: int, turns: Turns, in_turn: int) -> Row:
    """Medians of the steps, of which a turn has `in_turn`, and the memory at the end."""
    times = {
        side: [[record["seconds"] / in_turn for record in run] for run in runs]
        for side, runs in turns.items()
    }
    row = compared(name, times["ours"], times["baseline"])
    for side, runs in turns.items():
        records = list(itertools.chain(*runs))
        row[f"{side}_images_per_s"] = batch / row[f"{side}_s"]
        row[f"{side}_system_s"] = statistics.median(each["system_s"] for each in records) / in_turn
        row |= {f"{side}_{key}": records[-1][key] for key in ("peak_mb", "added_mb")}
    return row


@dataclass(frozen=True)
class _Turns:
    """Both sides of a row, each a process.

    Attributes:
        name: of the row.
        module: the program of a side.
        words: what it is given besides the side.
    """

    name: str
    module: str
    words: tuple[object, ...]

    def row(self, batch: int, options: Steps, device: torch.device, progress: Progress) -> Row:
        """The row of `steps` in each of `repeats`."""
        in_turn = steps_in_turn(device)
        turns = math.ceil(options.steps / in_turn)
        found = self._interleaved(turns, options.repeats, progress)
        return make_row(self.name, batch, found, in_turn)

    def _interleaved(self, turns: int, repeats: int, progress: Progress) -> Turns:
        """Records of `repeats` times `turns` turns of each side, after one that is not counted."""
        found: Turns = {name: [[] for _ in range(repeats)] for name in _SIDES}
        with contextlib.ExitStack() as stack:
            sides = {
                name: stack.enter_context(side_process(self.module, name, *self.words))
                for name in _SIDES
            }
            for number in range(-1, turns * repeats):
                text = "warm-up" if number < 0 else f"turn {number + 1}/{turns * repeats}"
                progress(f"{self.name}: {text}")
                for name, turn in sides.items():
                    record = turn()
                    if number >= 0:
                        found[name][number // turns].append(record)
        return found


def _report(
    rows: list[Row], device: torch.device, options: Steps, details: dict[str, object]
) -> Report:
    in_turn = steps_in_turn(device)
    steps = math.ceil(options.steps / in_turn) * in_turn
    precision = "bf16" if choose_bf16("auto", device) else "fp32"
    known = {"precision": precision, **details, "steps": steps, "repeats": options.repeats}
    return report_of(rows, device, known)
