"""The sides of the benchmark of supervised training: a little more of it per `next`.

`python -m pulse_sr.bench.train_sr_sides SIDE BATCH DEVICE` runs one side in a process of its own
(`frame.serve`).

Shapes: N patches, P side of a patch, s scale, S side of what is cut from a photo.
"""

from __future__ import annotations

import math
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.bench.frame import serve
from pulse_sr.bench.train_sides import random_images, steps_in_turn
from pulse_sr.data.order import ImageStream
from pulse_sr.devices import choose_bf16, keep_freed_memory
from pulse_sr.training.loop import Schedule, Trainer
from pulse_sr.training.processes import Processes
from pulse_sr.training.run import Machine
from pulse_sr.training.sr.build import build_step
from pulse_sr.training.sr.config import SrConfig
from pulse_sr.training.sr.low_res import Pairs
from pulse_sr.training.sr.recipes import read_recipe
from pulse_sr.training.sr.task import SrTask

Side = Callable[[SrConfig, torch.device], Iterator[Any]]

RECIPE = "srgan-mse"


def adversarial_recipe(batch: int) -> SrConfig:
    """SRGAN without a network that its loss looks through, in its adversarial phase."""
    recipe = read_recipe(RECIPE)
    return replace(recipe, phases=recipe.phases[1:2], batch=batch)


def machine_of(device: torch.device) -> Machine:
    """Where both sides compute."""
    return Machine(device, choose_bf16("auto", device), None, False, Processes())


def ours(config: SrConfig, device: torch.device) -> Iterator[Any]:
    """The trainer as `train-sr` runs it, from patches in memory, without a checkpoint."""
    keep_freed_memory()
    task = SrTask(build_step(config, machine_of(device)), Pairs(config))
    stream = ImageStream(random_images(config.side), config.seed)
    endless = Schedule(checkpoint_seconds=math.inf, snapshot_images=math.inf)
    with tempfile.TemporaryDirectory() as folder:
        yield from Trainer(stream, Path(folder), task).train(endless)


def baseline(config: SrConfig, device: torch.device) -> Iterator[Any]:
    """The plain port, from the same weights, with the allocator as it is."""
    step = build_step(config, machine_of(device))
    assert step.discriminator is not None  # the recipe has one
    training = PlainTraining(step.generator, step.discriminator, config, device)
    while True:
        yield [training.step() for _ in range(steps_in_turn(device))]


class PlainTraining:
    """SRGAN's step as public PyTorch ports write it, at their best.

    Float32 in contiguous NCHW, the generator run once for both updates, gradients for the
    discriminator's weights in the generator's update too, true and generated patches in calls of
    their own, the losses read in every step. No average of the weights. Written from Ledig et al.,
    CVPR 2017, sections 2.2 and 3.2.
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        config: SrConfig,
        device: torch.device,
    ) -> None:
        """Takes over weights and rates of our training."""
        self.config, self.device, [phase] = config, device, config.phases
        self.generator, self.discriminator = (
            network.to(device).to(memory_format=torch.contiguous_format)
            for network in (generator, discriminator)
        )
        self.adam_g, self.adam_d = (
            torch.optim.Adam(network.parameters(), lr=phase.lr, betas=config.betas)
            for network in (generator, discriminator)
        )
        self.content, self.adversarial = phase.losses["mse"], phase.adversarial_weight
        self.photos = random_images(config.side)
        self.order = np.random.default_rng(config.seed)

    def step(self) -> dict[str, float]:
        """Update both networks once; returns the losses of both."""
        low, high = self.pairs()
        return self.update(low, high)

    def pairs(self) -> tuple[Tensor, Tensor]:
        """Random patches `[N, 3, P, P]` and what they are to be made from, in [0, 1]."""
        size, scale = self.config.patch, self.config.scale
        chosen = self.order.integers(len(self.photos), size=self.config.batch)
        high = torch.from_numpy(self.photos[chosen][..., :size, :size]).to(self.device).float()
        high = high.contiguous() / 255
        low = F.interpolate(high, size // scale, mode="bicubic", antialias=True).clamp(0, 1)
        return low, high

    def update(self, low: Tensor, high: Tensor) -> dict[str, float]:
        """One step on low-res and true patches."""
        self.adam_g.zero_grad()
        fake = self.generator(low)
        logits = self.discriminator(fake)
        ones, zeros = torch.ones_like(logits), torch.zeros_like(logits)
        deceived = F.binary_cross_entropy_with_logits(logits, ones)
        loss_g = self.content * F.mse_loss(fake, high) + self.adversarial * deceived
        loss_g.backward()
        self.adam_g.step()

        self.adam_d.zero_grad()
        real, generated = self.discriminator(high), self.discriminator(fake.detach())
        on_real = F.binary_cross_entropy_with_logits(real, ones)
        on_fake = F.binary_cross_entropy_with_logits(generated, zeros)
        (on_real + on_fake).backward()
        self.adam_d.step()
        return {"generator": loss_g.item(), "discriminator": on_real.item() + on_fake.item()}


SIDES: dict[str, Side] = {"ours": ours, "baseline": baseline}


def _main(side: str, batch: str, device_name: str) -> None:
    config, device = adversarial_recipe(int(batch)), torch.device(device_name)
    serve(lambda: SIDES[side](config, device), device)


if __name__ == "__main__":
    _main(*sys.argv[1:])
