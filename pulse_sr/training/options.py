"""The options of any training; imports neither torch nor numpy."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_sr.files.paths import FILE
from pulse_sr.options import (
    Kind,
    Options,
    Unfit,
    device_option,
    finite,
    number,
    of_type,
    option,
    path,
    plain,
    precision_option,
    text,
    whole,
)

_SECONDS = {"S": 1.0, "M": 60.0, "H": 3600.0, "": 60.0}
_BYTES = {"GB": 1e9, "MB": 1e6, "GIB": 2**30, "MIB": 2**20, "": 1e9}


#: More thousands of images than any training is shown.
MOST_KIMG = 10**9
#: Each further average is a copy of the network in memory.
MOST_AVERAGES = 16
#: From a single image up.
KIMG = number(0.001, MOST_KIMG)


def _amount(text: str, units: dict[str, float]) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text, re.IGNORECASE)
    if match is None or match[2].upper() not in units:
        raise ValueError(text)
    return float(match[1]) * units[match[2].upper()]


def _different_positive(value: Any) -> tuple[float, ...]:
    numbers = tuple(finite(each, 0.001, MOST_KIMG) for each in of_type(value, tuple))
    if len(numbers) > MOST_AVERAGES:
        raise Unfit(f"{len(numbers)} numbers, at most {MOST_AVERAGES}")
    if len(set(numbers)) < len(numbers):
        raise ValueError(value)
    return numbers


#: A time in seconds; a bare number of the command line means minutes.
DURATION = Kind(
    "a time such as 90s, 30m or 2h",
    lambda value: finite(value, 0, 1e9),
    "30m|2h",
    lambda text: _amount(text, _SECONDS),
    lambda value: f"{plain(value / 60)}m" if value % 60 == 0 else f"{plain(value)}s",
)
#: An amount of memory in bytes; a bare number of the command line means GB.
BYTES = Kind(
    "an amount such as 4GB or 900MB",
    lambda value: int(finite(of_type(value, int), 1, 2**60)),
    "4GB|900MB",
    lambda text: round(_amount(text, _BYTES)),
    lambda value: f"{plain(value / 1e6)}MB",
)
#: Several numbers, as a tuple.
NUMBERS = Kind(
    "different positive numbers such as 5,20",
    _different_positive,
    "5,20",
    lambda text: tuple(float(word) for word in text.split(",")),
    lambda value: ",".join(map(plain, value)),
)


@dataclass(frozen=True)
class DataOptions(Options):
    """What of the data is learned from."""

    member: str | None = option(
        None,
        "The field of WebDataset's samples that is the image, such as image.png; masks are none.",
        text("FIELD", r"\.?[^./][^/]*", "a field such as image.png"),
        unset="jpg, png, ...",
    )


@dataclass(frozen=True)
class MachineOptions(Options):
    """Where a run computes, and what it may take; `max_memory` in bytes."""

    max_memory: int | None = option(
        None,
        "Deal a batch out in parts that fit; keep no activations if it must be.",
        BYTES,
    )
    compile: bool = option(False, "Use torch.compile where gradients allow it.")
    device: str = device_option()
    precision: str = precision_option()


@dataclass(frozen=True)
class ScheduleOptions(Options):
    """When a run stops and writes: times in seconds, images in thousands."""

    seconds: float | None = option(None, "Stop cleanly after this time.", DURATION, name="time")
    kimg: float | None = option(None, "Stop after this many thousand images.", KIMG, unset="1000")
    checkpoint_every: float = option(600.0, "Time between checkpoints.", DURATION)
    snapshot: float = option(20.0, "kimg between pictures and scores.", KIMG)

    @property
    def until_images(self) -> float:
        """Images to stop after: without any limit a million, with one of time no number."""
        if self.kimg is not None:
            return self.kimg * 1000
        return 1_000_000 if self.seconds is None else math.inf


@dataclass(frozen=True)
class Observation(Options):
    """What is looked at during a training.

    `command` is the command line, for the card; `member` the field of the held-back samples.
    """

    samples: int = option(
        1000,
        "Samples that a score is computed from; 0: no scores.",
        whole(0, 10**6),
        name="score-samples",
    )
    held_back: Path | None = option(
        None,
        "Images that are not in DATA: the floor of the scores.",
        path("a path that exists"),
    )
    inception: Path | None = option(
        None,
        "The Inception file of the usual FID; without it no FID is computed.",
        path("a file that exists", FILE),
    )
    tensorboard: bool = option(False, "Write scalars and grids for TensorBoard too.")
    command: str = ""
    member: str | None = None
