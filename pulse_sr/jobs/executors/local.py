"""The work of a job in this process: read, work, write, go on.

All inputs go through the one stream of the worker. Beside it a thread reads the next inputs, and
others write each input as soon as it is done. One bad input never stops the others. What is
finished is on disk, so the same command resumes after an interruption.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future
from typing import Generic

from pulse_sr.errors import SetupError
from pulse_sr.inversion.background import Background, read_ahead
from pulse_sr.jobs.job import A, Q, R, T, Worker, in_order

#: Threads that write: a quarter of the cores. Writing an input of 128 px takes about 0.2 s of one.
_WRITERS = max(1, min(4, (os.cpu_count() or 1) // 4))


def run_local(tasks: Sequence[T], worker: Worker[T, Q, A, R]) -> Iterator[R]:
    """Does the tasks in this process: an `Executor`."""
    return in_order(as_done(tasks, worker))


def as_done(
    tasks: Sequence[T],
    worker: Worker[T, Q, A, R],
    read: Callable[[int, T], Q] | None = None,
) -> Generator[tuple[int, R], None, None]:
    """Does the tasks in this process.

    Args:
        tasks: what is to be done.
        worker: does it.
        read: stands in for `worker.read`; called for one task after the other.

    Yields:
        the place of each task and its record, when that is there.
    """
    return _Run(tasks, worker, read or worker.read).records()


class _Run(Generic[T, Q, A, R]):
    """What is known of each task, and not told yet."""

    def __init__(
        self, tasks: Sequence[T], worker: Worker[T, Q, A, R], read: Callable[[int, T], Q]
    ) -> None:
        self.tasks, self.worker, self.read = tasks, worker, read
        self.known: dict[int, R] = {}
        self.writing: dict[int, Future[R]] = {}

    def records(self) -> Generator[tuple[int, R], None, None]:
        """See `as_done`."""
        try:
            yield from self._worked()
            yield from self._ready()
        except GeneratorExit:  # nobody listens any more
            raise
        except BaseException:
            with contextlib.suppress(SetupError):  # what ended the run is the thing to say
                yield from self._ready()
            raise

    def _worked(self) -> Iterator[tuple[int, R]]:
        with (
            Background("write", _WRITERS, most=_WRITERS + 2) as writing,
            contextlib.closing(read_ahead(self._requests())) as requests,
            contextlib.closing(self.worker.work(requests)) as found,
        ):
            for request, answer in found:
                future = writing.submit(self.worker.write, request, answer)
                self.writing[self.worker.place(request)] = future
                yield from self._ready()

    def _requests(self) -> Iterator[Q]:
        """The inputs that there is something to do with, each read when it is asked for."""
        for place, task in enumerate(self.tasks):
            record = self.worker.known(task)
            if record is not None:
                self.known[place] = record
                continue
            started = time.perf_counter()
            try:
                request = self.read(place, task)
            except SetupError:
                raise
            except Exception as error:
                seconds = time.perf_counter() - started
                self.known[place] = self.worker.failed(task, error, seconds)
            else:
                yield request

    def _ready(self) -> Iterator[tuple[int, R]]:
        """The records that are there and were not told.

        Raises:
            SetupError: one could not be written.
        """
        for place in [place for place, future in self.writing.items() if future.done()]:
            self.known[place] = self.writing.pop(place).result()
        while self.known:
            place = min(self.known)
            yield place, self.known.pop(place)
