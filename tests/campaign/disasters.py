"""What machines and people do while a command runs: one line at most, and the next call finishes.

Each disaster sets the place up, disturbs one call, is over, and the same command is called again:
it has to end with the bytes of an undisturbed run.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from campaign.children import Outcome, limit_memory
from campaign.commands import OWN, OWN_TEXT, copy_place
from campaign.judging import CODES, fault_of
from campaign.kills import PATIENCE, Undisturbed, run_undisturbed

Disaster = Callable[[Undisturbed, Path, random.Random], Outcome]


def full_disk(usual: Undisturbed, place: Path, rng: random.Random) -> Outcome:
    """The n-th file that is flushed finds no room, and none after it does."""
    first = rng.randrange(6)

    def before() -> None:
        calls, flush = itertools.count(), os.fsync

        def fsync(descriptor: int) -> None:
            if next(calls) >= first:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            flush(descriptor)

        os.fsync = fsync

    return usual.command.start(place, before).end(PATIENCE)


def small_disk(usual: Undisturbed, place: Path, rng: random.Random) -> Outcome:
    """A file system with room for some of the result; then it gets larger."""
    with _mounted(place / "out", f"size={rng.choice((4, 16, 64, 256))}k") as remount:
        outcome = usual.command.start(place).end(PATIENCE)
        remount("size=100m")
        # The result has to outlive the file system.
        usual.command.start(place).end(PATIENCE)
        shutil.copytree(place / "out", place / "kept")
    shutil.rmtree(place / "out")
    (place / "kept").rename(place / "out")
    return outcome


def read_only(usual: Undisturbed, place: Path, rng: random.Random) -> Outcome:
    """The folder of results can not be written."""
    with _mounted(place / "out", "size=100m") as remount:
        remount("ro")
        return usual.command.start(place).end(PATIENCE)


def target_removed(usual: Undisturbed, place: Path, rng: random.Random) -> Outcome:
    """Somebody removes the folder of results."""
    child = usual.command.start(place)
    child.run_for(rng.uniform(0, usual.seconds))
    shutil.rmtree(place / "out", ignore_errors=True)
    return child.end(PATIENCE)


def input_removed(usual: Undisturbed, place: Path, rng: random.Random) -> Outcome:
    """Somebody takes a file away that is read, or about to be; later it is there again."""
    child = usual.command.start(place)
    files = sorted(path for path in (place / "in").rglob("*") if path.is_file())
    child.run_for(rng.uniform(0, usual.seconds / 2))
    taken = rng.choice(files)
    taken.rename(place / "taken")
    outcome = child.end(PATIENCE)
    (place / "taken").rename(taken)
    return outcome


def little_memory(usual: Undisturbed, place: Path, rng: random.Random) -> Outcome:
    """The process may not have more than so many MB."""
    megabytes = rng.choice((2, 8, 32, 64, 128))
    return usual.command.start(place, lambda: limit_memory(megabytes)).end(PATIENCE)


def gpu_memory(usual: Undisturbed, place: Path, rng: random.Random) -> Outcome:
    """What a GPU without memory says, at some operation or at all from there on."""
    first, all_after = rng.randrange(400), rng.random() < 0.5

    def before() -> None:
        calls = itertools.count()

        def scarce(function: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **named: Any) -> Any:
                call = next(calls)
                if call == first or (all_after and call > first):
                    raise torch.cuda.OutOfMemoryError("CUDA out of memory. (a test)")
                return function(*arguments, **named)

            return run

        functional = torch.nn.functional
        for name in ("conv2d", "linear", "interpolate", "leaky_relu"):
            setattr(functional, name, scarce(getattr(functional, name)))

    return usual.command.start(place, before).end(PATIENCE)


def clock_jumps(usual: Undisturbed, place: Path, rng: random.Random) -> Outcome:
    """The wall clock goes back and forth by up to years."""
    seed = rng.random()

    def before() -> None:
        jumps, clock = random.Random(seed), time.time

        time.time = lambda: clock() + jumps.choice((0, -1e8, 1e8, -3600, 3600))
        time.time_ns = lambda: int(time.time() * 1e9)

    return usual.command.start(place, before).end(PATIENCE)


#: Name -> what happens.
DISASTERS: dict[str, Disaster] = {
    "disk full": full_disk,
    "small disk": small_disk,
    "read-only target": read_only,
    "target removed": target_removed,
    "input removed": input_removed,
    "little memory": little_memory,
    "GPU memory": gpu_memory,
    "clock jumps": clock_jumps,
}
#: They need the right to mount.
MOUNTING = ("small disk", "read-only target")


def strike(name: str, count: int, seed: int, work: Path) -> Iterator[tuple[str, str]]:
    """Let each disaster happen to a command `count` times.

    Yields:
        the disaster, and what went wrong, empty for nothing.
    """
    usual = run_undisturbed(name, work)
    for disaster, happen in DISASTERS.items():
        if disaster in MOUNTING and not can_mount(work):
            continue
        for trial in range(count):
            rng = random.Random(f"{seed}/{name}/{disaster}/{trial}")
            place = copy_place(usual.place, work / f"{disaster} {trial}".replace(" ", "-"))
            wrong = fault_of(happen(usual, place, rng), CODES)
            wrong = wrong or _finish(usual, place)
            yield disaster, wrong and f"{disaster}, trial {trial}: {wrong}"
            if not wrong:
                shutil.rmtree(place)


def _finish(usual: Undisturbed, place: Path) -> str:
    own = place / "out" / OWN
    if not own.exists():  # the disaster took it
        own.parent.mkdir(exist_ok=True)
        own.write_text(OWN_TEXT)
    return usual.finish(place)


def can_mount(work: Path) -> bool:
    """Whether a file system in memory can be mounted here."""
    trial = work / "mount"
    trial.mkdir(exist_ok=True)
    try:
        with _mounted(trial, "size=64k"):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextlib.contextmanager
def _mounted(folder: Path, options: str) -> Iterator[Callable[[str], None]]:
    """A file system in memory at a folder; gives a function that changes its options."""

    def mount(*words: str) -> None:
        subprocess.run(["mount", *words, str(folder)], check=True, capture_output=True)

    mount("-t", "tmpfs", "-o", options, "tmpfs")
    try:
        yield lambda changed: mount("-o", f"remount,{changed}")
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)
