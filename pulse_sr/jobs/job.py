"""A job: many inputs, each of which a worker takes to a record and a row of the manifest.

Nothing here knows what is done with an input. `searching` and `aligning` say so with their workers;
an executor (`executors.local`) has them do it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from pulse_sr.errors import SetupError
from pulse_sr.jobs.manifest import Index

T = TypeVar("T")  # a task: what is to be done with one input; it can be sent to another process
Q = TypeVar("Q")  # a request: the input as read
A = TypeVar("A")  # an answer: what the work found
R = TypeVar("R")  # a record: what is told of the input when it is on disk
T_in = TypeVar("T_in", contravariant=True)
R_out = TypeVar("R_out", covariant=True)


class Worker(Protocol[T_in, Q, A, R_out]):
    """What is done with the inputs of a job.

    SetupError of any method ends the job; any other error that reading an input raises fails that
    input alone.
    """

    def known(self, task: T_in) -> R_out | None:
        """Returns the record of an input that there is nothing to do with, else None."""

    def read(self, place: int, task: T_in) -> Q:
        """Reads an input, beside the work; `place` is that of its task in the job."""

    def failed(self, task: T_in, error: Exception, seconds: float) -> R_out:
        """Writes down that an input could not be read."""

    def work(self, requests: Iterable[Q]) -> Generator[tuple[Q, A], None, None]:
        """Takes requests when it has room for them; gives what it found, in any order."""

    def place(self, request: Q) -> int:
        """Returns the place that `read` was told."""

    def write(self, request: Q, answer: A) -> R_out:
        """Writes what was found, or that it failed: beside the work, several at the same time."""


class Executor(Protocol):
    """Has a worker do tasks, here or elsewhere."""

    def __call__(self, tasks: Sequence[T], worker: Worker[T, Q, A, R]) -> Iterator[R]:
        """Yields the records in the order of the tasks.

        What was found is written and told in any case, also where an error or an interruption ends
        the job.
        """


@dataclass(frozen=True)
class Job(Generic[T, Q, A, R]):
    """What can be carried out.

    Attributes:
        tasks: what is to be done with each input.
        worker: does it.
        index: of the folder.
        report: writes the pages about the whole folder.
    """

    tasks: Sequence[T]
    worker: Worker[T, Q, A, R]
    index: Index
    report: Callable[[Path], None]

    def carry_out(self, executor: Executor) -> Generator[R, None, None]:
        """Yields a record after each input.

        The manifest is complete and the report is written at the end, whatever ends the job.
        """
        try:
            yield from executor(self.tasks, self.worker)
        except BaseException:
            with contextlib.suppress(SetupError):  # what ended the job is the thing to say
                self._finish()
            raise
        self._finish()

    def _finish(self) -> None:
        self.index.flush()
        self.report(self.index.out)
