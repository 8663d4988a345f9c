"""One step of supervised training: the generator, and in an adversarial phase its discriminator.

Shapes: n patches of this process, P side of a patch, s scale; images in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.data.order import rng_of
from pulse_sr.sr.discriminators import SSDDiscriminator
from pulse_sr.sr.losses.adversarial import LOSSES, gradient_penalty
from pulse_sr.sr.losses.frequency import ssd_gan_loss
from pulse_sr.training.optimizers import make_optimizer
from pulse_sr.training.parts import Part, PartedStep
from pulse_sr.training.processes import Processes
from pulse_sr.training.sr.config import Phase, SrConfig
from pulse_sr.training.sr.losses import Content


@dataclass
class SrStep(PartedStep):
    """The networks, their optimizers and losses.

    Attributes:
        generator: low-res to high-res.
        discriminator: of high-res patches; None: no phase is adversarial.
        contents: the losses that phases name, on the device.
        config: what decides the course of the run.
        device: where the networks live.
        processes: who shares the batch.
        micro_steps: in how many parts this process takes its share of a batch. Batch normalisation
            and relativistic means are over a part.
        bf16: run the networks in bfloat16 autocast.
    """

    generator: nn.Module
    discriminator: nn.Module | None
    contents: Mapping[str, Content]
    config: SrConfig
    device: torch.device
    processes: Processes
    micro_steps: int = 1
    bf16: bool = False
    optimizers: dict[str, torch.optim.Optimizer] = field(init=False)

    def __post_init__(self) -> None:
        networks = {"adam_g": self.generator, "adam_d": self.discriminator}
        self.optimizers = {
            name: make_optimizer(
                self.config.optimizer,
                network.parameters(),
                self.config.phases[0].lr,
                self.config.betas,
            )
            for name, network in networks.items()
            if network is not None
        }

    @property
    def batch(self) -> int:
        """Patches of the whole batch."""
        return self.config.batch

    @property
    def group(self) -> int:
        """Patches may be dealt out singly."""
        return 1

    def run(self, low: Tensor, high: Tensor, shown: int) -> dict[str, Tensor]:
        """Train the generator, then the discriminator where the phase has one.

        Args:
            low: `[n, 3, P / s, P / s]`, part by part as `rows` says.
            high: `[n, 3, P, P]`.
            shown: patches shown before.

        Returns:
            "generator", each of its losses by name, and where there is one "discriminator",
            "real_sign", "fake_sign", "gradient_penalty".
        """
        number, begins = self.config.phase_at(shown)
        phase = self.config.phases[number]
        self._set_rates(phase.rate(shown - begins), anew=shown == begins)
        fakes: list[Tensor] = []

        def of_generator(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            fake = self.generator(low[part.own])
            fakes.append(fake.detach())
            return self.generator_loss(phase, fake, high[part.own])

        with self.learning("adam_g"):
            report = self._backward(of_generator, self._parts())
        self._update("adam_g")
        if phase.adversarial:
            report |= self._train_discriminator(phase, high, fakes, shown)
        self._share_buffers()
        return report

    def generator_loss(
        self, phase: Phase, fake: Tensor, high: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum of a phase's losses, and each of them by name."""
        found = {name: self.contents[name](fake.float(), high) for name in phase.losses}
        total = fake.new_zeros((), dtype=torch.float32)
        for name, value in found.items():
            total = total + phase.losses[name] * value
        if phase.adversarial:
            game = LOSSES[phase.adversarial]
            real = None
            if game.paired:
                with torch.no_grad():
                    real = self._judge(high)
            found["adversarial"] = game.generator(real, self._judge(fake))
            total = total + phase.adversarial_weight * found["adversarial"]
        return total, {"generator": total} | found

    def _judge(self, images: Tensor) -> Tensor:
        assert self.discriminator is not None  # the config asks for one
        logits: Tensor = self.discriminator(images)
        return logits.float()

    def discriminator_loss(
        self, phase: Phase, fake: Tensor, high: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the discriminator minimises but for its penalty, and the signs of its logits."""
        game, network = LOSSES[phase.adversarial], self.discriminator
        if isinstance(network, SSDDiscriminator):
            value = ssd_gan_loss(game, network, network.spectral_logits, high, fake)
            return value, {"discriminator": value}
        real, generated = self._judge(high), self._judge(fake)
        value = game.discriminator(real, generated)
        signs = {"real_sign": real.sign().mean(), "fake_sign": generated.sign().mean()}
        return value, {"discriminator": value, **signs}

    def penalty(self, fake: Tensor, high: Tensor, shares: Tensor) -> Tensor:
        """The gradient penalty between patches; `shares` `[n]` of the true ones."""
        with torch.autocast(self.device.type, enabled=False):
            return gradient_penalty(self._judge, high, fake.float(), shares[:, None, None, None])

    def _train_discriminator(
        self, phase: Phase, high: Tensor, fakes: list[Tensor], shown: int
    ) -> dict[str, Tensor]:
        rng = rng_of(self.config.seed, "penalty", shown)
        shares = torch.rand(self.config.batch, generator=rng).to(self.device)
        generated = iter(fakes)

        def loss(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            fake, real = next(generated), high[part.own]
            value, report = self.discriminator_loss(phase, fake, real)
            if phase.gradient_penalty:
                report["gradient_penalty"] = self.penalty(fake, real, shares[part.rows])
                value = value + phase.gradient_penalty * report["gradient_penalty"]
            return value, report

        with self.learning("adam_d"):
            report = self._backward(loss, self._parts())
        self._update("adam_d")
        return report

    def _set_rates(self, rate: float, anew: bool) -> None:
        for optimizer in self.optimizers.values():
            if anew:
                optimizer.state.clear()
            for group in optimizer.param_groups:
                group["lr"] = rate

    def _share_buffers(self) -> None:
        """Running means of batch normalisation are those over all processes."""
        networks = (self.generator, self.discriminator)
        buffers = [b for net in networks if net is not None for b in net.buffers()]
        floating = [buffer for buffer in buffers if buffer.is_floating_point()]
        if floating:
            self.processes.average_(floating)
