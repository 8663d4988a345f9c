"""The training loop of a prior: schedule, state, checkpoints, records.

Every random draw of a step comes from a generator seeded by (seed, images shown), and the order of
the images from (seed, epoch): the same command resumes where the last checkpoint stands and gives,
on a CPU, the very bits of an uninterrupted run.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from pulse_sr.data.feed import Feed, open_feed
from pulse_sr.data.order import ImageStream, rng_of
from pulse_sr.errors import SetupError, UsageError
from pulse_sr.files.atomic import write_text_atomic
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import FILE_NAME, save_prior
from pulse_sr.training.augment.ada import AdaptiveAugment, OverfittingHeuristic
from pulse_sr.training.checkpoint import (
    load_checkpoint,
    read_checkpoint_header,
    save_checkpoint,
)
from pulse_sr.training.ema import bank_name, follow, share_kept
from pulse_sr.training.gan.config import EARLIER, TrainConfig
from pulse_sr.training.gan.step import Step
from pulse_sr.training.processes import Processes

STATE_NAME = "state.safetensors"
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


@dataclass(frozen=True)
class Progress:
    """One record of the log.

    Attributes:
        images: shown since the run began.
        seconds: spent on training.
        images_per_second: of training, in this call.
        losses: mean of each over the steps since the record before; r1, r2 and path only where a
            step computed them.
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
        images: uint8 `[N, 3, R, R]`, what is learned from.
        run_dir: folder of the state, the prior and the log.
        config: everything that decides the course of the run.
        step: the networks, their optimizers.
        average: the averaged generator.
        bank: averages of other half-lives, by these in thousands of images.
        images_shown: since the run began.
        seconds: spent on them.
        seconds_of_call: of these, in this call of `train`.
        lock: the claim on the run folder, held as long as the trainer lives.
    """

    lock: IO[str] | None = None

    def __init__(
        self,
        images: np.ndarray,
        run_dir: Path,
        config: TrainConfig,
        step: Step,
        card: dict[str, Any] | None = None,
        data_sha256: str = "",
        continued: Path | None = None,
    ) -> None:
        """Set up a run, or take up the one that stands in `run_dir`.

        Args:
            images: uint8 `[N, 3, R, R]`.
            run_dir: folder of the state, the prior and the log.
            config: everything that decides the course of the run.
            step: the networks on their device.
            card: what the prior file says of its data and licence.
            data_sha256: of the decoded images; a run does not go on with other ones.
            continued: the state of another run, which this one begins with.

        Raises:
            UsageError: when the run in `run_dir` was started with another config or other images.
        """
        self.images, self.run_dir, self.config, self.step = images, run_dir, config, step
        self.card, self.data_sha256 = card or {}, data_sha256
        self.images_shown = 0
        self.seconds = 0.0
        self.seconds_of_call = 0.0
        generator = step.objective.generator
        self.average = copy.deepcopy(generator).eval().requires_grad_(False)
        self.bank = {half_life: copy.deepcopy(self.average) for half_life in config.ema_bank}
        self.heuristic = OverfittingHeuristic()
        self._feed: Feed | None = None
        if self.state_file.exists():
            self._resume()
        elif continued is not None:
            self._continue(continued)

    @property
    def device(self) -> torch.device:
        """Where the networks live."""
        return self.step.device

    @property
    def processes(self) -> Processes:
        """Who shares the work."""
        return self.step.processes

    @property
    def state_file(self) -> Path:
        """Where the checkpoint stands."""
        return self.run_dir / STATE_NAME

    @property
    def log_file(self) -> Path:
        """The records, one JSON object a line."""
        return self.run_dir / "log.jsonl"

    @property
    def _modules(self) -> dict[str, torch.nn.Module]:
        averages = {bank_name(half_life): each for half_life, each in self.bank.items()}
        return self.step.networks | {"G_ema": self.average} | averages

    def _resume(self) -> None:
        header = read_checkpoint_header(self.state_file)
        differing = _differences(header["config"], self.config.to_json())
        if header.get("data") and header["data"] != self.data_sha256:
            differing.append("the images are others")
        if differing:
            raise UsageError(
                f"the run in {self.run_dir} was started with other options: {', '.join(differing)}",
                "repeat them, or give another -o folder",
            )
        load_checkpoint(self.state_file, self._modules, self.step.optimizers)
        self._take_numbers(header)

    def _continue(self, state: Path) -> None:
        """Begin with all that another run's state has; the rest begins as ever.

        Averages that it has not begin with its own average.
        """
        header = read_checkpoint_header(state)
        before = EARLIER | header["config"]
        modules, optimizers = dict(self._modules), dict(self.step.optimizers)
        if before["heads"] != self.config.heads:
            modules.pop("heads", None)
            optimizers.pop("adam_heads", None)
        for half_life in self.bank:
            if half_life not in before["ema_bank"]:
                modules.pop(bank_name(half_life))
        load_checkpoint(state, modules, optimizers)
        for half_life, average in self.bank.items():
            if bank_name(half_life) not in modules:
                average.load_state_dict(self.average.state_dict())
        self._take_numbers(header)

    def _take_numbers(self, header: dict[str, Any]) -> None:
        self.images_shown, self.seconds = header["images"], header["seconds"]
        self.step.path_mean = header["path_mean"]
        self.heuristic.load(header["augment"])
        self._set_augment_p()

    def train(self, schedule: Schedule) -> Iterator[Progress]:
        """Train until the schedule ends, yielding one record every few steps.

        The last record is always a checkpoint and a snapshot.
        """
        self._rewind_log()
        stream = ImageStream(self.images, self.config.seed)
        with open_feed(stream, self.config.batch, self.device) as self._feed:
            yield from self._train(schedule)

    def _train(self, schedule: Schedule) -> Iterator[Progress]:
        clock = _Clock(self.images_shown, self.seconds)
        pending: list[dict[str, Tensor]] = []
        every = RECORD_STEPS[self.device.type]
        last_record = self.images_shown
        while self.images_shown < schedule.until_images:
            pending.append(self.take_step())
            ends = self.images_shown >= schedule.until_images
            if len(pending) < every and not ends:
                continue
            losses = self._summary(pending)
            pending = []
            self.seconds_of_call = clock.elapsed()
            self.seconds = clock.seconds_before + clock.training()
            stops = ends or self.seconds_of_call >= schedule.until_seconds
            waited = clock.since_checkpoint() >= schedule.checkpoint_seconds
            stops, waited = (self.processes.agree(v, self.device) for v in (stops, waited))
            snapshot = stops or _crossed(last_record, self.images_shown, schedule.snapshot_images)
            last_record = self.images_shown
            rate = (self.images_shown - clock.images_before) / clock.training()
            progress = Progress(
                self.images_shown, self.seconds, rate, losses, snapshot or waited, snapshot
            )
            self._log(progress)
            if progress.checkpointed:
                self.checkpoint()
                clock.restart_checkpoint()
            with clock.paused():
                yield progress
            if stops:
                return

    def take_step(self) -> dict[str, Tensor]:
        """One step of all that is due; returns scalars of it, still on the device."""
        real = self._real()
        report = self.step.run(real, self.images_shown)
        self._average()
        self.images_shown += self.config.batch
        return report

    def _real(self) -> Tensor:
        assert self._feed is not None  # `train` opens it
        real = self._feed.batch(self.images_shown).float().div_(127.5).sub_(1)
        if self.config.mirror:
            rng = rng_of(self.config.seed, "mirror", self.images_shown)
            flip = (torch.rand(len(real), generator=rng) < 0.5).to(self.device)
            real = torch.where(flip[:, None, None, None], real.flip(3), real)
        return real.contiguous(memory_format=torch.channels_last)

    def _summary(self, reports: list[dict[str, Tensor]]) -> dict[str, float]:
        """Means over some steps and all processes, as numbers; moves the strength of ADA."""
        names = list(dict.fromkeys(name for report in reports for name in report))
        means = torch.stack(
            [torch.stack([r[name] for r in reports if name in r]).mean() for name in names]
        )
        self.processes.average_([means])
        found = dict(zip(names, means.tolist(), strict=True))
        if isinstance(self.step.augmentation, AdaptiveAugment):
            found["augment_p"] = self.step.augmentation.p
            images = len(reports) * self.config.batch
            self.heuristic.observe(found["real_sign"], images, len(reports))
            self._set_augment_p()
        return found

    def _set_augment_p(self) -> None:
        if isinstance(self.step.augmentation, AdaptiveAugment):
            self.step.augmentation.p = self.heuristic.p

    def _average(self) -> None:
        generator = self.step.objective.generator
        for half_life, average in [(self.config.ema_kimg, self.average), *self.bank.items()]:
            follow(average, generator, share_kept(self.config, half_life, self.images_shown))

    def prior(self) -> Prior:
        """The averaged generator as a prior, ready for a search."""
        training = self.config.to_json() | {
            "images": self.images_shown,
            "seconds": round(self.seconds),
        }
        name = self.card.get("name", self.run_dir.resolve().name)
        card = self.card | {"training": training}
        if self.config.trained_with:
            card["trained_with"] = self.config.trained_with
        return self.step.objective.make_prior(self.average, name, card)

    def checkpoint(self) -> None:
        """Write the prior and, last, the state; only the first process does."""
        if self.processes.first:
            save_prior(self.run_dir / FILE_NAME, self.prior())
            header = {
                "config": self.config.to_json(),
                "images": self.images_shown,
                "seconds": round(self.seconds, 3),
                "path_mean": self.step.path_mean,
                "augment": self.heuristic.state(),
                "data": self.data_sha256,
            }
            save_checkpoint(self.state_file, self._modules, self.step.optimizers, header)
        self.processes.wait()

    def _log(self, progress: Progress) -> None:
        if not self.processes.first:
            return
        try:
            with open(self.log_file, "a") as file:
                file.write(json.dumps(progress.to_json()) + "\n")
        except OSError as error:
            raise SetupError(
                f"could not write {self.log_file}: {error.strerror}",
                "free some space; the same command goes on from the last checkpoint",
            ) from error

    def _rewind_log(self) -> None:
        """Drop the records of steps that come after the state: a kill undid them."""
        if not (self.processes.first and self.log_file.exists()):
            return
        lines = self.log_file.read_text().splitlines(keepends=True)
        kept = [line for line in lines if _images_of(line) <= self.images_shown]
        if len(kept) < len(lines):
            write_text_atomic(self.log_file, "".join(kept))


class _Clock:
    """Seconds of this call, of training alone, and since the last checkpoint."""

    def __init__(self, images_before: int, seconds_before: float) -> None:
        self.images_before, self.seconds_before = images_before, seconds_before
        self._started = self._checkpoint = time.perf_counter()
        self._paused = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile is no training: others look at the run."""
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    def training(self) -> float:
        return self.elapsed() - self._paused

    def elapsed(self) -> float:
        return time.perf_counter() - self._started

    def since_checkpoint(self) -> float:
        return time.perf_counter() - self._checkpoint

    def restart_checkpoint(self) -> None:
        self._checkpoint = time.perf_counter()


def _crossed(before: int, now: int, interval: float) -> bool:
    """Whether a multiple of the interval lies in (before, now]."""
    return math.floor(now / interval) > math.floor(before / interval)


def _images_of(line: str) -> float:
    """The position of a record; infinite for one that a kill cut short."""
    if not line.endswith("\n"):
        return math.inf
    images: int = json.loads(line)["images"]
    return images


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Options that differ, as `name was ..., is ...`; those of the network by their own names."""
    found = []
    for key, value in now.items():
        old = before.get(key, EARLIER.get(key))
        if isinstance(value, dict) and isinstance(old, dict):
            found += _differences(old, value)
        elif old != value:
            found.append(f"{key} was {old}, is {value}")
    return found
