"""How the benchmarks measure: their options; imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_sr.errors import UsageError
from pulse_sr.options import Options, device_option, option, precision_option, prior_option, whole
from pulse_sr.training.options import DURATION


def _samples(text: str) -> int:
    return option(8, text, whole(1, 4096))


def _repeats(default: int, text: str) -> int:
    return option(default, text, whole(1, 1000))


def _steps_in_repeat() -> int:
    text = "Steps of each side in a repeat; on a GPU a multiple of 4."
    return option(3, text, whole(1, 10**6))


def _time(text: str) -> float | None:
    return option(None, text, DURATION, name="time", unset="none")


@dataclass(frozen=True)
class SearchBench(Options):
    """Of `bench search`; `alone`: also run every side in a process, for memory and system time."""

    samples: int = _samples("Samples searched at once.")
    steps: int = option(100, "Steps of every run.", whole(2, 10**6))
    baseline_steps: int | None = option(
        None,
        "Steps of the original's loop in a run, spread over ours.",
        whole(2, 10**6),
        unset="as many",
    )
    repeats: int = _repeats(3, "Runs of each side, interleaved.")
    seconds: float | None = _time("Leave out after this time what can be spared.")
    prior: str | None = prior_option()
    device: str = device_option()
    precision: str = precision_option()
    alone: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.of_baseline > self.steps:
            raise UsageError(
                f"--baseline-steps {self.of_baseline} expects 2 to --steps {self.steps}"
            )

    @property
    def of_baseline(self) -> int:
        """Steps of the original's loop, with the default filled in."""
        return self.steps if self.baseline_steps is None else self.baseline_steps


@dataclass(frozen=True)
class MatchBench(Options):
    """Of `bench match`."""

    samples: int = _samples("Samples of each input, searched at once.")
    repeats: int = _repeats(3, "Without images: so many faces that the prior draws.")
    prior: str | None = prior_option()
    device: str = device_option()
    precision: str = precision_option()


@dataclass(frozen=True)
class OpsBench(Options):
    """Of `bench ops`; the first row is always measured."""

    repeats: int = _repeats(5, "Measurements of each side of a row, interleaved.")
    full: bool = option(False, "All shapes: on a CPU very slow.")
    seconds: float | None = _time("Start no row after this time.")
    device: str = device_option()


@dataclass(frozen=True)
class TrainBench(Options):
    """Of `bench train`; the steps are rounded up to whole turns of the trainer."""

    batch: int = option(8, "Images a step.", whole(2, 4096))
    ngf: int = option(64, "Width of both networks.", whole(1, 1024))
    steps: int = _steps_in_repeat()
    repeats: int = _repeats(3, "Repeats, of which the spread is shown.")
    device: str = device_option()


@dataclass(frozen=True)
class TrainSrBench(Options):
    """Of `bench train-sr`; the steps as those of `TrainBench`."""

    batch: int = option(16, "Patches a step.", whole(2, 4096))
    steps: int = _steps_in_repeat()
    repeats: int = _repeats(3, "Repeats, of which the spread is shown.")
    device: str = device_option()
