"""A training run from a folder of images: settings resolved, data cached, trainer ready."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pulse_sr.devices import choose_bf16, choose_device, keep_freed_memory
from pulse_sr.errors import UsageError
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.discriminator import GROUP_SIZE
from pulse_sr.training.images import (
    alignment_of,
    cache_images,
    largest_resolution,
    list_images,
)
from pulse_sr.training.loop import TrainConfig, Trainer


@dataclass(frozen=True)
class TrainingPlan:
    """Everything resolved, nothing written yet."""

    data: Path
    run_dir: Path
    config: TrainConfig
    device: torch.device
    bf16: bool
    licence: str

    def describe(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return self.config.to_json() | {
            "data": str(self.data),
            "out": str(self.run_dir),
            "device": str(self.device),
            "precision": "bf16" if self.bf16 else "fp32",
        }

    def start(self) -> Trainer:
        """Decode the images, build the networks, and take up the run if there is one."""
        keep_freed_memory()
        self.run_dir.mkdir(parents=True, exist_ok=True)
        images = cache_images(self.data, self.run_dir, self.config.network.resolution)
        card: dict[str, Any] = {
            "data": f"{len(images)} images of {self.data.name}",
            "licence": self.licence,
        }
        alignment = alignment_of(list_images(self.data))
        if alignment is not None:
            card["alignment"] = alignment
        write_reals(self.run_dir / "reals.png", images)
        return Trainer(images, self.run_dir, self.config, self.device, self.bf16, card)

    def summary(self, trainer: Trainer) -> str:
        """One line on what is about to run."""
        sizes = [
            sum(p.numel() for p in module.parameters()) / 1e6
            for module in (trainer.generator, trainer.discriminator)
        ]
        return (
            f"StyleGAN2 {self.config.network.resolution} px, G {sizes[0]:.2f} M, "
            f"D {sizes[1]:.2f} M parameters, {len(trainer.stream.images)} images, "
            f"from {trainer.images_shown} shown"
        )


def write_reals(path: Path, images: np.ndarray) -> None:
    """A grid of training images beside the grids of samples."""
    from pulse_sr.images import write_png
    from pulse_sr.training.snapshot import GRID_SIDE, tile

    chosen = images[:: max(1, len(images) // GRID_SIDE**2)][: GRID_SIDE**2]
    write_png(path, tile(torch.from_numpy(np.array(chosen)).float() / 255, GRID_SIDE))


def describe_network(
    resolution: int,
    channel_base: int = 2048,
    channel_max: int = 128,
    w_dim: int = 128,
    mapping_layers: int = 2,
) -> StyleGAN2Config:
    """The networks that the options ask for.

    Raises:
        UsageError: when `resolution` is not a power of two from 8 up.
    """
    try:
        return StyleGAN2Config.from_base(
            resolution, channel_base, channel_max, w_dim, mapping_layers
        )
    except ValueError as error:
        raise UsageError(f"--resolution: {error}", "use 32, 64, 128, 256, ...") from error


def plan_training(
    data: Path,
    run_dir: Path,
    *,
    resolution: int | None = None,
    batch: int = 16,
    lr: float = 0.002,
    gamma: float | None = None,
    augment: str = "diffaug",
    cutout: bool = False,
    mirror: bool = True,
    channel_base: int = 2048,
    channel_max: int = 128,
    w_dim: int = 128,
    mapping_layers: int = 2,
    ema_kimg: float = 10.0,
    licence: str = "unstated",
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
) -> TrainingPlan:
    """Resolve the settings of a run.

    Raises:
        UsageError: for a folder that does not exist or a value out of range.
        SetupError: for a device that does not exist.
    """
    paths = list_images(data)
    if resolution is None:
        resolution = largest_resolution(paths)
    if batch > GROUP_SIZE and batch % GROUP_SIZE:
        raise UsageError(
            f"--batch is {batch}, expected a multiple of {GROUP_SIZE} (or less than that)",
            f"--batch {batch // GROUP_SIZE * GROUP_SIZE}",
        )
    policy: tuple[str, ...] = ("color", "translation") if augment == "diffaug" else ()
    if cutout and policy:
        policy += ("cutout",)
    network = describe_network(resolution, channel_base, channel_max, w_dim, mapping_layers)
    config = TrainConfig(
        network,
        batch=batch,
        lr=lr,
        gamma=gamma,
        ema_kimg=ema_kimg,
        augment=policy,
        mirror=mirror,
        seed=seed,
    )
    chosen = choose_device(device)
    return TrainingPlan(data, run_dir, config, chosen, choose_bf16(precision, chosen), licence)
