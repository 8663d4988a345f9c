"""The training loop: order of the data, averages, schedule, checkpoints, log.

Every random draw of a step comes from a generator seeded by (seed, images shown), and the order of
the data from (seed, epoch): the same command resumes where the last checkpoint stands and gives,
on a CPU, the very bits of an uninterrupted run. What is learned, and how, is the task's
(`training.task`); "images" are the items of its data, whatever they are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from pulse_sr.data.feed import Feed, open_feed
from pulse_sr.data.order import Stream
from pulse_sr.errors import UsageError
from pulse_sr.training.checkpoint import (
    STATE_NAME,
    load_checkpoint,
    parts_of_checkpoint,
    read_checkpoint_header,
    save_checkpoint,
    unfit,
)
from pulse_sr.training.clock import Clock
from pulse_sr.training.divergence import DivergenceWatch, are_finite, diverged, unsound_parts
from pulse_sr.training.ema import Averages
from pulse_sr.training.log import append_record, rewind
from pulse_sr.training.options import ScheduleOptions
from pulse_sr.training.processes import Processes
from pulse_sr.training.task import TaskConfig, TrainingTask

#: Steps between two looks at the device: reading a loss waits for all work in flight.
RECORD_STEPS = {"cpu": 1, "cuda": 4}


@dataclass(frozen=True)
class Schedule:
    """When to stop and when to write.

    Attributes:
        until_images: stop after so many.
        until_seconds: stop after so many seconds of this call.
        checkpoint_seconds: seconds between two checkpoints.
        snapshot_images: images between two checkpoints that are looked at and scored.
    """

    until_images: float = math.inf
    until_seconds: float = math.inf
    checkpoint_seconds: float = 600.0
    snapshot_images: float = 20_000

    @classmethod
    def of(cls, options: ScheduleOptions) -> Schedule:
        """The schedule that the options ask for."""
        return cls(
            until_images=options.until_images,
            until_seconds=math.inf if options.seconds is None else options.seconds,
            checkpoint_seconds=options.checkpoint_every,
            snapshot_images=options.snapshot * 1000,
        )


@dataclass(frozen=True)
class Progress:
    """One record of the log.

    Attributes:
        images: shown since the run began.
        seconds: spent on training.
        images_per_second: of training, in this call.
        losses: mean of each over the steps since the record before, only of those that had it.
        checkpointed: whether the state was written.
        snapshot: whether it is one to look at and to score.
    """

    images: int
    seconds: float
    images_per_second: float
    losses: dict[str, float]
    checkpointed: bool
    snapshot: bool

    def to_json(self) -> dict[str, Any]:
        """One flat record."""
        fields: dict[str, Any] = {
            "images": self.images,
            "seconds": self.seconds,
            "images_per_second": self.images_per_second,
        }
        return fields | self.losses


class Trainer:
    """The state of a run and the steps that change it.

    Attributes:
        stream: what is learned from, in its order.
        run_dir: folder of the state, the exported model and the log.
        task: the networks and their step.
        averages: of the weights of one of them.
        images_shown: since the run began.
        seconds: spent on them.
        seconds_of_call: of these, in this call of `train`.
        lock: the claim on the run folder, held as long as the trainer lives.
    """

    lock: IO[str] | None = None

    def __init__(
        self,
        stream: Stream,
        run_dir: Path,
        task: TrainingTask,
        data_sha256: str = "",
        continued: Path | None = None,
    ) -> None:
        """Set up a run, or take up the one that stands in `run_dir`.

        Args:
            stream: what is learned from, in its order.
            run_dir: folder of the state, the exported model and the log.
            task: the networks, on their device.
            data_sha256: of the data; a run does not go on with other ones.
            continued: the state of another run, which this one begins with.

        Raises:
            UsageError: when the run in `run_dir` was started with another config or other data.
            SetupError: when a state is damaged.
        """
        self.stream, self.run_dir, self.task = stream, run_dir, task
        self.data_sha256 = data_sha256
        self.images_shown = 0
        self.seconds = 0.0
        self.seconds_of_call = 0.0
        self._kept: int | None = None
        self.averages = Averages(task.averaged, task.modules()[task.averaged], task.config)
        self._feed: Feed | None = None
        if self.state_file.exists():
            self._resume()
        elif continued is not None:
            self._continue(continued)

    @property
    def config(self) -> TaskConfig:
        """Everything that decides the course of the run."""
        return self.task.config

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.task.device

    @property
    def processes(self) -> Processes:
        """Who shares the work."""
        return self.task.processes

    @property
    def state_file(self) -> Path:
        """Where the checkpoint stands."""
        return self.run_dir / STATE_NAME

    @property
    def log_file(self) -> Path:
        """The records, one JSON object a line."""
        return self.run_dir / "log.jsonl"

    def _modules(self) -> dict[str, torch.nn.Module]:
        return self.task.modules() | self.averages.modules()

    def _resume(self) -> None:
        header = read_checkpoint_header(self.state_file)
        differing = _differences(self.task.earlier | header["config"], self.config.to_json())
        if header.get("data") and header["data"] != self.data_sha256:
            differing.append("the images are others")
        if differing:
            raise UsageError(
                f"the run in {self.run_dir} was started with other options: {', '.join(differing)}",
                "repeat them, or give another -o folder",
            )
        load_checkpoint(self.state_file, self._modules(), self.task.optimizers())
        self._take_numbers(self.state_file, header)
        self._kept = self.images_shown

    def _continue(self, state: Path) -> None:
        """Begin with all that another run's state has; the rest begins as ever.

        Averages that it has not begin with its own average.
        """
        header = read_checkpoint_header(state)
        new = self.averages.modules().keys() - parts_of_checkpoint(state)
        anew = new | self.task.renewed(self.task.earlier | header["config"])
        modules = {name: each for name, each in self._modules().items() if name not in anew}
        optimizers = {k: v for k, v in self.task.optimizers().items() if k not in anew}
        load_checkpoint(state, modules, optimizers)
        self.averages.restart(new)
        self._take_numbers(state, header)

    def _take_numbers(self, file: Path, header: dict[str, Any]) -> None:
        self.images_shown, self.seconds = header["images"], header["seconds"]
        try:
            self.task.load_state(header)
        except (LookupError, ValueError, TypeError) as error:
            raise unfit(file, error) from error

    def train(self, schedule: Schedule) -> Iterator[Progress]:
        """Train until the schedule ends, yielding one record every few steps.

        The last record is always a checkpoint and a snapshot. A state is written only while losses
        and weights are finite; a checkpoint that is due meanwhile waits until they are.

        Raises:
            DivergedError: losses were not finite in half of the last steps, or they or the weights
                are not where a state has to be written; the files are those of the last good state.
        """
        if self.processes.first:
            rewind(self.log_file, self.images_shown)
        rows = self.task.rows()
        with open_feed(self.stream, self.config.batch, self.device, rows) as self._feed:
            yield from self._train(schedule)

    def _train(self, schedule: Schedule) -> Iterator[Progress]:
        clock, watch = Clock(self.images_shown, self.seconds), DivergenceWatch()
        pending: list[dict[str, Tensor]] = []
        every = RECORD_STEPS[self.device.type]
        last_record = self.images_shown
        while self.images_shown < schedule.until_images:
            pending.append(self.take_step())
            ends = self.images_shown >= schedule.until_images
            if len(pending) < every and not ends:
                continue
            losses, broken = self._summary(pending)
            pending = []
            progress, stops = self._progress(schedule, clock, losses, last_record)
            watch.observe(broken, losses)
            if self.processes.first:
                append_record(self.log_file, progress.to_json())
            self._require_sound(watch, progress.checkpointed, stops)
            if any(broken):  # what is due waits
                progress = replace(progress, checkpointed=False, snapshot=False)
            else:
                last_record = self.images_shown
            if progress.checkpointed:
                self.checkpoint()
                clock.restart_checkpoint()
            with clock.paused():
                yield progress
            if stops:
                return

    def _progress(
        self, schedule: Schedule, clock: Clock, losses: dict[str, float], last_record: int
    ) -> tuple[Progress, bool]:
        """The record of the steps since the last one, and whether the schedule ends here."""
        self.seconds_of_call = clock.elapsed()
        self.seconds = clock.seconds_before + clock.training()
        ends = self.images_shown >= schedule.until_images
        stops = ends or self.seconds_of_call >= schedule.until_seconds
        waited = clock.since_checkpoint() >= schedule.checkpoint_seconds
        stops, waited = (self.processes.agree(v, self.device) for v in (stops, waited))
        snapshot = stops or crossed(last_record, self.images_shown, schedule.snapshot_images)
        rate = (self.images_shown - clock.images_before) / clock.training()
        shown = (self.images_shown, self.seconds, rate)
        return Progress(*shown, losses, snapshot or waited, snapshot), stops

    def _require_sound(self, watch: DivergenceWatch, due: bool, stops: bool) -> None:
        """Raises DivergedError, see `train`; the state is looked at where one is due."""
        reason = watch.verdict(stops) or (unsound_parts(self.task, self._modules()) if due else "")
        if reason:
            raise diverged(reason, self.images_shown, self.run_dir, self._kept, self.task.steadier)

    def take_step(self) -> dict[str, Tensor]:
        """One step of all that is due; returns scalars of it, still on the device."""
        assert self._feed is not None  # `train` opens it
        report = self.task.step(self._feed.batch(self.images_shown), self.images_shown)
        self.averages.update(self.images_shown)
        self.images_shown += self.config.batch
        return report

    def _summary(self, reports: list[dict[str, Tensor]]) -> tuple[dict[str, float], list[bool]]:
        """Means over some steps and all processes, as numbers, and what the task adds to them; and
        for each step whether one of its scalars is not finite."""
        names = list(dict.fromkeys(name for report in reports for name in report))
        means = torch.stack(
            [torch.stack([r[name] for r in reports if name in r]).mean() for name in names]
        )
        finite = torch.stack([are_finite(report.values()) for report in reports]).to(means)
        self.processes.average_([means, finite])
        found = dict(zip(names, means.tolist(), strict=True))
        broken = [share < 1 for share in finite.tolist()]
        return found | ({} if any(broken) else self.task.observe(found, len(reports))), broken

    def facts(self) -> dict[str, Any]:
        """What an exported model says of the run."""
        return {"images": self.images_shown, "seconds": round(self.seconds)}

    def checkpoint(self) -> None:
        """Write the exported model and, last, the state; only the first process does."""
        if self.processes.first:
            self.task.export(self.averages.first, self.run_dir, self.facts())
            header = {
                "config": self.config.to_json(),
                "images": self.images_shown,
                "seconds": round(self.seconds, 3),
                "data": self.data_sha256,
            }
            header |= self.task.state()
            save_checkpoint(self.state_file, self._modules(), self.task.optimizers(), header)
        self._kept = self.images_shown
        self.processes.wait()


def crossed(before: int, now: int, interval: float) -> bool:
    """Whether a multiple of the interval lies in (before, now]."""
    return math.floor(now / interval) > math.floor(before / interval)


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Options that differ, as `name was ..., is ...`; those of the network by their own names."""
    found = []
    for key, value in now.items():
        old = before.get(key)
        if isinstance(value, dict) and isinstance(old, dict):
            found += _differences(old, value)
        elif old != value:
            found.append(f"{key} was {old}, is {value}")
    return found
