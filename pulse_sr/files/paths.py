"""Paths that users name, looked at before they are opened: opening a pipe would wait for ever."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from pulse_sr.errors import SetupError, UsageError, cut

#: What may be wanted of a path.
FILE, FOLDER, EITHER = "a regular file", "a folder", "a file or a folder"
#: In bytes, what Linux takes; other systems take less and say so when a file is opened.
LONGEST_NAME, LONGEST_PATH = 255, 4095

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def problem_of_name(path: str | os.PathLike[str]) -> str:
    """What stands against the text of a path, in words that follow it; empty if nothing does."""
    try:
        name = os.fsencode(path)
    except UnicodeEncodeError:
        return "has letters that no file name can have"
    if not name:
        return "is empty"
    if b"\0" in name:
        return "has a NUL in it"
    longest = max(map(len, name.split(os.fsencode(os.sep))))
    if longest > LONGEST_NAME:
        return f"has a name of {longest} bytes in it, file systems take {LONGEST_NAME}"
    if len(name) > LONGEST_PATH:
        return f"has {len(name)} bytes, file systems take {LONGEST_PATH}"
    return ""


def problem_of(
    path: str | os.PathLike[str], wanted: str = EITHER, most_bytes: int | None = None
) -> str:
    """What stands against a path, in words that follow it; empty if nothing does.

    Nothing is opened, links are followed.

    Args:
        path: any text.
        wanted: `FILE`, `FOLDER` or `EITHER`.
        most_bytes: the limit of a file's size; None: any.
    """
    problem = problem_of_name(path)
    if problem:
        return problem
    try:
        found = os.stat(path)
    except OSError as error:
        return _why_not(error)
    kind = stat.S_IFMT(found.st_mode)
    fits = {FILE: (stat.S_IFREG,), FOLDER: (stat.S_IFDIR,)}
    if kind not in fits.get(wanted, (stat.S_IFREG, stat.S_IFDIR)):
        return f"is {_KINDS.get(kind, 'a file')}, not {FOLDER if wanted == FOLDER else FILE}"
    if most_bytes is not None and kind == stat.S_IFREG and found.st_size > most_bytes:
        return f"has {found.st_size} bytes, the limit is {most_bytes}"
    return ""


def real_path(path: str | os.PathLike[str]) -> Path:
    """The path without links; unlike `Path.resolve` also where links lead in a circle."""
    return Path(os.path.realpath(path))


def check_path(
    path: str | os.PathLike[str],
    wanted: str = FILE,
    most_bytes: int | None = None,
    *,
    called: str = "",
) -> Path:
    """Returns a path that is what is wanted of it, see `problem_of`.

    Args:
        path: any text.
        wanted: `FILE`, `FOLDER` or `EITHER`.
        most_bytes: the limit of a file's size; None: any.
        called: what stands before the path in the message, such as "--config ".

    Raises:
        UsageError: it is something else, or is not there.
    """
    problem = problem_of(path, wanted, most_bytes)
    if problem:
        raise UsageError(f"{called}{cut(os.fspath(path))} {problem}", "check the path")
    return Path(path)


def read_text(path: str | os.PathLike[str], most_bytes: int, *, called: str = "") -> str:
    """Returns the text of a small file that a user names; newlines are read as Python does.

    A byte order mark, which some editors put in front, is no part of it.

    Raises:
        UsageError: it is no regular file, too large, not UTF-8, or can not be read.
    """
    checked = check_path(path, FILE, most_bytes, called=called)
    try:
        return checked.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(
            f"{called}{checked} can not be read: {reason}", "check the file"
        ) from error


def check_out(path: str | os.PathLike[str], called: str = "") -> Path:
    """Returns the path of a folder that is there, or can be made, to write into.

    Raises:
        UsageError: the text is no path, or something else than a folder is there.
        SetupError: it can not be made or written.
    """
    problem = problem_of_name(path)
    if not problem and os.path.lexists(path):
        problem = problem_of(path, FOLDER)
    if problem:
        raise UsageError(
            f"{called}{cut(os.fspath(path))} {problem}", "choose another folder with -o DIR"
        )
    nearest = Path(path)
    while not os.path.lexists(nearest):
        nearest = nearest.parent
    problem = problem_of(nearest, FOLDER)
    if not problem and not os.access(nearest, os.W_OK | os.X_OK):
        problem = "can not be written"
    if problem:
        raise SetupError(
            f"{called}{cut(os.fspath(path))} can not be written: {nearest} {problem}",
            "choose another folder with -o DIR",
        )
    return Path(path)


def _why_not(error: OSError) -> str:
    if error.errno == errno.ELOOP:
        return "is a link that leads in a circle"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return "does not exist"
    return f"can not be looked at: {error.strerror}"
