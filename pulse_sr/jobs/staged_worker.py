"""Workers whose inputs and results are at URLs (`staging`): fetched before, sent after the work."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch

from pulse_sr.jobs.job import A, Executor, Q, R, T, Worker

V = TypeVar("V")


class Places(Protocol):
    """Where inputs and results are: `staging.Stage`."""

    opened: set[str]

    def named(self, value: V) -> V:
        """A text, document or record with URLs in place of temporary paths."""

    def fetch(self, path: Path) -> None:
        """Makes sure that an input is on this machine."""

    def complete(self, stem: str) -> None:
        """Fetches the files of an input that was worked on before."""

    def deliver(self, stems: Iterable[str], crops: Iterable[str] = ()) -> None:
        """Sends the files of inputs and crops, the records last."""


@dataclass(frozen=True)
class StagedExecutor:
    """An executor whose workers fetch what they need and send what they made."""

    stage: Places
    executor: Executor

    def __call__(self, tasks: Sequence[T], worker: Worker[T, Q, A, R]) -> Iterator[R]:
        staged: Worker[T, Q, A, R] = StagedWorker(self.stage, worker, tasks)
        for record in self.executor(tasks, staged):
            yield self.stage.named(record)


class StagedWorker(Generic[T, Q, A, R]):
    """A worker whose inputs are fetched first and whose results are sent: a `job.Worker`.

    Args:
        stage: of the job.
        worker: does the work.
        tasks: those that it may get.
    """

    def __init__(self, stage: Places, worker: Worker[T, Q, A, R], tasks: Sequence[T]) -> None:
        self.stage, self.worker, self.tasks = stage, worker, tasks
        self.chunk, self.index = worker.chunk, worker.index
        self.left = Counter(map(worker.group, tasks))
        self.crops: dict[str, list[str]] = {}
        self.lock = threading.Lock()
        self.stems: dict[str, list[str]] = {}
        for task in tasks:
            self.stems.setdefault(worker.group(task), []).append(task.stem)

    def __reduce__(self) -> tuple[type[Self], tuple[Any, ...]]:
        return type(self), (self.stage, self.worker, ())

    @property
    def prepare(self) -> Callable[[Q], Q] | None:
        return self.worker.prepare

    def on(self, device: torch.device) -> Self:
        return type(self)(self.stage, self.worker.on(device), self.tasks)

    def among(self, tasks: Sequence[T]) -> Self:
        return type(self)(self.stage, self.worker.among(tasks), tasks)

    def group(self, task: T) -> str:
        return self.worker.group(task)

    def known(self, task: T) -> R | None:
        record = self.worker.known(task)
        if record is not None:
            if task.stem in self.stage.opened:  # what is there may have been drawn anew
                self.stage.deliver([task.stem])
            self._settle(task, None)
        return record

    def read(self, place: int, task: T) -> Q:
        self.stage.fetch(task.path)
        for stem in self.stems.get(self.worker.group(task), [task.stem]):
            self.stage.complete(stem)
        return self.worker.read(place, task)

    def failed(self, task: T, error: Exception, seconds: float) -> R:
        record = self.worker.failed(task, error, seconds)
        self._settle(task, record)
        return record

    def work(self, requests: Iterable[Q]) -> Generator[tuple[Q, A], None, None]:
        return self.worker.work(requests)

    def place(self, request: Q) -> int:
        return self.worker.place(request)

    def write(self, request: Q, answer: A) -> R:
        record = self.worker.write(request, answer)
        self._settle(self.tasks[self.worker.place(request)], record)
        return record

    def _settle(self, task: T, record: R | None) -> None:
        """Sends what was made of a group when the last of it is there; None: nothing was."""
        group = self.worker.group(task)
        with self.lock:
            self.left[group] -= 1
            if record is not None:
                crops = record.get("names", ()) if isinstance(record, dict) else ()
                self.crops.setdefault(group, []).extend(crops)
            if self.left[group] > 0 or group not in self.crops:
                return
            crops = self.crops.pop(group)
        self.stage.deliver(dict.fromkeys((group, *self.stems.get(group, ()))), crops)
