"""The options of `train-sr`; imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pulse_sr.files.paths import FOLDER
from pulse_sr.options import Options, named, option, path, text, whole
from pulse_sr.training.options import KIMG, DataOptions, MachineOptions, ScheduleOptions


@dataclass(frozen=True)
class SrScheduleOptions(ScheduleOptions):
    """When a run stops and writes: times in seconds, patches in thousands."""

    kimg: float | None = option(
        None,
        "Thousands of patches in all; the phases keep their proportions.",
        KIMG,
        unset="the recipe's",
    )


@dataclass(frozen=True)
class SrOptions(DataOptions, MachineOptions):
    """What the user says of a training; what is None follows the recipe."""

    recipe: str | None = option(
        None,
        "The recipe: one of --list, or a file like those.",
        named("NAME|FILE.toml"),
        name="config",
    )
    batch: int | None = option(
        None, "Patches a step, over all processes.", whole(1, 65536), unset="the recipe's"
    )
    weights: Path | None = option(
        None,
        "Folder of the networks that losses look through (VGG, AlexNet).",
        path("a folder that exists", FOLDER),
        name="weights-dir",
        unset="torch hub's",
    )
    licence: str = option("unstated", "Licence of the weights, kept with them.", text("TEXT"))
    seed: int | None = option(
        None, "Of everything random.", whole(0, 2**63 - 1), unset="the recipe's, 0"
    )


@dataclass(frozen=True)
class SrObservation(Options):
    """What is looked at during a training.

    `command` is the command line, for the card; `member` the field of the held-back samples.
    """

    held_back: Path | None = option(
        None,
        "Photos that are not in DATA, of any form of it: PSNR on them is written down, the best "
        "network kept.",
        path("a path that exists"),
    )
    tensorboard: bool = option(False, "Write scalars and grids for TensorBoard too.")
    command: str = ""
    member: str | None = None
