"""The sides of the training benchmark: each is an iterator that trains a little per `next`.

`python -m pulse_sr.bench.train_sides SIDE RESOLUTION BATCH NGF DEVICE` runs one side in a process
of its own (`frame.serve`).
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from pulse_sr.bench.frame import serve
from pulse_sr.bench.train_baseline import BaselineTraining
from pulse_sr.data.order import ImageStream
from pulse_sr.devices import choose_bf16, keep_freed_memory
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.training.gan.build import build_objective, build_step
from pulse_sr.training.gan.config import TrainConfig, recipe
from pulse_sr.training.gan.fastgan_objective import FastGANObjective
from pulse_sr.training.gan.task import GanTask
from pulse_sr.training.loop import RECORD_STEPS, Schedule, Trainer
from pulse_sr.training.processes import Processes
from pulse_sr.training.run import Machine

Side = Callable[[TrainConfig, torch.device], Iterator[Any]]

#: Images in the set that both sides learn from.
IMAGES = 64


def training_config(resolution: int, batch: int, ngf: int) -> TrainConfig:
    """FastGAN with the trainer's own settings.

    Raises:
        ValueError: for a resolution or a width that FastGAN does not have.
    """
    settings = recipe("fastgan", None, resolution, batch)
    return TrainConfig(FastGANConfig(resolution, ngf), batch=batch, **settings)


def steps_in_turn(device: torch.device) -> int:
    """How many steps a side does per `next`: as many as the trainer between two records."""
    return RECORD_STEPS[device.type]


def random_images(resolution: int) -> np.ndarray:
    """Pictures of 8x8 coloured squares, uint8 `[IMAGES, 3, R, R]`."""
    colours = np.random.default_rng(0).integers(0, 256, (IMAGES, 3, 8, 8), dtype=np.uint8)
    return colours.repeat(resolution // 8, axis=2).repeat(resolution // 8, axis=3)


def ours(config: TrainConfig, device: torch.device) -> Iterator[Any]:
    """The trainer as `train-prior` runs it, without a checkpoint."""
    keep_freed_memory()
    images = random_images(config.network.resolution)
    machine = Machine(device, choose_bf16("auto", device), None, False, Processes())
    task = GanTask(build_step(config, machine, None, images))
    stream = ImageStream(images, config.seed)
    endless = Schedule(checkpoint_seconds=math.inf, snapshot_images=math.inf)
    with tempfile.TemporaryDirectory() as folder:
        yield from Trainer(stream, Path(folder), task).train(endless)


def baseline(config: TrainConfig, device: torch.device) -> Iterator[Any]:
    """The plain port, from the same weights, with the allocator as it is."""
    images = random_images(config.network.resolution)
    objective = cast(FastGANObjective, build_objective(config))
    training = BaselineTraining(objective, config, images, device)
    while True:
        yield [training.step() for _ in range(steps_in_turn(device))]


SIDES: dict[str, Side] = {"ours": ours, "baseline": baseline}


def _main(side: str, resolution: str, batch: str, ngf: str, device_name: str) -> None:
    config, device = (
        training_config(int(resolution), int(batch), int(ngf)),
        torch.device(device_name),
    )
    serve(lambda: SIDES[side](config, device), device)


if __name__ == "__main__":
    _main(*sys.argv[1:])
