"""Errors that end in one clear line for the user.

Every error names what happened to which thing (with the numbers), a hint with one command or
option, and the exit code that the command line returns for it.
"""

from __future__ import annotations

import errno
import os


class PulseError(Exception):
    """Base of all errors that users see as `error: ...` and `hint: ...`.

    Attributes:
        message: what happened to which thing, one line.
        hint: one command or option that helps; empty if there is none.
        exit_code: the process exit code (see `docs/interface.md`).
    """

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


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
    """The first line of what an error says, or its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe_error(error: Exception) -> tuple[str, str, int]:
    """Returns what to tell of an error that fails one input: message, hint, exit code."""
    if isinstance(error, PulseError):
        return error.message, error.hint, error.exit_code
    message = f"unexpected {type(error).__name__}: {first_line(error)}"
    return message, "-v shows where it happened", 1
