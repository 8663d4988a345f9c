"""The work of a job in the processes of a Ray cluster, on this machine or many.

A worker process of the cluster (an actor) has a copy of the job's worker with its networks, on a
GPU or on some CPU threads, and does one chunk of inputs after the other as `executors.local` does.
It tells of each input when that is on disk. Ray starts the processes and finds room for them;
nothing else is left to it: what was done stands in the files.

A new process takes the place of a lost one. What that had not told of is done again in two halves,
down to one input alone, which fails when it has ended its process twice: it stops no other.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pulse_sr.config import EngineOptions
from pulse_sr.jobs.executors.local import as_done
from pulse_sr.jobs.executors.ray_actors import Answer, Host, Spread
from pulse_sr.jobs.executors.ray_cluster import connected, shares
from pulse_sr.jobs.job import A, Q, R, T, Worker, in_order


@dataclass(frozen=True)
class RayExecutor:
    """Does the tasks in the processes of a Ray cluster: an `Executor`.

    Attributes:
        options: which cluster, how many workers.
        device: "auto" takes the GPUs of the cluster if it has some; "cpu" or "cuda".
    """

    options: EngineOptions
    device: str = "auto"

    def __call__(self, tasks: Sequence[T], worker: Worker[T, Q, A, R]) -> Iterator[R]:
        """See `Executor`.

        Raises:
            UsageError: the cluster has no room for so many workers.
            SetupError: there is no such cluster, or its workers can not start.
        """
        if worker.prepare is None:
            done = self._spread(tasks, worker, worker.failed)
            return in_order(_told(done, worker))
        return self._read_elsewhere(tasks, worker)

    def _read_elsewhere(self, tasks: Sequence[T], worker: Worker[T, Q, A, R]) -> Iterator[R]:
        """The cluster reads and prepares; what depends on the order is done in this process."""
        spread = self._spread(tasks, worker, lambda task, error, seconds: error)
        answers: Iterator[Any] = in_order(_told(spread, worker))
        with contextlib.closing(answers):  # type: ignore[type-var]

            def read(place: int, task: T) -> Q:
                answer = next(answers)
                if isinstance(answer, Exception):
                    raise answer
                found: Q = answer
                return found

            yield from in_order(as_done(tasks, worker, read))

    def _spread(
        self, tasks: Sequence[T], worker: Worker[T, Q, A, R], lost: Callable[..., Any]
    ) -> Generator[Answer, None, None]:
        """What the cluster answers for each task; where it can not, what `lost` says."""
        import ray

        left = []
        for places in _groups(tasks, worker):
            known = [worker.known(tasks[place]) for place in places]
            if any(record is None for record in known):
                left.append(places)
            else:
                yield from ((at, each, None) for at, each in zip(places, known, strict=True))
        if left:
            with connected(self.options.address):
                count, share = shares(self.options.workers, self.device)
                # Ray's own restarts and retries are off: `Spread` knows what is left to do.
                actor: Any = ray.remote(max_restarts=0, max_task_retries=0, **share)(Host)  # type: ignore[call-overload]
                start = (ray.put(worker), share["num_cpus"], os.getcwd())
                spread = Spread(tasks, worker, left, count, actor.remote, start, lost)
                yield from spread.answers()


def _told(
    answers: Generator[Answer, None, None], worker: Worker[T, Q, A, R]
) -> Generator[tuple[int, R], None, None]:
    """The places and records; the rows of the manifest go into the index."""
    with contextlib.closing(answers):
        for place, record, row in answers:
            if row is not None and worker.index.rows.get(row["stem"]) != row:
                worker.index.put(row)
            yield place, record


def _groups(tasks: Sequence[T], worker: Worker[T, Q, A, R]) -> Iterator[list[int]]:
    """The places of neighbouring tasks that one process does together."""
    numbered = itertools.groupby(range(len(tasks)), lambda place: worker.group(tasks[place]))
    return (list(places) for _, places in numbered)
