"""One step of adversarial training: gradients from parts of a batch, then the optimizers.

Shapes: N images of the whole batch, n of this process, R resolution; images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

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
    take,
)
from pulse_sr.training.parts import Part, PartedStep
from pulse_sr.training.processes import Processes

PATH_DECAY = 0.01


@dataclass
class Step(PartedStep):
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
        self.optimizers = {
            "adam_g": self._adam(self.objective.generator, lazy_g),
            "adam_d": self._adam(self.objective.discriminator, lazy_d),
        }
        if self.heads is not None:
            self.optimizers["adam_heads"] = self.heads.make_optimizer()

    @property
    def batch(self) -> int:
        """Images of the whole batch."""
        return self.config.batch

    @property
    def group(self) -> int:
        """How many images D compares with each other."""
        return self.objective.group

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

    def _augment(self, draws: Draws, part: Part) -> Augment:
        drawn = take(draws, part.rows)
        return lambda images: self.augmentation.apply(images, drawn)
