"""The training loop of a StyleGAN2 prior: state, schedule, checkpoints, records.

Every random draw of a step comes from a generator seeded by (seed, images shown), and the order of
the images from (seed, epoch): the same command resumes where the last checkpoint stands and gives,
on a CPU, the very bits of an uninterrupted run.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pulse_sr.atomic import write_text_atomic
from pulse_sr.errors import UsageError
from pulse_sr.priors.files import FILE_NAME, save_prior
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config
from pulse_sr.training import prior_steps as steps
from pulse_sr.training.checkpoint import (
    load_checkpoint,
    read_checkpoint_header,
    save_checkpoint,
)
from pulse_sr.training.discriminator import Discriminator
from pulse_sr.training.images import ImageStream, rng_of
from pulse_sr.training.snapshot import write_grid

STATE_NAME = "state.safetensors"
SECOND_MOMENT_DECAY = 0.99


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides the course of a training run.

    Attributes:
        network: shape of the generator; the discriminator mirrors its widths.
        batch: images per step.
        lr: learning rate of Adam, betas (0, 0.99).
        gamma: weight of R1; None: 0.0002 * resolution^2 / batch (Karras et al. 2020, "ADA").
        r1_interval: steps between two R1 steps.
        ema_kimg: half-life of the averaged generator in thousands of images.
        ema_rampup: the half-life is at most this share of the images shown.
        mixing: share of images with two latents.
        augment: DiffAugment transforms in their order; empty for none.
        mirror: flip half of the real images.
        seed: of everything random.
    """

    network: StyleGAN2Config
    batch: int = 16
    lr: float = 0.002
    gamma: float | None = None
    r1_interval: int = 16
    ema_kimg: float = 10.0
    ema_rampup: float = 0.05
    mixing: float = 0.5
    augment: tuple[str, ...] = ("color", "translation")
    mirror: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if self.gamma is None:
            gamma = 0.0002 * self.network.resolution**2 / self.batch
            object.__setattr__(self, "gamma", gamma)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        fields = asdict(replace(self)) | {"network": self.network.to_json()}
        return fields | {"augment": list(self.augment)}


@dataclass(frozen=True)
class Progress:
    """One record per step; `checkpointed` where the state was written."""

    images: int
    seconds: float
    images_per_second: float
    losses: steps.Losses
    checkpointed: bool


class Trainer:
    """The state of a run and the steps that change it."""

    def __init__(
        self,
        images: np.ndarray,
        run_dir: Path,
        config: TrainConfig,
        device: torch.device,
        bf16: bool = False,
        card: dict[str, Any] | None = None,
    ) -> None:
        """Set up a run, or take up the one that stands in `run_dir`.

        Args:
            images: uint8 `[N, 3, R, R]`.
            run_dir: folder of the state, the prior, the grids and the log.
            config: everything that decides the course of the run.
            device: where the networks live.
            bf16: run the networks in bfloat16 autocast (GPU only: slow on most CPUs).
            card: what the prior file says of its data and licence.

        Raises:
            UsageError: when the run in `run_dir` was started with another config.
        """
        self.run_dir, self.config, self.device, self.bf16 = run_dir, config, device, bf16
        self.card = card or {}
        self.images_shown = 0
        self.seconds = 0.0
        self.seconds_of_call = 0.0
        torch_state = torch.get_rng_state()
        torch.default_generator.manual_seed(config.seed)  # initialisation takes no generator
        generator, discriminator = Generator(config.network), Discriminator(config.network)
        torch.set_rng_state(torch_state)
        generator = generator.to(device).to(memory_format=torch.channels_last)
        discriminator = discriminator.to(device).to(memory_format=torch.channels_last)
        self.generator = generator.train()
        self.average = copy.deepcopy(self.generator).eval().requires_grad_(False)
        self.discriminator = discriminator.train()
        # Lazy regularisation: the extra steps of R1 are paid for by smaller rates and decays.
        ratio = config.r1_interval / (config.r1_interval + 1)
        self.optimizers = {
            "adam_g": self._adam(self.generator, 1.0),
            "adam_d": self._adam(self.discriminator, ratio),
        }
        self.stream = ImageStream(images, config.seed)
        if self.state_file.exists():
            self._resume()

    def _adam(self, module: torch.nn.Module, ratio: float) -> torch.optim.Adam:
        betas = (0.0, SECOND_MOMENT_DECAY**ratio)
        rate = self.config.lr * ratio
        return torch.optim.Adam(module.parameters(), lr=rate, betas=betas, fused=True)

    @property
    def state_file(self) -> Path:
        """Where the checkpoint stands."""
        return self.run_dir / STATE_NAME

    @property
    def log_file(self) -> Path:
        """One JSON record per step."""
        return self.run_dir / "log.jsonl"

    @property
    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"G": self.generator, "G_ema": self.average, "D": self.discriminator}

    def _resume(self) -> None:
        header = read_checkpoint_header(self.state_file)
        differing = _differences(header["config"], self.config.to_json())
        if differing:
            raise UsageError(
                f"the run in {self.run_dir} was started with other options: {', '.join(differing)}",
                "repeat them, or give another -o folder",
            )
        load_checkpoint(self.state_file, self._modules, self.optimizers)
        self.images_shown, self.seconds = header["images"], header["seconds"]

    def train(
        self, until_images: float, until_seconds: float, checkpoint_images: int
    ) -> Iterator[Progress]:
        """Train until a number of images or seconds, yielding one record per step.

        The state, the averaged generator as a prior and a sample grid are written every
        `checkpoint_images` and at the end. A time limit counts the seconds of this call.
        """
        self._rewind_log()
        started, shown = time.perf_counter(), self.images_shown
        seconds_before = self.seconds
        while self.images_shown < until_images:
            losses = self.step()
            elapsed = time.perf_counter() - started
            self.seconds = seconds_before + elapsed
            self.seconds_of_call = elapsed
            last = self.images_shown >= until_images or elapsed >= until_seconds
            due = self.images_shown % checkpoint_images < self.config.batch or last
            rate = (self.images_shown - shown) / elapsed
            progress = Progress(self.images_shown, self.seconds, rate, losses, due)
            self._log(progress)
            if due:
                self.checkpoint()
            yield progress
            if last:
                return

    def step(self) -> steps.Losses:
        """One step of the generator, one of the discriminator, and R1 when it is due."""
        config = self.config
        rng = rng_of(config.seed, "step", self.images_shown)
        real = self._real(rng)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            generator_loss = self._generator_step(rng)
            loss, real_sign, fake_sign = self._discriminator_step(real, rng)
            step_number = self.images_shown // config.batch
            r1 = self._r1_step(real, rng) if step_number % config.r1_interval == 0 else None
        self._average()
        self.images_shown += config.batch
        return steps.Losses(generator_loss, loss, real_sign, fake_sign, r1)

    def _real(self, rng: torch.Generator) -> torch.Tensor:
        batch = self.stream.batch(self.images_shown, self.config.batch)
        real = batch.to(self.device).float().div_(127.5).sub_(1)
        if self.config.mirror:
            flip = (torch.rand(len(real), generator=rng) < 0.5).to(self.device)
            real = torch.where(flip[:, None, None, None], real.flip(3), real)
        return real.contiguous(memory_format=torch.channels_last)

    def _generator_step(self, rng: torch.Generator) -> float:
        config = self.config
        self.discriminator.requires_grad_(False)
        self.generator.requires_grad_(True)
        loss = steps.generator_loss(
            self.generator, self.discriminator, config.batch, config.mixing, config.augment, rng
        )
        self._update("adam_g", loss)
        return loss.item()

    def _discriminator_step(
        self, real: torch.Tensor, rng: torch.Generator
    ) -> tuple[float, float, float]:
        config = self.config
        self.discriminator.requires_grad_(True)
        self.generator.requires_grad_(False)
        real_logits, fake_logits = steps.discriminator_logits(
            self.generator, self.discriminator, real, config.mixing, config.augment, rng
        )
        loss = (F.softplus(-real_logits) + F.softplus(fake_logits)).mean()
        self._update("adam_d", loss)
        signs = [logits.detach().sign().mean().item() for logits in (real_logits, fake_logits)]
        return loss.item(), signs[0], signs[1]

    def _r1_step(self, real: torch.Tensor, rng: torch.Generator) -> float:
        penalty = steps.r1_penalty(self.discriminator, real, self.config.augment, rng).mean()
        assert self.config.gamma is not None  # the config fills it in
        self._update("adam_d", penalty * (self.config.gamma / 2 * self.config.r1_interval))
        return penalty.item()

    def _update(self, name: str, loss: torch.Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    torch.nan_to_num_(parameter.grad, nan=0.0, posinf=1e5, neginf=-1e5)
        optimizer.step()

    @torch.no_grad()
    def _average(self) -> None:
        half_life = min(self.config.ema_kimg * 1000, self.images_shown * self.config.ema_rampup)
        keep = 0.5 ** (self.config.batch / max(half_life, 1e-8))
        average, current = self.average, self.generator
        for mean, weight in zip(average.parameters(), current.parameters(), strict=True):
            mean.lerp_(weight, 1 - keep)
        for kept, buffer in zip(average.buffers(), current.buffers(), strict=True):
            kept.copy_(buffer)

    def checkpoint(self) -> None:
        """Write the grid, the prior and, last, the state."""
        header = {
            "config": self.config.to_json(),
            "images": self.images_shown,
            "seconds": round(self.seconds, 3),
        }
        thousands = self.images_shown // 1000
        write_grid(self.run_dir / f"fakes-{thousands:06d}.png", self.average)
        self.write_prior(self.run_dir / FILE_NAME)
        save_checkpoint(self.state_file, self._modules, self.optimizers, header)

    def write_prior(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write the averaged generator as a prior file."""
        training = self.config.to_json() | {
            "images": self.images_shown,
            "seconds": round(self.seconds),
        }
        card = self.card | {"training": training}
        name = self.card.get("name", self.run_dir.resolve().name)
        save_prior(path, name, self.average, fit_statistics(self.average), card, dtype)

    def _log(self, progress: Progress) -> None:
        record = asdict(progress)
        record |= record.pop("losses")
        with open(self.log_file, "a") as file:
            file.write(json.dumps(record) + "\n")

    def _rewind_log(self) -> None:
        """Drop the records of steps that come after the state: a kill undid them."""
        if not self.log_file.exists():
            return
        lines = self.log_file.read_text().splitlines(keepends=True)
        kept = [line for line in lines if _images_of(line) <= self.images_shown]
        if len(kept) < len(lines):
            write_text_atomic(self.log_file, "".join(kept))


def _images_of(line: str) -> float:
    """The position of a record; infinite for one that a kill cut short."""
    if not line.endswith("\n"):
        return math.inf
    images: int = json.loads(line)["images"]
    return images


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Options that differ, as `name: then -> now`; those of the network by their own names."""
    found = []
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            found += _differences(old, value)
        elif old != value:
            found.append(f"{key} was {old}, is {value}")
    return found
