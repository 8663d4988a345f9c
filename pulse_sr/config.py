"""Settings of a search and of a run, checked once at the border.

`SearchConfig` is what the Python API, the command line and the result files share. This file
imports neither torch nor numpy, so that `pulse-sr run --help` can show its defaults.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pulse_sr.errors import UsageError
from pulse_sr.operators.spec import AUTO, LONGEST_OPERATOR, OperatorSpec, parse_operator
from pulse_sr.options import (
    Kind,
    Options,
    device_option,
    named,
    number,
    one_of,
    option,
    overwrite_option,
    path,
    precision_option,
    prior_option,
    recursive_option,
    seed_option,
    text,
    whole,
    whole_numbers,
)

METHODS = ("phased", "pulse", "ilo", "langevin")
#: Methods that draw samples: all take all their steps.
SAMPLERS = ("langevin",)

DEFAULT_STEPS = {"phased": 100, "pulse": 100, "ilo": 150, "langevin": 800}
DEFAULT_SLOTS = 8

#: What `--operator` takes: `operators.spec` has the grammar, which is checked.
_WORDS = text("SPEC", r".*\S.*", "a description such as bicubic", LONGEST_OPERATOR)


def _accept_operator(value: Any) -> str:
    words: str = _WORDS.accept(value)
    if words.strip() != AUTO:
        parse_operator(words)
    return words


OPERATOR = replace(_WORDS, accept=_accept_operator)


@dataclass(frozen=True)
class SearchConfig(Options):
    """Settings of one search: the options of the same names say what they are.

    Where None is the default, `total_steps`, `slots` and `projection` fill it in; without `scale`
    the input's size decides, and without `fit` an input that is not square is padded, one whose
    size does not fit the prior refused.

    Raises:
        UsageError: a value is of the wrong type or out of its range, or two of them do not go
            together; the message names the option.
    """

    samples: int = option(8, "Faces for each input.", whole(1, 100_000))
    seed: int = seed_option()
    method: str = option("phased", "The search.", one_of(*METHODS))
    strict_pulse: bool = option(
        False, "With --method pulse: the original's own behaviour, for tables."
    )
    steps: int | None = option(None, "Steps per sample.", whole(1, 1_000_000), unset="the method's")
    operator: str = option(
        "bicubic",
        "How the inputs were made from high-res images, such as 'gaussian:1.6|pillow|noise:0.02', "
        "mask:FILE or gray; auto finds out.",
        OPERATOR,
    )
    scale: int | None = option(
        None, "High-res / low-res size.", whole(1, 1024), unset="prior resolution / LR size"
    )
    project: str | None = option(
        None,
        "Null-space projection.",
        one_of("exact", "soft", "off"),
        unset="exact; soft for JPEG and noise",
    )
    target_db: float = option(38.0, "LR-PSNR at which a sample stops.", number(1, 100, "dB"))
    fit: str | None = option(
        None,
        "Pad or crop to a square, and resize to a size that the prior knows.",
        one_of("pad", "crop"),
    )
    batch: int | None = option(
        None, "Samples searched at once.", whole(1, 4096, auto=True), unset="auto"
    )
    device: str = device_option()
    precision: str = precision_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strict_pulse and self.method != "pulse":
            raise UsageError(
                f"--strict-pulse expects --method pulse, got --method {self.method}",
                "add --method pulse",
            )
        if self.operator.strip() != AUTO:
            self._check_operator(parse_operator(self.operator))
        if self.method in SAMPLERS and self.target_db != type(self).target_db:
            raise UsageError(
                f"--target-db has no effect on --method {self.method}: no sample stops early",
                "leave it out; --steps says how long the chains are",
            )

    def _check_operator(self, spec: OperatorSpec) -> None:
        if not spec.resizes and self.scale not in (None, 1):
            raise UsageError(
                f"--scale {self.scale} does not suit --operator {spec.text!r}: it keeps the size",
                f"--scale 1, or --operator 'bicubic|{spec.text}'",
            )
        if spec.has_jpeg and self.project == "exact":
            raise UsageError(
                f"--project exact cannot meet the JPEG file of --operator {self.operator!r}",
                "--project soft",
            )

    @property
    def _noisy(self) -> bool:
        return self.operator.strip() != AUTO and parse_operator(self.operator).noisy

    @property
    def total_steps(self) -> int:
        """Steps per sample, with the method's default filled in."""
        return DEFAULT_STEPS[self.method] if self.steps is None else self.steps

    @property
    def slots(self) -> int:
        """How many samples are searched at once, with the default of a CPU filled in."""
        return DEFAULT_SLOTS if self.batch is None else self.batch

    def projection(self, *, is_jpeg: bool) -> str:
        """Returns "exact", "soft" or "off": the choice made, or what fits this input.

        Without a choice it is "off" for the strict original (which has no projection), "soft"
        for a JPEG file or an operator with noise, which must not be reproduced, else "exact".
        """
        if self.project is not None:
            return self.project
        if self.strict_pulse:
            return "off"
        return "soft" if is_jpeg or self._noisy else "exact"

    def pixel_options(self) -> dict[str, Any]:
        """Returns what decides a sample's pixels beside the input and the prior.

        `samples` is not among them (sample 3 of 4 is sample 3 of 8), nor is the device: results of
        a GPU and of a CPU may share a run. The slot count is, since it may change the rounding.
        A mask is named by the content of its file.

        Raises:
            UsageError: the mask file can not be read.
        """
        options = asdict(self)
        del options["samples"], options["device"]
        operator = self.operator.strip()
        options["operator"] = AUTO if operator == AUTO else parse_operator(operator).identity()
        options["steps"] = self.total_steps
        options["batch"] = self.slots
        options["project"] = self.project or "auto"
        return options


def _accept_part(value: Any) -> tuple[int, int]:
    part, whole = value if isinstance(value, tuple) else ()
    if type(part) is not int or type(whole) is not int or not 0 <= part < whole <= 10**6:
        raise ValueError(value)
    return part, whole


#: One of several equal parts, as two whole numbers.
PART = Kind(
    "i/N with 0 <= i < N",
    _accept_part,
    "i/N",
    lambda text: _accept_part(tuple(map(int, text.split("/")))),
    lambda value: f"{value[0]}/{value[1]}",
    hint="number the shards from 0: --shard 0/4 ... 3/4",
)


#: The value of `RunOptions.background` without a network.
LANCZOS = "lanczos"


@dataclass(frozen=True)
class RunOptions(Options):
    """How a run treats its inputs and what it writes, beside the search itself.

    `align` "auto" finds the faces of photos, searches each and pastes it back, and leaves low-res
    faces as they are (`alignment.intake.faces_to_search`); "always" takes every input as a photo,
    "never" none. `cluster` shows the samples in covering order (`metrics.covering`), also of
    complete inputs. A face of a photo is searched where it has `min_score` and `min_size`, and
    where the prior can improve it at this `upscale`. With `save_steps` samples that were found
    without are searched again. `shard` is (i, N): every N-th input from the i-th, in the order of
    their resolved paths, so that N processes can share one run folder.
    """

    prior: str | None = prior_option()
    align: str = option(
        "auto",
        "Find the faces of photos, search each, and put them into the enlarged photo.",
        one_of("auto", "always", "never"),
    )
    cluster: bool = option(
        False, "Show the most typical sample first, then always the most different one."
    )
    save_steps: bool = option(
        False, "Keep frames of each search and make an animation (search.gif) of them."
    )
    overwrite: bool = overwrite_option()
    shard: tuple[int, int] | None = option(
        None, "Only the i-th of N parts of the inputs, from 0.", PART
    )
    retry_failed: bool = option(False, "Try again what failed in an earlier run.")
    recursive: bool = recursive_option()
    upscale: int = option(
        2, "How many times as large photos come back, with a sample of every face.", whole(1, 8)
    )
    background: str = option(
        LANCZOS,
        "What enlarges a photo outside its faces: lanczos, or a network (see upscale --list).",
        named("lanczos|NAME|PATH", "lanczos, the name of a network or a path"),
    )
    min_score: float = option(
        0.85, "Leave out faces that the detector is less sure of.", number(0, 1)
    )
    min_size: float = option(
        16.0, "Leave out faces whose crop has fewer px in the photo.", number(1, 65536)
    )
    faces: tuple[int, ...] = option(
        (),
        "Only these faces of each photo, by the page's numbers.",
        whole_numbers("numbers of faces such as 1,3", "N,N", 1, 10_000),
    )

    def selection(self) -> dict[str, Any]:
        """Returns what decides which faces of a photo are searched, as JSON."""
        names = ("upscale", "min_score", "min_size")
        chosen = {name: getattr(self, name) for name in names} | {"faces": list(self.faces)}
        return {"align": self.align, "selection": chosen}


@dataclass(frozen=True)
class EngineOptions(Options):
    """Who does the work of a job: this process, or workers of a Ray cluster."""

    engine: str = option(
        "local",
        "Work in this process, or in those of a Ray cluster (docs/cluster.md).",
        one_of("local", "ray"),
    )
    workers: int | None = option(
        None, "Worker processes of the cluster.", whole(1, 10_000), unset="one a GPU, or 4 CPUs"
    )
    address: str | None = option(
        None,
        "The cluster; without it, one of this machine is made for the call.",
        text("HOST:PORT|auto", r"\S+", "HOST:PORT, ray://HOST:PORT or auto"),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("workers", "address"):
            if self.engine == "local" and getattr(self, name) is not None:
                raise UsageError(
                    f"--{name} is for the workers of a cluster, --engine is local", "--engine ray"
                )

    def device(self, wanted: str) -> str:
        """Returns where this process has its networks: beside a cluster it computes nothing."""
        return wanted if self.engine == "local" else "cpu"


@dataclass(frozen=True)
class CompareOptions(Options):
    """What the search is compared with; of several inputs `truth` is a folder, matched by stem."""

    truth: Path | None = option(
        None,
        "The high-res picture, or a folder of them with the names of the inputs.",
        path("a path that exists"),
    )
    prior: str | None = prior_option()
    model: str | None = option(
        None,
        "The supervised network.",
        named("NAME|PATH"),
        unset="the bundled one of the scale",
    )
    overwrite: bool = overwrite_option()
    recursive: bool = recursive_option()


@dataclass(frozen=True)
class DegradeOptions(Options):
    """How low-res test inputs are made."""

    operator: str = option(
        "bicubic", "The degradation, such as 'gaussian:1.6|pillow|noise:0.02|jpeg:40'.", OPERATOR
    )
    scale: int | None = option(
        None,
        "How many times smaller.",
        whole(1, 1024),
        unset="8; 1 for an operator that keeps the size",
    )
    seed: int = seed_option()
    recursive: bool = recursive_option()

    @property
    def spec(self) -> OperatorSpec:
        """The operator as read."""
        return parse_operator(self.operator)

    @property
    def factor(self) -> int:
        """How many times smaller, with the default filled in."""
        return (8 if self.spec.resizes else 1) if self.scale is None else self.scale
