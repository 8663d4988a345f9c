"""Files that are either complete or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import time
from collections.abc import Iterable
from pathlib import Path

from pulse_sr.errors import SetupError, cut, first_line, is_disk_full

#: The names of temporary files: the process, and 48 random bits.
_TEMPORARY = re.compile(r"\.(\d{1,9})-[0-9a-f]{12}\.tmp")


def write_atomic(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes `data` to `path` so that readers see the old file or the whole new one.

    Raises:
        SetupError: the disk is full, or the place cannot be written.
    """
    write_parts_atomic(path, (data,))


def write_parts_atomic(path: str | os.PathLike[str], parts: Iterable[bytes]) -> None:
    """Writes the parts of a file one after the other: they need not be in memory together.

    The bytes go to a temporary file in the same folder (a rename to another file system is not
    atomic), are flushed to disk and renamed. On any failure the temporary file is removed and an
    existing file stays as it was.

    Raises:
        SetupError: the disk is full, or the place cannot be written.
    """
    target = Path(path)
    # Not the target's name: that may already be as long as the file system allows.
    temporary = target.parent / f".{os.getpid()}-{secrets.token_hex(6)}.tmp"
    size = 0
    try:
        try:
            with open(temporary, "xb") as file:
                for part in parts:
                    size += len(part)
                    file.write(part)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
        except BaseException:  # also Ctrl-C: no half-written file stays behind
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        raise _explain(error, target, size) from error
    _sync_folder(target.parent)


def write_text_atomic(path: str | os.PathLike[str], text: str) -> None:
    """Writes `text` as UTF-8 with `write_atomic`; newlines are kept as they are."""
    write_atomic(path, text.encode("utf-8"))


def remove_leftovers(folder: str | os.PathLike[str], older_than_s: float = 0.0) -> None:
    """Removes temporary files of processes that were killed while they wrote.

    Args:
        folder: where to look, without its folders; it need not exist.
        older_than_s: younger files stay. Zero only where no other machine writes to the folder:
            whether its processes are running can not be told from here.
    """
    if os.name != "posix":  # elsewhere no signal just asks whether a process is there
        return
    for path in Path(folder).glob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found is None or is_running(int(found[1])):
            continue
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime >= older_than_s:
                path.unlink()


def is_running(process: int) -> bool:
    """Whether there is a process of this number."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it belongs to somebody else
        return True
    return True


def _explain(error: OSError, target: Path, size: int) -> SetupError:
    if is_disk_full(error):
        return SetupError(
            f"the disk is full: could not write {size} bytes to {target}",
            "free some space or choose another folder with -o DIR; the same command resumes",
        )
    reason = error.strerror or type(error).__name__
    return SetupError(f"could not write {target}: {reason}", "choose another folder with -o DIR")


def _sync_folder(folder: Path) -> None:
    """Makes the rename itself survive a power cut, where the system can do that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Makes a folder and its parents.

    Raises:
        SetupError: it can not be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: there is a NUL in it
        reason = getattr(error, "strerror", None) or first_line(error)
        raise SetupError(
            f"could not make the folder {cut(str(folder))}: {reason}", "choose another with -o DIR"
        ) from error
