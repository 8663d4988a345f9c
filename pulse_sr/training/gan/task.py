"""The training of a prior as a task of the loop.

Shapes: N images of the whole batch, n of this process, R resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.data.order import rng_of
from pulse_sr.files.documents import Count, check_shape
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import FILE_NAME, save_prior
from pulse_sr.training.augment.ada import AdaptiveAugment, OverfittingHeuristic
from pulse_sr.training.augment.base import Draws
from pulse_sr.training.collapse import STEADIER
from pulse_sr.training.gan.config import EARLIER, TrainConfig
from pulse_sr.training.gan.objective import gradient_penalty
from pulse_sr.training.gan.step import Step
from pulse_sr.training.processes import Processes


class HeuristicShape(TypedDict):
    """How strong ADA is, and what it has seen."""

    p: float
    r: float
    signs: float
    images: Count
    steps: Count


class StateShape(TypedDict):
    """What a GAN has in the header of a checkpoint."""

    path_mean: float
    augment: HeuristicShape


@dataclass
class GanTask:
    """A generator and its discriminator (see `training.task.TrainingTask` for what it must do).

    Attributes:
        gan: the networks, their optimizers, and what one step does.
        name: of the prior.
        card: what the prior file says of its data and licence.
        heuristic: how strong ADA is.
    """

    gan: Step
    name: str = "prior"
    card: dict[str, Any] = field(default_factory=dict)
    heuristic: OverfittingHeuristic = field(default_factory=OverfittingHeuristic)

    averaged = "G"
    earlier = EARLIER
    smaller = "choose narrower networks (--channel-max, --ngf) or a lower --resolution"
    steadier = f"{STEADIER}; with other options --continue RUN goes on from the kept state"

    @property
    def config(self) -> TrainConfig:
        """Everything that decides the course of the run."""
        return self.gan.config

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.gan.device

    @property
    def processes(self) -> Processes:
        """Who shares a batch."""
        return self.gan.processes

    @property
    def group(self) -> int:
        """How many images D compares with each other."""
        return self.gan.group

    def modules(self) -> dict[str, nn.Module]:
        """G, D, and the heads if there are any."""
        objective, heads = self.gan.objective, self.gan.heads
        found: dict[str, nn.Module] = {"G": objective.generator, "D": objective.discriminator}
        return found if heads is None else found | {"heads": heads.judges}

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """One Adam for each of the modules."""
        return self.gan.optimizers

    def frozen(self) -> list[Tensor]:
        """The network that the heads stand on."""
        heads = self.gan.heads
        return [] if heads is None else heads.frozen(self.device)

    def rows(self) -> Tensor:
        """The images of this process, part by part."""
        return self.gan.rows()

    def step(self, batch: Tensor, images_shown: int) -> dict[str, Tensor]:
        """Train G and D on images, half of them mirrored where the config says so.

        Args:
            batch: uint8 `[n, 3, R, R]`, the `rows` of the batch.
            images_shown: before.

        Returns:
            the scalars of `Step.run`.
        """
        real = batch.float().div_(127.5).sub_(1)
        if self.config.mirror:
            rng = rng_of(self.config.seed, "mirror", images_shown)
            flip = torch.rand(self.config.batch, generator=rng)[self.rows()] < 0.5
            flip = flip.to(self.device)
            real = torch.where(flip[:, None, None, None], real.flip(3), real)
        real = real.contiguous(memory_format=torch.channels_last)
        return self.gan.run(real, images_shown)

    def observe(self, means: Mapping[str, float], steps: int) -> dict[str, float]:
        """Move the strength of ADA; the log says the one that these steps had."""
        if not isinstance(self.gan.augmentation, AdaptiveAugment):
            return {}
        before = self.gan.augmentation.p
        self.heuristic.observe(means["real_sign"], steps * self.config.batch, steps)
        self._set_augment_p()
        return {"augment_p": before}

    def _set_augment_p(self) -> None:
        if isinstance(self.gan.augmentation, AdaptiveAugment):
            self.gan.augmentation.p = self.heuristic.p

    def state(self) -> dict[str, Any]:
        """The mean path length and how strong ADA is."""
        return {"path_mean": self.gan.path_mean, "augment": self.heuristic.state()}

    def load_state(self, header: Mapping[str, Any]) -> None:
        """Go on from `state`.

        Raises:
            ValueError: it is another one.
        """
        check_shape(header, StateShape)
        self.gan.path_mean = header["path_mean"]
        self.heuristic.load(header["augment"])
        self._set_augment_p()

    def renewed(self, before: Mapping[str, Any]) -> set[str]:
        """Heads on another network than before, or on one where there was none."""
        return set() if before["heads"] == self.config.heads else {"heads", "adam_heads"}

    def prior(self, average: nn.Module, facts: Mapping[str, Any]) -> Prior:
        """The averaged generator as a prior, ready for a search; `facts` as for `export`."""
        card = self.card | {"training": {**self.config.to_json(), **facts}}
        if self.config.trained_with:
            card["trained_with"] = self.config.trained_with
        return self.gan.objective.make_prior(average, card.get("name", self.name), card)

    def export(self, average: nn.Module, run_dir: Path, facts: Mapping[str, Any]) -> Path:
        """Write the prior."""
        file = run_dir / FILE_NAME
        save_prior(file, self.prior(average, facts))
        return file

    def deal_out(self, parts: int, recompute: bool) -> None:
        """Take this process's share of a batch in so many parts, maybe recomputing activations."""
        self.gan.objective.set_recompute(recompute)
        self.gan.micro_steps, self.gan.recompute = parts, recompute

    def probes(self, count: int) -> list[Callable[[], Tensor]]:
        """The losses of a step on `count` grey images, each computed when it is called."""
        config, objective = self.config, self.gan.objective
        side, rng = config.network.resolution, torch.Generator(self.device)
        rng.manual_seed(0)
        real = torch.zeros(count, 3, side, side, device=self.device)
        real = real.contiguous(memory_format=torch.channels_last)
        draws, augments = objective.draw(count, rng), self._strongest(count, rng)

        def augment(images: Tensor) -> Tensor:
            return self.gan.augmentation.apply(images, augments)

        def of_generator() -> Tensor:
            fake = objective.generate(draws)
            value = objective.generator_loss(real, fake, augment)
            heads = self.gan.heads
            if heads is None:
                return value
            turn = heads.turn(count, heads.warmup, self.device)
            return value + turn.generator_loss(fake[0], torch.arange(count))

        def of_discriminator() -> Tensor:
            with torch.no_grad():
                fake = objective.generate(draws)
            return objective.discriminator_loss(real, fake, draws, augment, augment)[0]

        found = [("adam_g", of_generator), ("adam_d", of_discriminator)]
        if config.gamma:
            penalty = partial(gradient_penalty, objective, real, draws, augment)
            found.append(("adam_d", lambda: penalty().mean()))
        if config.path_weight:
            paths = objective.draw_path(max(1, count // 2), rng)
            found.append(("adam_g", lambda: objective.path_lengths(paths).mean()))
        return [partial(self._probe, name, loss) for name, loss in found]

    def _probe(self, name: str, loss: Callable[[], Tensor]) -> Tensor:
        bf16 = self.gan.bf16
        with (
            self.gan.learning(name),
            torch.autocast(self.device.type, torch.bfloat16, enabled=bf16),
        ):
            return loss()

    def _strongest(self, count: int, rng: torch.Generator) -> Draws:
        """Draws of the augmentation at the most that it can come to."""
        augmentation = self.gan.augmentation
        if not isinstance(augmentation, AdaptiveAugment):
            return augmentation.draw(count, rng)
        before = augmentation.p
        augmentation.p = OverfittingHeuristic.limit
        found = augmentation.draw(count, rng)
        augmentation.p = before
        return found
