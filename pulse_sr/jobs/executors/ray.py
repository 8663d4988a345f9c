"""The work of a job in the processes of a Ray cluster, on this machine or many.

A worker process of the cluster (an actor) has a copy of the job's worker with its networks, on a
GPU or on some CPU threads, and does one chunk of inputs after the other as `executors.local` does.
It tells of each input when that is on disk. Ray starts the actors, and starts them again where
their process or machine is lost; nothing else is left to it: what was done stands in the files.

A lost process loses what it had not told of. That is done again in two halves, down to one input
alone, which fails when it has ended its process twice: one that always does so stops no other.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic

import torch

from pulse_sr.config import EngineOptions
from pulse_sr.devices import choose_device
from pulse_sr.errors import (
    InputError,
    PulseError,
    SetupError,
    UsageError,
    describe_error,
    first_line,
)
from pulse_sr.jobs.executors.local import as_done
from pulse_sr.jobs.job import A, Q, R, T, Worker, in_order

log = logging.getLogger(__name__)

#: Threads of a worker on a CPU where nobody says how many workers there are.
_THREADS = 4
#: So often may an input end its process while it is alone there.
_TRIES = 2
#: Seconds that an actor may take to start, or to start again.
_START_S = 600.0
#: Seconds without an answer before the log says so.
_SILENCE_S = 60.0

#: A place in the job, the answer, and the row of the manifest that was put with it.
_Answer = tuple[int, Any, dict[str, Any] | None]


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
    ) -> Generator[_Answer, None, None]:
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
            with _cluster(self.options.address):
                count, share = _shares(self.options.workers, self.device)
                actor: Any = ray.remote(max_restarts=-1, **share)(_Host)  # type: ignore[call-overload]
                hosts = [actor.remote() for _ in range(count)]
                start = (ray.put(worker), share["num_cpus"])
                try:
                    yield from _Spread(tasks, worker, left, hosts, start, lost).answers()
                finally:
                    for host in hosts:
                        ray.kill(host)


class _Host:
    """What runs in a process of the cluster: a copy of the worker."""

    worker: Worker[Any, Any, Any, Any]

    def start(self, worker: Worker[Any, Any, Any, Any], threads: int) -> None:
        """Takes the worker, its networks on the device of this process; raises as `Worker.on`."""
        import ray

        torch.set_num_threads(threads)
        self.worker = worker.on(choose_device("cuda" if ray.get_gpu_ids() else "cpu"))

    def do(self, places: Sequence[int], tasks: Sequence[Any]) -> Iterator[_Answer]:
        """Does a chunk; yields the place, the record and the row of each input when it is done."""
        worker = self.worker.among(tasks)
        for number, record in as_done(tasks, worker):
            yield places[number], record, worker.index.rows.get(tasks[number].stem)

    def read(self, places: Sequence[int], tasks: Sequence[Any]) -> Iterator[_Answer]:
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


class _Spread(Generic[T, Q, A, R]):
    """Which actor has which inputs, and which are left.

    Args:
        tasks: of the job.
        worker: of the job.
        groups: the places of those that are to be done, by `Worker.group`.
        hosts: the actors.
        start: the arguments of `_Host.start`.
        lost: called with the task, the error and seconds for an input that ends its process.
    """

    def __init__(
        self,
        tasks: Sequence[T],
        worker: Worker[T, Q, A, R],
        groups: Sequence[list[int]],
        hosts: Sequence[Any],
        start: tuple[Any, int],
        lost: Callable[..., Any],
    ) -> None:
        self.tasks, self.worker, self.start, self.lost = tasks, worker, start, lost
        self.fresh, self.again = deque(groups), deque[list[list[int]]]()
        self.open = {place for group in groups for place in group}
        self.ends: Counter[int] = Counter()
        self.hosts, self.idle = list(hosts), list[Any]()
        #: What is waited for: that an actor has started (no chunk), or the stream of its answers.
        self.waiting: dict[Any, tuple[Any, list[list[int]]]] = {}
        self.starting: dict[Any, float] = {}

    def answers(self) -> Iterator[_Answer]:
        """Yields what the actors tell, and what is told of inputs that end their process."""
        import ray

        for host in self.hosts:
            self._start(host)
        while self.open:
            ready, _ = ray.wait(list(self.waiting), num_returns=1, timeout=_SILENCE_S)
            if not ready:
                log.warning("no answer from %d workers for %.0f s", len(self.waiting), _SILENCE_S)
            for each in ready:
                yield from self._hear(each, *self.waiting.pop(each))
            self._drop_late()
            while self.idle and (self.again or self.fresh):
                self._give(self.idle.pop())

    def _hear(self, source: Any, host: Any, chunk: list[list[int]]) -> Iterator[_Answer]:
        import ray
        from ray.exceptions import RayError, RayTaskError

        try:
            answer = ray.get(next(source) if chunk else source)
        except StopIteration:
            self.idle.append(host)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else None
            if isinstance(cause, PulseError) or (cause is not None and chunk):
                raise cause from error  # as it would be in this process
            log.debug("a worker was lost", exc_info=error)
            if not chunk:
                self._give_up(host, cause or error)
                return
            self._start(host)
            yield from self._lose(chunk)
        else:
            if not chunk:
                self.idle.append(host)
                return
            self.waiting[source] = host, chunk
            if answer[0] in self.open:
                self.open.remove(answer[0])
                yield answer

    def _start(self, host: Any) -> None:
        """Waits for an actor: for its first process, or the one after a lost one."""
        # Ray counts as tries also those while the actor is restarting.
        begun = host.start.options(max_task_retries=-1).remote(*self.start)
        self.waiting[begun], self.starting[begun] = (host, []), time.monotonic()

    def _drop_late(self) -> None:
        """Does without the actors that do not start, since their process ends there each time."""
        for begun, since in list(self.starting.items()):
            if begun not in self.waiting:
                del self.starting[begun]
            elif time.monotonic() - since > _START_S:
                host, _ = self.waiting.pop(begun)
                self._give_up(host, TimeoutError(f"it takes more than {_START_S:.0f} s"))

    def _give(self, host: Any) -> None:
        """Sends the next chunk: the less is left, the smaller, so that all end together."""
        if self.again:
            chunk = self.again.popleft()
        else:
            share = -(-len(self.fresh) // (2 * len(self.hosts)))
            chunk = [self.fresh.popleft() for _ in range(min(self.worker.chunk, share))]
        places = [place for group in chunk for place in group]
        method = host.do if self.worker.prepare is None else host.read
        streaming = method.options(num_returns="streaming", max_task_retries=0)
        self.waiting[streaming.remote(places, [self.tasks[each] for each in places])] = host, chunk

    def _lose(self, chunk: list[list[int]]) -> Iterator[_Answer]:
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

    def _fail(self, group: list[int]) -> Iterator[_Answer]:
        path = self.tasks[group[0]].path
        error = InputError(
            f"{path} ended its worker process {_TRIES} times while it was alone there",
            "--engine local shows why; too little memory is the usual reason",
        )
        for place in self.open.intersection(group):
            self.open.remove(place)
            yield place, self.lost(self.tasks[place], error, 0.0), None

    def _give_up(self, host: Any, error: Exception) -> None:
        self.hosts.remove(host)
        if not self.hosts:
            raise SetupError(
                f"no worker of the Ray cluster could start: {first_line(error)}",
                "its machines need the same pulse-sr, and memory for the model; -v says more",
            ) from error


def _told(
    answers: Generator[_Answer, None, None], worker: Worker[T, Q, A, R]
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


def _shares(workers: int | None, device: str) -> tuple[int, dict[str, int]]:
    """How many actors there are, and what of a machine each has.

    Raises:
        UsageError: the cluster has not got so much.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(sum(node.get("GPU", 0) for node in nodes))
    if device.startswith("cuda") or (device == "auto" and gpus):
        if gpus < (workers or 1):
            raise UsageError(
                f"--workers {workers or 1} on GPUs: the cluster has {gpus}", "--device cpu"
            )
        return workers or gpus, {"num_gpus": 1, "num_cpus": 1}
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    most = min(_THREADS, max(cpus)) if workers is None else max(cpus)
    for threads in range(most, 0, -1):
        count = sum(each // threads for each in cpus)
        if count >= (workers or 1):
            return workers or count, {"num_cpus": threads}
    raise UsageError(
        f"--workers {workers or 1}: the cluster has {sum(cpus)} CPUs", "one worker for each at most"
    )


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[None]:
    """A connection to the cluster: that of the calling program if it has one, else one of our own.

    Raises:
        SetupError: the cluster can not be reached or started.
    """
    import ray

    if ray.is_initialized():
        yield
        return
    # Read when the processes of a cluster start, and there is no argument for it.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address,
            include_dashboard=False,
            log_to_driver=log.isEnabledFor(logging.DEBUG),
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray raises a plain one where its own processes do not come up
        raise SetupError(
            f"the Ray cluster {address} can not be used: {first_line(error)}",
            "ray status --address HOST:PORT shows whether it runs",
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray's own ends the process without our words
    try:
        yield
    finally:
        ray.shutdown()
