"""A training of a prior from a set of images: settings resolved, data cached, trainer ready."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pulse_sr.data.cache import CachedImages, Progress
from pulse_sr.data.order import ImageStream
from pulse_sr.data.sources import ImageSource
from pulse_sr.errors import UsageError
from pulse_sr.files.paths import check_out
from pulse_sr.metrics.efficientnet_lite import weights_file
from pulse_sr.priors.base import Prior
from pulse_sr.training.gan.build import build_step, describe_network
from pulse_sr.training.gan.config import TrainConfig, recipe
from pulse_sr.training.gan.discriminator import GROUP_SIZE
from pulse_sr.training.gan.options import GanOptions
from pulse_sr.training.gan.task import GanTask
from pulse_sr.training.gan.transfer import Continued, Source, read_continued, read_source
from pulse_sr.training.loop import Trainer
from pulse_sr.training.memory import fit_memory
from pulse_sr.training.processes import Processes
from pulse_sr.training.run import (
    Machine,
    check_batch,
    check_run_folder,
    choose_machine,
    claim_and_cache,
    open_images,
)


class PriorTrainer(Trainer):
    """The loop with the training of a prior in it, as `jobs.training` follows it."""

    task: GanTask
    stream: ImageStream

    @property
    def config(self) -> TrainConfig:
        """Everything that decides the course of the run."""
        return self.task.config

    @property
    def images(self) -> np.ndarray:
        """uint8 `[N, 3, R, R]`, what is learned from."""
        return self.stream.images

    def prior(self) -> Prior:
        """The averaged generator as a prior, ready for a search."""
        return self.task.prior(self.averages.first, self.facts())


@dataclass(frozen=True)
class TrainingPlan:
    """Everything resolved, nothing written yet.

    Attributes:
        data: where the images come from.
        run_dir: folder of the run.
        config: what decides the course of the run.
        machine: where it computes.
        licence: of the weights, as the user states it.
        source: the weights to begin with.
        continued: the state to begin with.
    """

    data: ImageSource
    run_dir: Path
    config: TrainConfig
    machine: Machine
    licence: str
    source: Source | None = field(default=None, repr=False)
    continued: Continued | None = None

    def describe(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        places = {"data": self.data.location, "out": str(self.run_dir)}
        places |= {} if self.data.member is None else {"member": self.data.member}
        return self.config.to_json() | places | self.machine.describe()

    def start(self, progress: Progress | None = None) -> PriorTrainer:
        """Decode the images, build the networks, and take up the run if there is one.

        Args:
            progress: called after each image that is decoded.

        Raises:
            UsageError: another process trains in the folder; a limit is too low; options differ
                from those the run was started with.
            InputError: too few images can be read.
            SetupError: the disk is full, or a state is damaged.
        """
        side = self.config.network.resolution
        lock, cached = claim_and_cache(
            self.data, self.run_dir, side, self.machine.processes, progress
        )
        trainer = PriorTrainer(
            ImageStream(cached.pixels, self.config.seed),
            self.run_dir,
            self._task(cached),
            cached.content_sha256,
            None if self.continued is None else self.continued.path,
        )
        trainer.lock = lock
        return trainer

    def _task(self, cached: CachedImages) -> GanTask:
        step = build_step(self.config, self.machine, self.source, cached.pixels)
        task = GanTask(step, self.run_dir.resolve().name, self._card(cached))
        fit_memory(task, self.machine.max_memory)
        if self.machine.compile:
            step.objective.compile()
        return task

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

    def summary(self, trainer: PriorTrainer) -> str:
        """One line on what is about to run."""
        gan, processes = trainer.task.gan, trainer.processes.count
        networks = (gan.objective.generator, gan.objective.discriminator)
        sizes = [sum(p.numel() for p in network.parameters()) / 1e6 for network in networks]
        text = (
            f"{self.config.architecture} {self.config.network.resolution} px, "
            f"G {sizes[0]:.2f} M, D {sizes[1]:.2f} M parameters, {len(trainer.images)} images"
            f"{self.data.left_out_words()}, "
            f"batch {self.config.batch}"
        )
        if gan.micro_steps > 1:
            text += f" in {gan.micro_steps} parts"
        if gan.recompute:
            text += ", activations recomputed"
        if processes > 1:
            text += f", {processes} processes"
        return text + f", from {trainer.images_shown} shown"


def plan_training(
    data: str | os.PathLike[str],
    run_dir: Path,
    options: GanOptions,
    processes: Processes | None = None,
) -> TrainingPlan:
    """Resolve the settings of a run.

    Args:
        data: folder of images, tar or pattern of tars; the largest power of two that it supports
            is the default of the resolution.
        run_dir: folder of the run.
        options: what the user says.
        processes: who shares the work.

    Raises:
        UsageError: for a folder that does not exist, options that do not go together, or a
            folder of the run that has other files (`check_run_folder`).
        SetupError: for a device that does not exist.
    """
    processes = processes or Processes()
    check_out(run_dir)
    architecture = options.architecture
    source, state = _read_beginning(options)
    began = source or state
    images = open_images(data, options.member)
    resolution = options.resolution
    if resolution is None:
        resolution = images.largest_resolution()
    batch = options.batch or (8 if architecture == "fastgan" else 16)
    check_batch(batch, GROUP_SIZE if architecture == "stylegan2" else 1, processes.count)
    _check_together(options)
    own = {name: getattr(options, name) for name in ("loss", "lr", "gamma", "ema_kimg")}
    own |= _heads(options, 0 if state is None else state.images)
    same = ("path_weight", "augment", "mirror", "freeze_d", "ema_bank", "seed")
    config = TrainConfig(
        describe_network(architecture, resolution, began, **options.widths),
        batch=batch,
        policy=("color", "translation", *(("cutout",) if options.cutout else ())),
        init="" if began is None else began.sha256,
        **{name: getattr(options, name) for name in same},
        **recipe(architecture, options.loss, resolution, batch)
        | {name: value for name, value in own.items() if value is not None},
    )
    machine = choose_machine(options, processes)
    check_run_folder(data, images, run_dir)
    return TrainingPlan(images, run_dir, config, machine, options.licence, source, state)


def _read_beginning(options: GanOptions) -> tuple[Source | None, Continued | None]:
    """The weights or the state to begin with, at most one of them.

    Raises:
        UsageError: for both, for none such, or for one of another architecture.
    """
    init, continued = options.init, options.continued
    source = None if init is None else read_source(init)
    state = None if continued is None else read_continued(continued)
    if source is not None and state is not None:
        raise UsageError("--init and --continue both say what to begin with", "give one of them")
    began = source or state
    if began is not None:
        _check_architecture(init or continued, began, options.architecture)
    return source, state


def _check_together(options: GanOptions) -> None:
    """Raises UsageError for an option that belongs to another choice."""
    if options.architecture == "fastgan" and options.path_weight:
        raise UsageError("--path-length is for StyleGAN2, --arch is fastgan", "leave it out")
    if options.cutout and options.augment != "diffaug":
        raise UsageError(
            f"--cutout belongs to --augment diffaug, not to {options.augment}", "leave it out"
        )
    if options.freeze_d and options.init is None:
        raise UsageError("--freeze-d keeps what --init gave, there is no --init", "--init PRIOR")
    if options.heads == "off":
        for name in ("heads_weight", "heads_warmup"):
            if getattr(options, name) is not None:
                raise UsageError(
                    f"--{name.replace('_', '-')} is of heads, --heads is off", "leave it out"
                )


def _check_architecture(name: str | None, began: Source | Continued, architecture: str) -> None:
    """Raises UsageError when a run begins with a prior or a run of another architecture."""
    found = began.header["architecture"]
    if found != architecture:
        option, what = ("--init", "prior") if isinstance(began, Source) else ("--continue", "run")
        raise UsageError(
            f"{option} {name} is a {found} {what}, --arch is {architecture}", f"--arch {found}"
        )


def _heads(options: GanOptions, shown: int) -> dict[str, Any]:
    """The settings of the heads; what is None follows `TrainConfig`.

    Args:
        options: what the user says.
        shown: images that were shown before the run begins.

    Raises:
        SetupError: when the weights of their network are not installed.
    """
    if options.heads == "efficientnet-lite0":
        weights_file()  # before the images are decoded
    warmup = options.heads_warmup
    images = TrainConfig.heads_warmup if warmup is None else int(warmup * 1000)
    return {
        "heads": options.heads,
        "heads_weight": options.heads_weight,
        "heads_warmup": shown + images,
    }
