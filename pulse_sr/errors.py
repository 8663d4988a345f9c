"""Errors that end in one clear line for the user.

Every error names what happened to which thing (with the numbers), a hint with one command or
option, and the exit code that the command line returns for it.
"""

from __future__ import annotations

import errno
import os
import traceback
from types import ModuleType

#: Characters of a message or hint that are told; of more, the middle is left out.
LONGEST_MESSAGE = 700


class PulseError(Exception):
    """Base of all errors that users see as `error: ...` and `hint: ...`.

    Attributes:
        message: what happened to which thing, one line, `cut` where it is long.
        hint: one command or option that helps, `cut` likewise; empty if there is none.
        exit_code: the process exit code (see `docs/interface.md`).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = cut(message, LONGEST_MESSAGE)
        self.hint = cut(hint, LONGEST_MESSAGE)
        super().__init__(self.message)


class InputError(PulseError):
    """One input can not be used; the other inputs of the same call go on (exit code 1)."""

    exit_code = 1


class UsageError(PulseError):
    """The call is wrong: an option out of range, a path that does not exist (exit code 2)."""

    exit_code = 2


class SetupError(PulseError):
    """The environment is wrong: no such device, a damaged prior file, a full disk (exit code 3)."""

    exit_code = 3


def cut(text: str, most: int = 160) -> str:
    """A text for a message; of a long one the middle is left out."""
    if len(text) <= most:
        return text
    return f"{text[: most // 2]}...{text[-most // 4 :]} ({len(text)} characters)"


def shown(value: object) -> str:
    """A value as Python writes it, `cut`; a path as its text."""
    try:
        return cut(repr(os.fspath(value) if isinstance(value, os.PathLike) else value))
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number of thousands of digits"


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of the system says that no room is left, on the disk or for the user."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def first_line(error: BaseException) -> str:
    """The first line of what an error says, `cut`, or its kind where it says nothing."""
    return cut((str(error).strip().splitlines() or [type(error).__name__])[0])


def kind_and_line(error: BaseException) -> str:
    """The kind of an error and its `first_line`, where that alone may say too little."""
    return f"{type(error).__name__}: {first_line(error)}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory of the machine or of a GPU is used up."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    # torch's on a CPU, and Python's where a thread finds no room for its stack
    words = ("can't allocate memory", "not enough memory", "out of memory", "start new thread")
    return isinstance(error, RuntimeError) and any(each in str(error).lower() for each in words)


def describe_error(error: BaseException) -> tuple[str, str, int]:
    """Returns what to tell of an error: message, hint, exit code."""
    if isinstance(error, PulseError):
        return error.message, error.hint, error.exit_code
    line = first_line(error)
    if is_out_of_memory(error):
        return f"there is not enough memory: {line}", "smaller inputs, or fewer at once", 3
    if isinstance(error, RecursionError):
        return f"something is nested too deeply: {line}", "-v shows where it happened", 1
    broken = _broken_package(error)
    if broken:
        return f"{broken} can not be used: {line}", "pulse-sr doctor; or install it again", 3
    if isinstance(error, OSError):
        return _describe_system(error, line)
    if isinstance(error, ValueError) and line.startswith(("Exceeds the limit", "embedded null")):
        return f"a value is no number or name: {line}", "-v shows where it happened", 2
    return f"unexpected {type(error).__name__}: {line}", "-v shows where it happened", 1


def _describe_system(error: OSError, line: str) -> tuple[str, str, int]:
    if is_disk_full(error):
        return f"the disk is full: {line}", "free some space and run it again", 3
    reason = error.strerror or line
    where = "" if error.filename is None else f"{cut(os.fsdecode(error.filename))}: "
    if error.errno == errno.ENAMETOOLONG:
        return f"{where}{reason}", "choose a shorter name", 2
    return f"the system refuses: {where}{reason}", "-v shows where it happened", 3


def _broken_package(error: BaseException) -> str:
    """The package of others that is missing, or can not be imported; empty if none is to blame."""
    module = getattr(error, "obj", None)  # what an AttributeError did not find its name in
    if isinstance(module, ModuleType) and not _is_ours(module.__name__):
        return module.__name__.partition(".")[0]
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__"))
        if frame.f_code.co_name == "<module>" and not _is_ours(name):
            return name.partition(".")[0]
    return (error.name or "a package").partition(".")[0] if isinstance(error, ImportError) else ""


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in ("pulse_sr", "stylegan_ops", "__main__")
