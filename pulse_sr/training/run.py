"""A training run from a set of images: settings resolved, data cached, trainer ready."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pulse_sr.data.cache import CachedImages, Progress, cache_images
from pulse_sr.data.open import open_source
from pulse_sr.data.sources import ImageSource
from pulse_sr.devices import choose_bf16, choose_device, keep_freed_memory
from pulse_sr.errors import UsageError
from pulse_sr.files.lock import lock_run
from pulse_sr.metrics.efficientnet_lite import weights_file
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.augment.ada import AdaptiveAugment
from pulse_sr.training.augment.base import Augmentation, NoAugment
from pulse_sr.training.augment.diffaug import DiffAugment
from pulse_sr.training.gan.config import NetworkConfig, TrainConfig, recipe
from pulse_sr.training.gan.discriminator import GROUP_SIZE
from pulse_sr.training.gan.fastgan_objective import FastGANObjective
from pulse_sr.training.gan.heads import build_heads
from pulse_sr.training.gan.objective import Objective
from pulse_sr.training.gan.step import Step
from pulse_sr.training.gan.stylegan2_objective import StyleGAN2Objective
from pulse_sr.training.gan.transfer import (
    Continued,
    Source,
    begin_with,
    read_continued,
    read_source,
)
from pulse_sr.training.loop import Trainer
from pulse_sr.training.memory import MemoryPlan, fit_on_device, plan_memory
from pulse_sr.training.processes import Processes


@dataclass(frozen=True)
class TrainingPlan:
    """Everything resolved, nothing written yet.

    Attributes:
        data: where the images come from.
        run_dir: folder of the run.
        config: what decides the course of the run.
        device: where the networks live.
        bf16: run the networks in bfloat16 autocast.
        licence: of the weights, as the user states it.
        max_memory: bytes that a step may take; None: what the device has.
        compile: run the networks through torch.compile.
        source: the weights to begin with.
        continued: the state to begin with.
        processes: who shares the work.
    """

    data: ImageSource
    run_dir: Path
    config: TrainConfig
    device: torch.device
    bf16: bool
    licence: str
    max_memory: int | None = None
    compile: bool = False
    source: Source | None = field(default=None, repr=False)
    continued: Continued | None = None
    processes: Processes = field(default_factory=Processes)

    def describe(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        return self.config.to_json() | {
            "data": self.data.location,
            "out": str(self.run_dir),
            "device": str(self.device),
            "precision": "bf16" if self.bf16 else "fp32",
            "max_memory": self.max_memory,
            "processes": self.processes.count,
        }

    def start(self, progress: Progress | None = None) -> Trainer:
        """Decode the images, build the networks, and take up the run if there is one.

        Args:
            progress: called after each image that is decoded.

        Raises:
            UsageError: another process trains in the folder; a limit is too low; options differ
                from those the run was started with.
            InputError: too few images can be read.
            SetupError: the disk is full, or a state is damaged.
        """
        keep_freed_memory()
        lock = lock_run(self.run_dir) if self.processes.first else None
        resolution = self.config.network.resolution
        cached = cache_images(self.data, self.run_dir, resolution, progress)
        trainer = Trainer(
            cached.pixels,
            self.run_dir,
            self.config,
            self.build(cached.pixels),
            self._card(cached),
            cached.content_sha256,
            None if self.continued is None else self.continued.path,
        )
        trainer.lock = lock
        return trainer

    def _card(self, cached: CachedImages) -> dict[str, Any]:
        card: dict[str, Any] = {
            "data": f"{cached.images} images of {self.data.title}",
            "licence": self.licence,
        }
        alignment = self.data.alignment()
        if alignment is not None:
            card["alignment"] = alignment
        began = self.source or self.continued
        if began is not None:
            card["began_with"] = {"prior": began.header["name"], "sha256": began.sha256}
        return card

    def summary(self, trainer: Trainer) -> str:
        """One line on what is about to run."""
        objective, step = trainer.step.objective, trainer.step
        sizes = [
            sum(p.numel() for p in network.parameters()) / 1e6
            for network in (objective.generator, objective.discriminator)
        ]
        text = (
            f"{self.config.architecture} {self.config.network.resolution} px, "
            f"G {sizes[0]:.2f} M, D {sizes[1]:.2f} M parameters, {len(trainer.images)} images, "
            f"batch {self.config.batch}"
        )
        if step.micro_steps > 1:
            text += f" in {step.micro_steps} parts"
        if step.recompute:
            text += ", activations recomputed"
        if self.processes.count > 1:
            text += f", {self.processes.count} processes"
        return text + f", from {trainer.images_shown} shown"

    def build(self, images: np.ndarray) -> Step:
        """The networks on their device, from scratch or from `--init`, and how a batch is dealt.

        Args:
            images: uint8 `[N, 3, R, R]`, for fitting the stages that a grown discriminator has new.
        """
        objective = build_objective(self.config)
        for network in (objective.generator, objective.discriminator):
            network.to(memory_format=torch.channels_last).train()
        if self.source is not None:
            begin_with(self.source, objective, images)
        for network in (objective.generator, objective.discriminator):
            network.to(self.device)
        augmentation = build_augmentation(self.config)
        step = Step(
            objective,
            self.config,
            augmentation,
            self.device,
            self.processes,
            bf16=self.bf16,
            heads=build_heads(self.config, self.device),
        )
        self.fit(step)
        if self.compile:
            objective.compile()
        return step

    def fit(self, step: Step) -> None:
        """Deal batches out so that a step fits into `max_memory` and the device."""
        share = self.config.batch // self.processes.count
        plan = MemoryPlan(1, False, 0)
        with step.unchanged():
            if self.max_memory is not None:
                plan = plan_memory(step, self.max_memory, share)
            if self.device.type == "cuda":
                plan = fit_on_device(step, plan, self.max_memory, share)
        step.objective.set_recompute(plan.recompute)
        step.micro_steps, step.recompute = plan.micro_steps, plan.recompute


def build_objective(config: TrainConfig) -> Objective:
    """The networks of a config with random weights; torch's global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # initialisation takes no generator
        if isinstance(config.network, FastGANConfig):
            return FastGANObjective(config.network, config.loss, config.reconstruction)
        return StyleGAN2Objective(config.network, config.loss, config.mixing)


def build_augmentation(config: TrainConfig) -> Augmentation:
    """What a config says of augmentation."""
    if config.augment == "diffaug":
        return DiffAugment(config.policy)
    return AdaptiveAugment() if config.augment == "ada" else NoAugment()


def describe_network(
    architecture: str,
    resolution: int,
    source: Source | Continued | None = None,
    *,
    channel_base: int | None = None,
    channel_max: int | None = None,
    w_dim: int | None = None,
    mapping_layers: int | None = None,
    ngf: int | None = None,
) -> NetworkConfig:
    """The networks that the options ask for; what they leave open comes from `source`.

    Raises:
        UsageError: for a resolution that is no power of two, or widths of the other architecture.
    """
    own = (channel_base, channel_max, w_dim, mapping_layers)
    names = ("--channel-base", "--channel-max", "--w-dim", "--mapping-layers")
    foreign = ["--ngf"] if ngf is not None else []
    if architecture == "fastgan":
        foreign = [name for name, each in zip(names, own, strict=True) if each is not None]
    if foreign:
        raise UsageError(f"{foreign[0]} does not belong to --arch {architecture}", "leave it out")
    try:
        if architecture == "fastgan":
            return _describe_fastgan(resolution, source, ngf)
        if source is not None and all(each is None for each in own):
            return _grown(source.header["config"], resolution)
        defaults = (2048, 128, 128, 2)
        chosen = [d if o is None else o for o, d in zip(own, defaults, strict=True)]
        return StyleGAN2Config.from_base(resolution, *chosen)
    except ValueError as error:
        raise UsageError(f"--resolution: {error}", "use 32, 64, 128, 256, ...") from error


def _describe_fastgan(
    resolution: int, source: Source | Continued | None, ngf: int | None
) -> FastGANConfig:
    if source is not None and ngf is None:
        ngf = source.header["config"]["ngf"]
    return FastGANConfig(resolution, **({} if ngf is None else {"ngf": ngf}))


def _grown(config: dict[str, Any], resolution: int) -> StyleGAN2Config:
    """The generator of `config` at another resolution: each new block has half the width."""
    channels = list(config["channels"])
    levels = resolution.bit_length() - 2
    while len(channels) < levels:
        channels.append(max(channels[-1] // 2, 8))
    fields = config | {"resolution": resolution, "channels": tuple(channels[:levels])}
    return StyleGAN2Config(**fields)


def plan_training(
    data: str | os.PathLike[str],
    run_dir: Path,
    *,
    architecture: str = "stylegan2",
    resolution: int | None = None,
    batch: int | None = None,
    loss: str | None = None,
    lr: float | None = None,
    gamma: float | None = None,
    path_weight: float = 0.0,
    augment: str = "diffaug",
    cutout: bool = False,
    mirror: bool = True,
    freeze_d: int = 0,
    init: str | None = None,
    continued: str | None = None,
    ema_kimg: float | None = None,
    ema_bank: tuple[float, ...] = (),
    heads: str = "off",
    heads_weight: float | None = None,
    heads_warmup: float | None = None,
    licence: str = "unstated",
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    max_memory: int | None = None,
    compile: bool = False,
    processes: Processes | None = None,
    **widths: int | None,
) -> TrainingPlan:
    """Resolve the settings of a run; what is None follows the architecture (`config.recipe`).

    Args:
        data: folder of images, tar or pattern of tars.
        run_dir: folder of the run.
        architecture: "stylegan2" or "fastgan".
        resolution: R; None: the largest power of two that the data supports.
        batch: images per step over all processes; None: 16, FastGAN 8.
        init: prior or folder of a run whose weights to begin with.
        continued: folder of a run whose whole state to begin with.
        heads_warmup: in thousands of images, from the beginning of this run.
        widths: `channel_base`, `channel_max`, `w_dim`, `mapping_layers` (StyleGAN2), `ngf`.

    The others are those of `TrainConfig` and `TrainingPlan`.

    Raises:
        UsageError: for a folder that does not exist or a value out of range.
        SetupError: for a device that does not exist.
    """
    processes = processes or Processes()
    source = None if init is None else read_source(init)
    state = None if continued is None else read_continued(continued)
    if source is not None and state is not None:
        raise UsageError("--init and --continue both say what to begin with", "give one of them")
    began = source or state
    if began is not None:
        _check_architecture(init or continued, began, architecture)
    images = open_source(data)
    if resolution is None:
        resolution = images.largest_resolution()
    if batch is None:
        batch = 8 if architecture == "fastgan" else 16
    _check_batch(architecture, batch, processes.count)
    if architecture == "fastgan" and path_weight:
        raise UsageError("--path-length is for StyleGAN2, --arch is fastgan", "leave it out")
    if cutout and augment != "diffaug":
        raise UsageError(f"--cutout belongs to --augment diffaug, not to {augment}", "leave it out")
    if freeze_d and source is None:
        raise UsageError("--freeze-d keeps what --init gave, there is no --init", "--init PRIOR")
    settings = recipe(architecture, loss, resolution, batch)
    own = {"loss": loss, "lr": lr, "gamma": gamma, "ema_kimg": ema_kimg}
    own |= _heads(heads, heads_weight, heads_warmup, 0 if state is None else state.images)
    settings |= {name: value for name, value in own.items() if value is not None}
    policy = ("color", "translation", "cutout") if cutout else ("color", "translation")
    config = TrainConfig(
        describe_network(architecture, resolution, began, **widths),
        batch=batch,
        path_weight=path_weight,
        augment=augment,
        policy=policy,
        mirror=mirror,
        freeze_d=freeze_d,
        ema_bank=ema_bank,
        init="" if began is None else began.sha256,
        seed=seed,
        **settings,
    )
    chosen = choose_device(f"cuda:{processes.local_rank}" if _on_gpu(device, processes) else device)
    bf16 = choose_bf16(precision, chosen)
    return TrainingPlan(
        images,
        run_dir,
        config,
        chosen,
        bf16,
        licence,
        max_memory,
        compile,
        source,
        state,
        processes,
    )


def _check_architecture(name: str | None, began: Source | Continued, architecture: str) -> None:
    """Raises UsageError when a run begins with a prior or a run of another architecture."""
    found = began.header["architecture"]
    if found != architecture:
        option, what = ("--init", "prior") if isinstance(began, Source) else ("--continue", "run")
        raise UsageError(
            f"{option} {name} is a {found} {what}, --arch is {architecture}", f"--arch {found}"
        )


def _heads(name: str, weight: float | None, warmup: float | None, shown: int) -> dict[str, Any]:
    """The settings of the heads; what is None follows `TrainConfig`.

    Args:
        name: out of `config.HEADS`.
        weight: of the heads for G.
        warmup: in thousands of images, from the beginning of the run.
        shown: images that were shown before the run begins.

    Raises:
        UsageError: for a weight or a warm-up without heads.
        SetupError: when the weights of their network are not installed.
    """
    if name == "off":
        for option, value in (("--heads-weight", weight), ("--heads-warmup", warmup)):
            if value is not None:
                raise UsageError(f"{option} is of heads, --heads is off", "leave it out")
    if name == "efficientnet-lite0":
        weights_file()  # before the images are decoded
    images = TrainConfig.heads_warmup if warmup is None else int(warmup * 1000)
    return {"heads": name, "heads_weight": weight, "heads_warmup": shown + images}


def _on_gpu(device: str, processes: Processes) -> bool:
    """Whether each process takes the GPU of its own number."""
    return processes.count > 1 and device in ("auto", "cuda") and torch.cuda.is_available()


def _check_batch(architecture: str, batch: int, processes: int) -> None:
    group = GROUP_SIZE if architecture == "stylegan2" else 1
    unit = processes * group
    if (batch > group or processes > 1) and batch % unit:
        raise UsageError(
            f"--batch is {batch}, expected a multiple of {unit}"
            + (f" for {processes} processes" if processes > 1 else " (or less than that)"),
            f"--batch {max(1, batch // unit) * unit}",
        )
