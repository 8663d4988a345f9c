"""Supervised super-resolution as a task of the loop.

Shapes: N patches of the whole batch, n of this process, P side of a patch, s scale, S side of what
is cut from a photo.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.sr.files import FILE_NAME, SrModel, save_model
from pulse_sr.training.processes import Processes
from pulse_sr.training.sr.config import Phase, SrConfig
from pulse_sr.training.sr.low_res import Pairs
from pulse_sr.training.sr.step import SrStep


@dataclass
class SrTask:
    """A generator and maybe its discriminator (see `training.task.TrainingTask`).

    Attributes:
        sr: the networks, their optimizers, and what one step does.
        pairs: makes low-res patches.
        name: of the network in its file.
        card: what the file says of data and licence.
    """

    sr: SrStep
    pairs: Pairs
    name: str = "network"
    card: dict[str, Any] = field(default_factory=dict)

    averaged = "G"
    smaller = "choose a narrower network, or smaller patches"
    steadier = "try a recipe with a smaller lr, or --precision fp32, and another -o folder"

    def __post_init__(self) -> None:
        self.earlier: dict[str, Any] = {}

    @property
    def config(self) -> SrConfig:
        """Everything that decides the course of the run."""
        return self.sr.config

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.sr.device

    @property
    def processes(self) -> Processes:
        """Who shares a batch."""
        return self.sr.processes

    @property
    def group(self) -> int:
        """Patches may be dealt out singly."""
        return self.sr.group

    def modules(self) -> dict[str, nn.Module]:
        """G, and D if there is one."""
        found = {"G": self.sr.generator}
        return found if self.sr.discriminator is None else found | {"D": self.sr.discriminator}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One for each of the modules."""
        return self.sr.optimizers

    def frozen(self) -> list[Tensor]:
        """The weights of networks that losses stand on."""
        return [
            weight
            for loss in self.sr.contents.values()
            if isinstance(loss, nn.Module)
            for weight in [*loss.parameters(), *loss.buffers()]
        ]

    def rows(self) -> Tensor:
        """The patches of this process, part by part."""
        return self.sr.rows()

    def step(self, batch: Tensor, images_shown: int) -> dict[str, Tensor]:
        """Train on uint8 `[n, 3, S, S]`; the scalars of `SrStep.run`."""
        low, high = self.pairs(batch, self.rows(), images_shown)
        return self.sr.run(low, high, images_shown)

    def observe(self, means: Mapping[str, float], steps: int) -> dict[str, float]:
        """The log says the learning rate of the last step."""
        return {"lr": self.sr.optimizers["adam_g"].param_groups[0]["lr"]}

    def state(self) -> dict[str, Any]:
        """Nothing: phase and rate follow from the patches shown."""
        return {}

    def load_state(self, header: Mapping[str, Any]) -> None:
        """Nothing to go on from."""

    def renewed(self, before: Mapping[str, Any]) -> set[str]:
        """Nothing."""
        return set()

    def model(self, average: nn.Module, facts: Mapping[str, Any]) -> SrModel:
        """The averaged generator, ready for use; `facts` as for `export`."""
        training = {"recipe": self.config.title, **self.config.to_json(), **facts}
        return SrModel(
            self.name,
            str(self.config.network["architecture"]),
            average,
            card=self.card | {"training": training},
        )

    def export(self, average: nn.Module, run_dir: Path, facts: Mapping[str, Any]) -> Path:
        """Write the averaged generator."""
        file = run_dir / FILE_NAME
        save_model(file, self.model(average, facts))
        return file

    def deal_out(self, parts: int, recompute: bool) -> None:
        """Take this process's share in so many parts; patches are small, nothing is recomputed."""
        self.sr.micro_steps = parts

    def probes(self, count: int) -> list[Callable[[], Tensor]]:
        """The losses of a step on `count` grey patches, for every phase."""
        side = self.config.patch
        high = torch.full((count, 3, side, side), 0.5, device=self.device)
        high = high.contiguous(memory_format=torch.channels_last)
        low = high[..., :: self.config.scale, :: self.config.scale]
        found: list[Callable[[], Tensor]] = []
        for phase in self.config.phases:
            found.append(partial(self._probe, "adam_g", partial(self._generator, phase, low, high)))
            if phase.adversarial:
                of_judge = partial(self._judge, phase, high)
                found.append(partial(self._probe, "adam_d", of_judge))
        return found

    def _probe(self, name: str, loss: Callable[[], Tensor]) -> Tensor:
        bf16 = self.sr.bf16
        with self.sr.learning(name), torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
            return loss()

    def _generator(self, phase: Phase, low: Tensor, high: Tensor) -> Tensor:
        return self.sr.generator_loss(phase, self.sr.generator(low), high)[0]

    def _judge(self, phase: Phase, high: Tensor) -> Tensor:
        value = self.sr.discriminator_loss(phase, high, high)[0]
        if phase.gradient_penalty:
            shares = torch.zeros(len(high), device=self.device)
            value = value + self.sr.penalty(high, high, shares)
        return value
