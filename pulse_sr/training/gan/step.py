"""One step of adversarial training: gradients from parts of a batch, then the optimizers.

Shapes: N images of the whole batch, n of this process, R resolution; images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.data.order import rng_of
from pulse_sr.training.augment.base import Augmentation
from pulse_sr.training.gan.config import TrainConfig
from pulse_sr.training.gan.heads import FeatureHeads, HeadsTurn
from pulse_sr.training.gan.objective import (
    Augment,
    Draws,
    Images,
    Objective,
    gradient_penalty,
    part_of_batch,
    take,
)
from pulse_sr.training.processes import Processes

PATH_DECAY = 0.01


class Part(NamedTuple):
    """Images that go through the networks together.

    Attributes:
        rows: their places in the whole batch, on the device.
        own: their places among the images of this process.
    """

    rows: Tensor
    own: slice


#: What one part contributes: its loss, which is differentiated, and values to report.
PartLoss = Callable[[Part], tuple[Tensor, dict[str, Tensor]]]


@dataclass
class Step:
    """The networks, their optimizers and how a batch is dealt out.

    Attributes:
        objective: the networks and their losses.
        config: what decides the course of the run.
        augmentation: of real and generated images alike.
        device: where the networks live.
        processes: who shares the batch.
        micro_steps: in how many parts this process takes its share of a batch.
        recompute: whether activations are computed again instead of kept.
        heads: discriminators on the features of a frozen network, beside D.
        bf16: run the networks in bfloat16 autocast.
        path_mean: running mean of the path lengths.
    """

    objective: Objective
    config: TrainConfig
    augmentation: Augmentation
    device: torch.device
    processes: Processes
    micro_steps: int = 1
    bf16: bool = False
    path_mean: float = 0.0
    recompute: bool = False
    heads: FeatureHeads | None = None

    def __post_init__(self) -> None:
        config = self.config
        frozen = self.objective.stages()[: config.freeze_d]
        for stage in frozen:
            stage.requires_grad_(False)
        # Lazy regularisation: the extra steps are paid for by smaller rates and decays.
        lazy_d = config.penalty_interval if config.gamma and config.penalty_interval > 1 else 0
        lazy_g = config.path_interval if config.path_weight else 0
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "adam_g": self._adam(self.objective.generator, lazy_g),
            "adam_d": self._adam(self.objective.discriminator, lazy_d),
        }
        if self.heads is not None:
            self.optimizers["adam_heads"] = self.heads.make_optimizer()

    def _adam(self, network: nn.Module, interval: int) -> torch.optim.Adam:
        ratio = interval / (interval + 1) if interval else 1.0
        first, second = self.config.betas
        parameters = [p for p in network.parameters() if p.requires_grad]
        betas = (first**ratio, second**ratio)
        return torch.optim.Adam(parameters, lr=self.config.lr * ratio, betas=betas, fused=True)

    def run(self, real: Tensor, shown: int) -> dict[str, Tensor]:
        """Train G, then D, each with its regulariser when that is due.

        Args:
            real: images of this process, `[n, 3, R, R]`, as `rows` picks them from the batch.
            shown: how many images were shown before; seeds the draws.

        Returns:
            scalars: "generator", "discriminator", "real_sign", "fake_sign", and "r1", "r2", "path"
            in the steps that compute them; with heads "heads_generator", and in the steps in which
            they learn "heads", "heads_real_sign", "heads_fake_sign".
        """
        config = self.config
        rng = torch.Generator(self.device)
        rng.manual_seed(rng_of(config.seed, "step", shown).initial_seed())
        number = shown // config.batch
        draws = self.objective.draw(config.batch, rng)
        turn = None if self.heads is None else self.heads.turn(config.batch, shown, self.device)
        report, fakes = self._train_generator(real, draws, rng, turn)
        if config.path_weight and number % config.path_interval == 0:
            report |= self._regularise_paths(rng)
        if not self.objective.shares_images:
            draws = self.objective.draw(config.batch, rng)
            fakes = self._generate(draws)
        report |= self._train_discriminator(real, fakes, draws, rng, number)
        if turn is not None and turn.learning:
            report |= self._train_heads(real, turn)
        return report

    def _train_generator(
        self, real: Tensor, draws: Draws, rng: torch.Generator, turn: HeadsTurn | None = None
    ) -> tuple[dict[str, Tensor], Iterator[Images]]:
        """Also returns the images of each part, before the update, where D learns from them."""
        augments = self.augmentation.draw(self.config.batch, rng)
        fakes: list[Images] = []

        def loss(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            augment = self._augment(augments, part)
            fake = self.objective.generate(take(draws, part.rows))
            if self.objective.shares_images:
                fakes.append(tuple(each.detach() for each in fake))
            value = self.objective.generator_loss(real[part.own], fake, augment)
            if turn is None:
                return value, {"generator": value}
            term = turn.generator_loss(fake[0], part.rows)
            report = {"generator": value, "heads_generator": term}
            return value + turn.heads.weight * term, report

        self.objective.prepare(self.objective.generator)
        with self.learning("adam_g"):
            report = self._backward(loss, self._parts())
        self._update("adam_g")
        self.objective.observe(draws)
        return report, iter(fakes)

    def _generate(self, draws: Draws) -> Iterator[Images]:
        """New images of each part, at the moment that it is asked for."""
        for part in self._parts():
            with torch.no_grad():
                images = self.objective.generate(take(draws, part.rows))
            yield images

    def _train_discriminator(
        self,
        real: Tensor,
        fakes: Iterator[Images],
        draws: Draws,
        rng: torch.Generator,
        number: int,
    ) -> dict[str, Tensor]:
        config = self.config
        on_real, on_fake = (self.augmentation.draw(config.batch, rng) for _ in range(2))

        def loss(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            augments = (self._augment(on_real, part), self._augment(on_fake, part))
            value, reals, judged = self.objective.discriminator_loss(
                real[part.own], next(fakes), take(draws, part.rows), *augments
            )
            signs = {"real_sign": reals.sign().mean(), "fake_sign": judged.sign().mean()}
            return value, {"discriminator": value, **signs}

        self.objective.prepare(self.objective.discriminator)
        due = bool(config.gamma) and number % config.penalty_interval == 0
        with self.learning("adam_d"):
            report = self._backward(loss, self._parts())
            if config.penalty_interval > 1:
                self._update("adam_d")
            if due:
                report |= self._penalise(real, rng)
        if due or config.penalty_interval == 1:
            self._update("adam_d")
        return report

    def _train_heads(self, real: Tensor, turn: HeadsTurn) -> dict[str, Tensor]:
        """From the features of the images that G has just learned from."""

        def loss(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            value, signs = turn.judges_loss(real[part.own], part.rows)
            return value, {"heads": value, **signs}

        self.objective.prepare(turn.heads.judges)
        with self.learning("adam_heads"):
            report = self._backward(loss, self._parts())
        self._update("adam_heads")
        return report

    def _penalise(self, real: Tensor, rng: torch.Generator) -> dict[str, Tensor]:
        """Gradients of `gamma / 2 * interval * (R1 + R2)`."""
        config = self.config
        draws = self.objective.draw(config.batch, rng)
        augments = self.augmentation.draw(config.batch, rng)
        weight = config.gamma / 2 * config.penalty_interval

        def loss(part: Part, images: Tensor, name: str) -> tuple[Tensor, dict[str, Tensor]]:
            augment, drawn = self._augment(augments, part), take(draws, part.rows)
            value = gradient_penalty(self.objective, images, drawn, augment).mean()
            return value * weight, {name: value}

        def at_real(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            return loss(part, real[part.own], "r1")

        def at_fake(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            with torch.no_grad():
                images = self.objective.generate(take(draws, part.rows))[0]
            return loss(part, images, "r2")

        report = self._backward(at_real, self._parts())
        if config.r2:
            report |= self._backward(at_fake, self._parts())
        return report

    def _regularise_paths(self, rng: torch.Generator) -> dict[str, Tensor]:
        """A step that keeps path lengths near their mean, on half of a batch."""
        config = self.config
        count = config.batch // 2
        draws = self.objective.draw_path(count, rng)
        weight = config.path_weight * config.path_interval

        def loss(part: Part) -> tuple[Tensor, dict[str, Tensor]]:
            lengths = self.objective.path_lengths(take(draws, part.rows))
            penalty = (lengths - self.path_mean).square().mean()
            return penalty * weight, {"path": penalty, "path_length": lengths.mean()}

        with self.learning("adam_g"):
            report = self._backward(loss, self._parts(count, group=1))
        self._update("adam_g")
        length = report.pop("path_length").clone()
        self.processes.average_([length])
        self.path_mean += PATH_DECAY * (length.item() - self.path_mean)
        return report

    def rows(self) -> Tensor:
        """Which images of a batch this process learns from, int64 `[n]`, part by part."""
        return torch.cat(self._places(self.config.batch, self.objective.group))

    def _places(self, count: int, group: int) -> list[Tensor]:
        """The places of each part of this process, on the CPU: asking a GPU would wait for it."""
        parts, first = (
            self.processes.count * self.micro_steps,
            self.processes.rank * self.micro_steps,
        )
        return [part_of_batch(count, group, first + i, parts) for i in range(self.micro_steps)]

    def _parts(self, count: int | None = None, group: int | None = None) -> Iterator[Part]:
        """The parts of this process, of a batch or of `count` draws in groups of `group`."""
        count = self.config.batch if count is None else count
        group = self.objective.group if group is None else group
        for i, rows in enumerate(self._places(count, group)):
            yield Part(rows.to(self.device), slice(i * len(rows), (i + 1) * len(rows)))

    def _augment(self, draws: Draws, part: Part) -> Augment:
        drawn = take(draws, part.rows)
        return lambda images: self.augmentation.apply(images, drawn)

    def _backward(self, loss: PartLoss, parts: Iterator[Part]) -> dict[str, Tensor]:
        """Add up the gradients of the parts; means of what they report."""
        reports = []
        for part in parts:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                value, report = loss(part)
            (value / self.micro_steps).backward()
            reports.append({name: each.detach().float() for name, each in report.items()})
        return {name: torch.stack([r[name] for r in reports]).mean() for name in reports[0]}

    def _update(self, name: str) -> None:
        optimizer = self.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.processes.average_(gradients)
        for gradient in gradients:
            torch.nan_to_num_(gradient, nan=0.0, posinf=1e5, neginf=-1e5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def learning(self, name: str) -> Iterator[None]:
        """While it lasts, only the parameters of one optimizer take gradients."""
        others = [
            parameter
            for other, optimizer in self.optimizers.items()
            if other != name
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)
