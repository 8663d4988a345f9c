"""The worker processes (actors) of a Ray cluster, and which of them does which inputs."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic

import torch

from pulse_sr.devices import choose_device
from pulse_sr.errors import InputError, PulseError, SetupError, describe_error, first_line
from pulse_sr.jobs.executors.local import as_done
from pulse_sr.jobs.job import A, Q, R, T, Worker

log = logging.getLogger(__name__)

#: So often may an input end its process while it is alone there, and a process while it starts.
_TRIES = 2
#: Seconds that a process may take to start.
_START_S = 600.0
#: A chunk is never smaller than this part of the largest: a stream that is not full is slow.
_LEAST = 16
#: Seconds without an answer before the log says so.
_SILENCE_S = 60.0

#: A place in the job, the answer, and the row of the manifest that was put with it.
Answer = tuple[int, Any, dict[str, Any] | None]


class Host:
    """What runs in a process of the cluster: a copy of the worker."""

    worker: Worker[Any, Any, Any, Any]

    def start(self, worker: Worker[Any, Any, Any, Any], threads: int, folder: str) -> None:
        """Takes the worker, its networks on the device of this process; raises as `Worker.on`.

        Args:
            worker: of the job.
            threads: of the CPU.
            folder: the working folder of the call, to which paths are relative.
        """
        import ray

        with contextlib.suppress(FileNotFoundError):  # on another machine; URLs need none
            os.chdir(folder)
        torch.set_num_threads(threads)
        self.worker = worker.on(choose_device("cuda" if ray.get_gpu_ids() else "cpu"))

    def do(self, places: Sequence[int], tasks: Sequence[Any]) -> Iterator[Answer]:
        """Does a chunk; yields the place, the record and the row of each input when it is done."""
        worker = self.worker.among(tasks)
        for number, record in as_done(tasks, worker):
            yield places[number], record, worker.index.rows.get(tasks[number].stem)

    def read(self, places: Sequence[int], tasks: Sequence[Any]) -> Iterator[Answer]:
        """Reads and prepares a chunk; yields each place with the request or what is wrong."""
        prepare = self.worker.prepare
        assert prepare is not None
        for place, task in zip(places, tasks, strict=True):
            try:
                yield place, prepare(self.worker.read(place, task)), None
            except SetupError:
                raise
            except Exception as error:  # an unknown one may be of no use in another process
                message, hint, _ = describe_error(error)
                yield place, InputError(message, hint), None


class Spread(Generic[T, Q, A, R]):
    """Which actor has which inputs, and which are left.

    Args:
        tasks: of the job.
        worker: of the job.
        groups: the places of those that are to be done, by `Worker.group`.
        count: how many actors there are.
        actor: makes one.
        start: the arguments of `Host.start`.
        lost: called with the task, the error and seconds for an input that ends its process.
    """

    def __init__(
        self,
        tasks: Sequence[T],
        worker: Worker[T, Q, A, R],
        groups: Sequence[list[int]],
        count: int,
        actor: Callable[[], Any],
        start: tuple[Any, int, str],
        lost: Callable[..., Any],
    ) -> None:
        self.tasks, self.worker, self.lost = tasks, worker, lost
        self.count, self.actor, self.start = count, actor, start
        self.fresh, self.again = deque(groups), deque[list[list[int]]]()
        self.open = {place for group in groups for place in group}
        self.ends: Counter[int] = Counter()
        self.failed_starts = 0
        self.idle: list[Any] = []
        #: What is waited for: that an actor has started (no chunk), or the stream of its answers.
        self.waiting: dict[Any, tuple[Any, list[list[int]]]] = {}
        self.starting: dict[Any, float] = {}

    def answers(self) -> Iterator[Answer]:
        """Yields what the actors tell, and what is told of inputs that end their process."""
        import ray

        for _ in range(self.count):
            self._start()
        try:
            while self.open:
                ready, _ = ray.wait(list(self.waiting), num_returns=1, timeout=_SILENCE_S)
                if not ready:
                    log.warning("no answer from %d workers for %.0f s", self.count, _SILENCE_S)
                for each in ready:
                    yield from self._hear(each, *self.waiting.pop(each))
                self._drop_late()
                while self.idle and (self.again or self.fresh):
                    self._give(self.idle.pop())
        finally:
            for host in [*self.idle, *(host for host, _ in self.waiting.values())]:
                ray.kill(host)

    def _hear(self, source: Any, host: Any, chunk: list[list[int]]) -> Iterator[Answer]:
        import ray

        try:
            answer = ray.get(next(source) if chunk else source)
        except StopIteration:
            self.idle.append(host)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, PulseError) or (cause is not None and chunk):
                ray.kill(host)
                raise cause from error  # as it would be in this process
            log.debug("a worker was lost", exc_info=error)
            ray.kill(host)
            if chunk:
                self._start()
                yield from self._lose(chunk)
            else:
                self._start_again(error)
        else:
            if not chunk:
                self.failed_starts = 0
                self.idle.append(host)
                return
            self.waiting[source] = host, chunk
            if answer[0] in self.open:
                self.open.remove(answer[0])
                yield answer

    def _start(self) -> None:
        """Makes an actor and waits for it, beside the others."""
        host = self.actor()
        begun = host.start.remote(*self.start)
        self.waiting[begun], self.starting[begun] = (host, []), time.monotonic()

    def _start_again(self, error: Exception) -> None:
        """Goes on without an actor if again and again none can start.

        Raises:
            SetupError: it was the last.
        """
        self.failed_starts += 1
        if self.failed_starts < _TRIES:
            self._start()
            return
        self.count -= 1
        if not self.count:
            raise SetupError(
                f"no worker of the Ray cluster could start: {first_line(error)}",
                "its machines need the same pulse-sr, and memory for the model; -v says more",
            ) from error

    def _drop_late(self) -> None:
        """Gives up waiting for actors that do not start, such as those of a lost machine."""
        import ray

        for begun, since in list(self.starting.items()):
            if begun not in self.waiting:
                del self.starting[begun]
            elif time.monotonic() - since > _START_S:
                host, _ = self.waiting.pop(begun)
                ray.kill(host)
                self._start_again(TimeoutError(f"it takes more than {_START_S:.0f} s"))

    def _give(self, host: Any) -> None:
        """Sends the next chunk: the less is left, the smaller, so that all end together."""
        if self.again:
            chunk = self.again.popleft()
        else:
            most, left = self.worker.chunk, len(self.fresh)
            share = max(-(-left // (2 * self.count)), most // _LEAST)
            chunk = [self.fresh.popleft() for _ in range(min(most, share, left))]
        places = [place for group in chunk for place in group]
        method = host.do if self.worker.prepare is None else host.read
        streaming = method.options(num_returns="streaming")
        self.waiting[streaming.remote(places, [self.tasks[each] for each in places])] = host, chunk

    def _lose(self, chunk: list[list[int]]) -> Iterator[Answer]:
        left = [group for group in chunk if not self.open.isdisjoint(group)]
        log.warning("a worker process was lost: %d of its inputs are done again", len(left))
        if len(left) > 1:
            middle = len(left) // 2
            self.again.extendleft((left[middle:], left[:middle]))
        elif left:
            [group] = left
            self.ends[group[0]] += 1
            if self.ends[group[0]] < _TRIES:
                self.again.appendleft(left)
            else:
                yield from self._fail(group)

    def _fail(self, group: list[int]) -> Iterator[Answer]:
        path = self.tasks[group[0]].path
        error = InputError(
            f"{path} ended its worker process {_TRIES} times while it was alone there",
            "--engine local shows why; too little memory is the usual reason",
        )
        for place in self.open.intersection(group):
            self.open.remove(place)
            yield place, self.lost(self.tasks[place], error, 0.0), None
