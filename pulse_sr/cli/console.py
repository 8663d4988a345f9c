"""What goes to the terminal: messages and progress to stderr, results to stdout."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import click

from pulse_sr.errors import LONGEST_MESSAGE, SetupError, cut, describe_error
from pulse_sr.files.documents import json_text

# Where the options of a command leave what the error handler needs (`click.Context.meta`).
VERBOSE_KEY = "pulse_sr.verbose"
JSON_KEY = "pulse_sr.json"

#: Exit codes after SIGINT and SIGTERM.
INTERRUPTED, TERMINATED = 130, 143


class Terminated(BaseException):
    """SIGTERM arrived. Not an `Exception`: nothing but the command line should catch it."""


class Console:
    """Lines and one live progress line on stderr.

    Args:
        quiet: only errors.
        verbose: also the library's debug messages, with tracebacks.
        as_json: whether the result is one JSON document.
    """

    def __init__(
        self, *, quiet: bool = False, verbose: bool = False, as_json: bool = False
    ) -> None:
        self.quiet, self.as_json = quiet, as_json
        #: Changes what is printed: paths of this machine that stand for URLs.
        self.named: Callable[[str], str] = lambda text: text
        #: Loggers, with those below, of which only errors are printed.
        self.muted: tuple[str, ...] = ()
        self._terminal = sys.stderr is not None and sys.stderr.isatty() and not quiet
        self._live = False
        _set_up_logging(self, verbose)

    def live(self, text: str) -> None:
        """Shows `text` in place of the previous live line; does nothing without a terminal."""
        if self._terminal:
            width = max(20, _terminal_width() - 1)
            sys.stderr.write("\r\x1b[2K" + printable(self.named(text))[:width])
            sys.stderr.flush()
            self._live = True

    def line(self, text: str) -> None:
        """Prints a line, unless quiet."""
        if not self.quiet:
            self._print(text)

    def error(self, message: str, hint: str = "") -> None:
        """Prints an error and its hint, also when quiet."""
        self.clear()
        print_error(self.named(message), self.named(hint))

    def json(self, document: Any) -> None:
        """Prints the one JSON document of `--json`; raises as `print_result`."""
        emit_json(document, self.named)

    def text(self, text: str) -> None:
        """Prints a result; raises as `print_result`."""
        print_result(self.named(text))

    def clear(self) -> None:
        """Removes the live line."""
        if self._live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()
            self._live = False

    def _print(self, text: str) -> None:
        self.clear()
        say(printable(self.named(text)))


def print_error(message: str, hint: str = "") -> None:
    """Prints `error: ...` and, if there is one, `hint: ...`, each on one line of stderr."""
    say(f"error: {cut(printable(message), LONGEST_MESSAGE)}")
    if hint:
        say(f"hint: {cut(printable(hint), LONGEST_MESSAGE)}")


def say(text: str) -> None:
    """Prints a line on stderr; one that can not be written is no reason to stop."""
    try:
        click.echo(text, err=True)
    except (OSError, ValueError):
        give_up(sys.stderr)


def print_result(text: str) -> None:
    """Prints results on stdout; names that it has no letters for are escaped.

    Raises:
        SetupError: stdout is closed, a pipe that nobody reads, or on a full disk.
    """
    reason = "it is closed"
    if sys.stdout is not None:
        encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        try:
            click.echo(text.encode(encoding, "backslashreplace").decode(encoding))
            return
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or reason
            give_up(sys.stdout)
    raise SetupError(f"stdout can not be written: {reason}", "write it to a file: > FILE")


def give_up(stream: TextIO | None) -> None:
    """Lets nothing more be tried: at its end Python writes what is left in the buffer."""
    if stream is not None:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def emit_json(document: Any, named: Callable[[str], str] = str) -> None:
    """Prints the one JSON document of `--json` on stdout, as `named` changes its text.

    Raises:
        SetupError: see `print_result`.
    """
    context = click.get_current_context(silent=True)
    if context is not None:
        context.meta[JSON_KEY] = False  # an error after it has no document of its own
    print_result(named(json_text(document, indent=2)))


def exit_code_now(usual: int) -> int:
    """The exit code of a command that ends here: that of the error on its way, else the usual."""
    stop = sys.exception()
    if stop is None:
        return usual
    if isinstance(stop, Terminated):
        return TERMINATED
    return INTERRUPTED if isinstance(stop, KeyboardInterrupt) else describe_error(stop)[2]


def printable(text: str) -> str:
    """Returns `text` on one line, without control characters (file names may hold them)."""
    return "".join(each if each.isprintable() else "?" for each in " ".join(text.splitlines()))


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Returns rows of equal length as aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def progress_bar(done: int, total: int, seconds: float, width: int = 24) -> str:
    """Returns a bar with how many of `total` are done and how long the rest may take."""
    filled = width * done // max(total, 1)
    left = seconds / done * (total - done) if done else 0.0
    rest = f"{left / 60:.0f} min left" if left >= 120 else f"{left:.0f} s left"
    return f"[{'#' * filled}{'-' * (width - filled)}] {done}/{total}, {rest}"


class Pace:
    """The live line of how a job with `total` inputs goes on: done, failed, speed, time left."""

    def __init__(self, console: Console, total: int) -> None:
        self.console, self.total, self._started = console, total, time.monotonic()

    def show(self, done: int, failed: int) -> None:
        """Shows that so many inputs are told of, of which so many failed."""
        seconds = time.monotonic() - self._started
        bar = progress_bar(done, self.total, seconds)
        lost = f", {failed} failed" if failed else ""
        self.console.live(f"{bar}, {done / max(seconds, 1e-9):.2f} images/s{lost}")


def show_plan(
    console: Console,
    settings: dict[str, Any],
    listed: dict[str, list[Any]],
    rows: Sequence[tuple[str, ...]],
) -> int:
    """Shows what a command would do: the inputs `listed` in the document or as `rows`; gives 0.

    Of a setting that is described by many entries, such as a network, people see the name.
    """
    if console.as_json:
        console.json({"dry_run": True, "settings": settings, **listed})
    else:
        words = {
            name: str(value["name"] if isinstance(value, dict) and "name" in value else value)
            for name, value in settings.items()
        }
        console.text(table(list(words.items())) + "\n")
        console.text(table(rows))
    return 0


class _Lines(logging.Handler):
    """Prints log records as our own kind of lines; what is found again is not said again."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self.console, self._said = console, set[str]()

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.ERROR and record.name.startswith(self.console.muted):
            return
        if getattr(record, "live", False):  # progress
            self.console.live(record.getMessage())
            return
        text = f"{record.levelname.lower()}: {record.getMessage()}"
        if text in self._said and record.levelno == logging.WARNING:
            return
        self._said.add(text)
        self.console.line(text)
        if record.exc_info:
            formatter = logging.Formatter()
            say(formatter.formatException(record.exc_info))


def _set_up_logging(console: Console, verbose: bool) -> None:
    # The ops say at level INFO that they are being compiled: a minute without a word is too long.
    for name, level in (("pulse_sr", logging.WARNING), ("stylegan_ops", logging.INFO)):
        logger = logging.getLogger(name)
        for handler in [each for each in logger.handlers if isinstance(each, _Lines)]:
            logger.removeHandler(handler)
        logger.addHandler(_Lines(console))
        logger.setLevel(logging.DEBUG if verbose else level)
        logger.propagate = False
    # So is the time that a seed bank takes.
    logging.getLogger("pulse_sr.priors.bank").setLevel(logging.INFO)


def _terminal_width() -> int:
    import shutil

    return shutil.get_terminal_size().columns
