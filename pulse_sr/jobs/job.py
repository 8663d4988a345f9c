"""A job: many inputs, each of which a worker takes to a record and a row of the manifest.

Nothing here knows what is done with an input. `searching` and `aligning` say so with their workers;
an executor (`executors.local`, `executors.ray`) has them do it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, Self, TypeVar

import torch

from pulse_sr.errors import SetupError
from pulse_sr.jobs.manifest import Index
from pulse_sr.jobs.task import Input

T = TypeVar("T", bound=Input)  # a task: what is to be done with one input; picklable
Q = TypeVar("Q")  # a request: the input as read
A = TypeVar("A")  # an answer: what the work found
R = TypeVar("R")  # a record: what is told of the input when it is on disk
T_in = TypeVar("T_in", bound=Input, contravariant=True)
R_out = TypeVar("R_out", covariant=True)


class Worker(Protocol[T_in, Q, A, R_out]):
    """What is done with the inputs of a job.

    SetupError of any method ends the job; any other error that reading an input raises fails that
    input alone.

    An executor may pickle a worker and use copies of it in other processes, whose rows of the
    manifest it puts into the index of this one.

    Attributes:
        index: the manifest.
        chunk: how many inputs a copy should get at a time, so that its stream is full.
    """

    index: Index
    chunk: int

    @property
    def prepare(self) -> Callable[[Q], Q] | None:
        """What `work` does first with a request if the rest of it depends on the inputs before.

        Then only `read` and this may be done in other processes.
        """

    def on(self, device: torch.device) -> Self:
        """Returns the worker with its networks on a device.

        Raises:
            SetupError: they can not be loaded there.
        """

    def among(self, tasks: Sequence[T_in]) -> Self:
        """Returns the worker for a part of the tasks that holds all of a group (`group`)."""

    def group(self, task: T_in) -> str:
        """Returns a name that neighbouring tasks share which have to be done by one worker."""

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

        What was found in this process is written and told in any case, also where an error or an
        interruption ends the job. What another process had not told by then is done again.
        """


def in_order(answers: Generator[tuple[int, R], None, None]) -> Generator[R, None, None]:
    """Yields the answers by their places 0, 1, ...; closes their source when it is closed."""
    early: dict[int, R] = {}
    following = 0
    with contextlib.closing(answers):
        for place, answer in answers:
            early[place] = answer
            while following in early:
                yield early.pop(following)
                following += 1


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
