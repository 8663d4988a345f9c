"""What any training run needs before its loop: a device, a batch that fits it, claim and data."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch

from pulse_sr.data.cache import CachedImages, Progress, cache_images
from pulse_sr.data.open import open_source
from pulse_sr.data.picture import make_side_folder
from pulse_sr.data.sources import ImageSource
from pulse_sr.devices import choose_bf16, choose_device, keep_freed_memory
from pulse_sr.errors import SetupError, UsageError
from pulse_sr.files.atomic import remove_leftovers
from pulse_sr.files.lock import LOCK_NAME, lock_run
from pulse_sr.images.places import check_place, refuse_inputs
from pulse_sr.priors.files import FILE_NAME
from pulse_sr.training.checkpoint import STATE_NAME, read_checkpoint_header
from pulse_sr.training.options import MachineOptions
from pulse_sr.training.processes import Processes

#: What runs write, as far as somebody else may have files of these names.
RUN_FILES = (
    *(FILE_NAME, STATE_NAME, "best.safetensors", "latents.safetensors", "README.md"),
    *("log.jsonl", "scores.jsonl", "curves.png", "interpolation.png", "neighbours.png"),
)


@dataclass(frozen=True)
class Machine:
    """Where a run computes, and what it may take.

    Attributes:
        device: where the networks live.
        bf16: run the networks in bfloat16 autocast.
        max_memory: bytes that a step may take; None: what the device has.
        compile: run the networks through torch.compile.
        processes: who shares the work.
    """

    device: torch.device
    bf16: bool
    max_memory: int | None
    compile: bool
    processes: Processes

    def describe(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "device": str(self.device),
            "precision": "bf16" if self.bf16 else "fp32",
            "max_memory": self.max_memory,
            "processes": self.processes.count,
        }


def choose_machine(options: MachineOptions, processes: Processes) -> Machine:
    """Resolve what the user says of the machine; of several processes each takes its own GPU.

    Raises:
        SetupError: for a device that does not exist.
    """
    device = options.device
    if processes.count > 1 and device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{processes.local_rank}"
    chosen = choose_device(device)
    bf16 = choose_bf16(options.precision, chosen)
    return Machine(chosen, bf16, options.max_memory, options.compile, processes)


def open_images(data: str | os.PathLike[str], member: str | None) -> ImageSource:
    """The images to train on, as `open_source` finds them.

    Raises:
        UsageError: there is no such thing, or there are no images in it.
        InputError: an idx file is damaged.
    """
    source = open_source(data, member)
    if not source.names:
        words = f"{source.location} holds no images{source.left_out_words()}"
        raise UsageError(words, "give a folder, tars or zips of images")
    return source


def check_batch(batch: int, group: int, processes: int) -> None:
    """Accept a batch that can be dealt out evenly.

    Args:
        batch: items per step over all processes.
        group: so many items stay in one part.
        processes: how many share the batch.

    Raises:
        UsageError: for any other one.
    """
    unit = processes * group
    if (batch > group or processes > 1) and batch % unit:
        raise UsageError(
            f"--batch is {batch}, expected a multiple of {unit}"
            + (f" for {processes} processes" if processes > 1 else " (or less than that)"),
            f"--batch {max(1, batch // unit) * unit}",
        )


def check_run_folder(data: str | os.PathLike[str], source: ImageSource, run_dir: Path) -> None:
    """Refuse a folder in which a run would write over files that are not its own.

    Args:
        data: what the user named as the data.
        source: what that is.
        run_dir: folder of the run.

    Raises:
        UsageError: the data lie in it; or it has files of such names, but no run began in it.
    """
    named = Path(data)
    files = [named] if os.path.lexists(named) else [Path(name) for name in source.stamps()]
    refuse_inputs(files, run_dir, below=[run_dir])
    if _began(run_dir):
        return
    check_place(run_dir, [run_dir / name for name in RUN_FILES], error=UsageError)


def _began(run_dir: Path) -> bool:
    """Whether a run claimed the folder, or left its state there."""
    try:
        if (run_dir / LOCK_NAME).read_text("utf-8").startswith("process "):
            return True
    except (OSError, ValueError):
        pass
    try:
        read_checkpoint_header(run_dir / STATE_NAME)
    except SetupError:
        return False
    return True


def claim_and_cache(
    data: ImageSource,
    run_dir: Path,
    resolution: int,
    processes: Processes,
    progress: Progress | None = None,
) -> tuple[IO[str] | None, CachedImages]:
    """Claim a run folder and decode the images into it as squares.

    Args:
        data: where the images come from.
        run_dir: folder of the run.
        resolution: of the squares.
        processes: who shares the work; the first one claims the folder.
        progress: called after each image that is decoded.

    Returns:
        the claim, held until it is closed, and the images.

    Raises:
        UsageError: another process trains in the folder.
        InputError: too few images can be read.
        SetupError: the disk is full.
    """
    lock = claim(run_dir, processes)
    return lock, cache_images(data, run_dir, resolution, progress)


def claim(run_dir: Path, processes: Processes) -> IO[str] | None:
    """Claim a run folder, before any other work; clears it of what killed runs had half written.

    Args:
        run_dir: folder of the run.
        processes: who shares the work; the first one claims the folder.

    Returns:
        the claim, held until it is closed.

    Raises:
        UsageError: another process trains in the folder.
    """
    keep_freed_memory()
    if not processes.first:
        return None
    lock = lock_run(run_dir)
    remove_leftovers(run_dir)
    make_side_folder(run_dir)
    return lock
