"""A supervised training from a set of photos: settings resolved, patches found, trainer ready."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pulse_sr.data.crops import CropStream, Photos, list_photos
from pulse_sr.data.sources import ImageSource
from pulse_sr.errors import UsageError
from pulse_sr.files.paths import check_out
from pulse_sr.sr.files import SrModel
from pulse_sr.training.loop import Trainer
from pulse_sr.training.memory import fit_memory
from pulse_sr.training.options import KIMG
from pulse_sr.training.processes import Processes
from pulse_sr.training.run import (
    Machine,
    check_batch,
    check_run_folder,
    choose_machine,
    claim,
    open_images,
)
from pulse_sr.training.sr.build import build_step, check_recipe
from pulse_sr.training.sr.config import SrConfig
from pulse_sr.training.sr.low_res import Pairs
from pulse_sr.training.sr.options import SrOptions
from pulse_sr.training.sr.recipes import preset_names, read_recipe
from pulse_sr.training.sr.task import SrTask


class SrTrainer(Trainer):
    """The loop with a supervised training in it."""

    task: SrTask
    stream: CropStream

    @property
    def config(self) -> SrConfig:
        """Everything that decides the course of the run."""
        return self.task.config

    def model(self) -> SrModel:
        """The averaged generator as it would be written."""
        return self.task.model(self.averages.first, self.facts())


@dataclass(frozen=True)
class SrPlan:
    """Everything resolved, nothing written yet.

    Attributes:
        data: where the photos come from.
        run_dir: folder of the run.
        config: what decides the course of the run.
        machine: where it computes.
        licence: of the weights, as the user states it.
        weights: folder of the networks that losses look through; None: torch hub's.
    """

    data: ImageSource
    run_dir: Path
    config: SrConfig
    machine: Machine
    licence: str
    weights: Path | None = None

    def describe(self) -> dict[str, Any]:
        """The settings as plain JSON values."""
        recipe = {"title": self.config.title, "source": self.config.source}
        places = {"data": self.data.location, "out": str(self.run_dir)}
        places |= {} if self.data.member is None else {"member": self.data.member}
        return recipe | self.config.to_json() | places | self.machine.describe()

    def check(self) -> None:
        """Build the networks and losses as `start` would, and forget them.

        Raises:
            UsageError: a loss can not see patches of this size.
            SetupError: the weights that a loss stands on are missing or damaged.
        """
        build_step(self.config, self.machine, self.weights)

    def start(self) -> SrTrainer:
        """Read the headers of the photos, build the networks, take up the run if there is one.

        Raises:
            UsageError: another process trains in the folder; a limit is too low; options differ
                from those the run was started with.
            InputError: no photo is large enough.
            SetupError: the disk is full, or a state is damaged.
        """
        photos = list_photos(self.data, self.config.side)
        stream = CropStream(photos, self.config.side, self.config.seed, self.config.per_photo)
        step = build_step(self.config, self.machine, self.weights)
        task = SrTask(step, Pairs(self.config), self.run_dir.resolve().name, self._card(photos))
        fit_memory(task, self.machine.max_memory)
        if self.machine.compile:
            for module in task.modules().values():
                module.compile()
        lock = claim(self.run_dir, self.machine.processes)  # last: what is refused leaves no folder
        trainer = SrTrainer(stream, self.run_dir, task, photos.content_sha256)
        trainer.lock = lock
        return trainer

    def _card(self, photos: Photos) -> dict[str, Any]:
        data = f"{len(photos.positions)} photos of {self.data.title}"
        return {"data": data, "licence": self.licence}

    def summary(self, trainer: SrTrainer) -> str:
        """One line on what is about to run."""
        sizes = ", ".join(
            f"{name} {sum(p.numel() for p in module.parameters()) / 1e6:.2f} M parameters"
            for name, module in trainer.task.modules().items()
        )
        config, parts = self.config, trainer.task.sr.micro_steps
        text = (
            f"{config.network['architecture']} x{config.scale}, {sizes}, "
            f"{len(trainer.stream.photos.positions)} photos{self.data.left_out_words()}, "
            f"batch {config.batch} of {config.patch} px"
        )
        text += f" in {parts} parts" if parts > 1 else ""
        count = trainer.processes.count
        text += f", {count} processes" if count > 1 else ""
        return text + f", from {trainer.images_shown} shown"


def plan_sr_training(
    data: str | os.PathLike[str],
    run_dir: Path,
    options: SrOptions,
    kimg: float | None = None,
    processes: Processes | None = None,
) -> SrPlan:
    """Resolve the settings of a run; what is None follows the recipe.

    Args:
        data: as `open_source` takes it.
        run_dir: folder of the run.
        options: what the user says; the recipe is a name or a TOML file.
        kimg: thousands of patches of all phases together, which keep their proportions.
        processes: who shares the work.

    Raises:
        UsageError: for a folder or a recipe that does not exist, a value out of range, or a
            folder of the run that has other files (`check_run_folder`).
        SetupError: for a device that does not exist.
    """
    processes = processes or Processes()
    check_out(run_dir)
    if options.recipe is None:
        raise UsageError("no recipe is given", f"--config {', '.join(preset_names())}")
    config = read_recipe(options.recipe)
    config = replace(
        config,
        batch=config.batch if options.batch is None else options.batch,
        seed=config.seed if options.seed is None else options.seed,
    )
    if kimg is not None:
        config = config.stretched(KIMG.check(kimg, "kimg"))
    check_batch(config.batch, 1, processes.count)
    try:
        check_recipe(config)
    except UsageError as error:
        raise UsageError(f"recipe {options.recipe}: {error.message}", error.hint) from error
    machine = choose_machine(options, processes)
    source = open_images(data, options.member)
    check_run_folder(data, source, run_dir)
    return SrPlan(source, run_dir, config, machine, options.licence, options.weights)
