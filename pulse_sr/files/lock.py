"""Locks between processes: they end with their process, however it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.files.atomic import make_folder

try:
    import fcntl
except ImportError:  # Windows: there nothing is guarded
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"


@contextlib.contextmanager
def folder_lock(folder: Path) -> Iterator[bool]:
    """Waits for the lock of a folder; gives False, and goes on without, where there are none."""
    if fcntl is None:
        yield False
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _locked(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)


def lock_run(run_dir: Path) -> IO[str]:
    """Claim a run folder until the returned file is closed or the process ends.

    Raises:
        UsageError: when another process trains there.
        SetupError: when the folder can not be made or written.
    """
    make_folder(run_dir)
    try:
        file = open(run_dir / LOCK_NAME, "a+")  # noqa: SIM115  the lock lives as long as the file
    except OSError as error:
        raise SetupError(
            f"{run_dir} can not be written: {error.strerror}", "choose another with -o DIR"
        ) from error
    if fcntl is not None and not _locked(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
        file.seek(0)
        owner = file.read().strip() or "unknown"
        file.close()
        raise UsageError(
            f"another process ({owner}) trains in {run_dir}", "wait, or give another -o folder"
        )
    file.truncate(0)
    file.write(f"process {os.getpid()}\n")
    file.flush()
    return file


def _locked(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except OSError:  # held by another one, or a network file system without locks
        return False
    return True
