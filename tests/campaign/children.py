"""A command in a forked process: all is imported already, so that a call costs no start.

The parent does no arithmetic and starts no thread before it forks.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import pkgutil
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: What a call may take: seconds of a processor, MB; seconds of the wall, after which it waits for
#: something that does not come, however busy the machine is.
SECONDS, MEGABYTES, WALL = 20.0, 2048, 120.0
#: What others import late, seconds of a call: optimizers of torch, plots.
_LATE = ("torch._dynamo", "matplotlib.backends.backend_agg", "matplotlib.figure")
#: The exit code of a child in which something outside the command failed.
BROKEN = 99


@dataclass(frozen=True)
class Outcome:
    """How a call ended.

    Attributes:
        code: the exit code; minus the signal that ended it.
        stdout, stderr: what it said.
        seconds: how long it took.
        processor: seconds that it computed.
        megabytes: the most memory that it held, that of the parent included.
        hung: whether it was ended because it took too long.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    processor: float
    megabytes: float
    hung: bool = False


def import_all() -> None:
    """Import what commands import late, once, before anything is forked."""
    import torch

    import pulse_sr

    torch.set_num_threads(1)
    for package in (pulse_sr, importlib.import_module("stylegan_ops")):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith("__main__"):
                with contextlib.suppress(ImportError):  # an extra that is not installed
                    importlib.import_module(found.name)
    for name in _LATE:
        importlib.import_module(name)


class Child:
    """A call that is running."""

    def __init__(
        self, words: list[str], folder: Path, before: Callable[[], object] = lambda: None
    ) -> None:
        """Start it.

        Args:
            words: the command line, without the program's name.
            folder: where it runs.
            before: called in the child first: limits, patches.
        """
        self._said = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115  `end` closes them
        self._started = time.monotonic()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            self._be(words, folder, before)

    def _be(self, words: list[str], folder: Path, before: Callable[[], object]) -> None:
        """The child's whole life."""
        code = BROKEN
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's "&" has it ignored
            for number, file in enumerate(self._said, start=1):
                os.dup2(file.fileno(), number)
            os.chdir(folder)
            before()
            from pulse_sr.cli import main

            try:
                main(words, prog_name="pulse-sr")
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(bool(end.code))
        except KeyboardInterrupt:  # before the command line could catch it
            code = 128 + signal.SIGINT
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def send(self, number: int) -> None:
        """Send a signal, if it still runs."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def is_running(self) -> bool:
        """Whether it has not ended; it is not waited for."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def run_for(self, seconds: float) -> bool:
        """Wait until it ends, or that long; returns whether it still runs."""
        end = time.monotonic() + seconds
        while self.is_running():
            left = end - time.monotonic()
            if left <= 0:
                return True
            time.sleep(min(0.005, left))
        return False

    def end(self, seconds: float = WALL) -> Outcome:
        """Wait for its end; after so many seconds it is made to."""
        hung = self.run_for(seconds)
        if hung:
            self.send(signal.SIGKILL)
        _, status, used = os.wait4(self.pid, 0)
        took = time.monotonic() - self._started
        texts = []
        for file in self._said:
            file.seek(0)
            texts.append(file.read().decode("utf-8", "replace"))
            file.close()
        code = os.waitstatus_to_exitcode(status)
        processor = used.ru_utime + used.ru_stime
        return Outcome(code, *texts, took, processor, used.ru_maxrss / 1024, hung)


def call(
    words: list[str],
    folder: Path,
    before: Callable[[], object] = lambda: None,
    seconds: float = WALL,
) -> Outcome:
    """Run a command to its end in a process of its own."""
    return Child(words, folder, before).end(seconds)


def limit_memory(megabytes: int) -> None:
    """Let this process take so many MB of addresses more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + megabytes * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def in_child(function: Callable[[], object]) -> None:
    """Run a function in a process of its own, so that this one does no arithmetic."""
    pid = os.fork()
    if not pid:
        code = 0
        try:
            function()
        except BaseException:
            traceback.print_exc()
            code = BROKEN
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    if status:
        raise RuntimeError(f"a child ended with {os.waitstatus_to_exitcode(status)}")
