"""One training at a time in a run folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import IO

from pulse_sr.errors import UsageError

try:
    import fcntl
except ImportError:  # Windows: there the folder is not guarded
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".lock"


def lock_run(run_dir: Path) -> IO[str]:
    """Claim a run folder until the returned file is closed or the process ends, however it ends.

    Raises:
        UsageError: when another process trains there.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    file = open(run_dir / LOCK_NAME, "a+")  # noqa: SIM115  the lock lives as long as the file
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            file.close()
            raise UsageError(
                f"another process ({owner}) trains in {run_dir}", "wait, or give another -o folder"
            ) from error
    file.truncate(0)
    file.write(f"process {os.getpid()}\n")
    file.flush()
    return file
