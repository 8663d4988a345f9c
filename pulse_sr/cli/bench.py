"""`pulse-sr bench`: the project's own benchmarks, a table with ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import click

from pulse_sr.cli.bench_text import match_lines, ops_lines, search_lines, train_lines
from pulse_sr.cli.console import Console, emit_json
from pulse_sr.cli.options import CONTEXT, standard_options, takes, version_option
from pulse_sr.options import (
    Options,
    device_option,
    option,
    precision_option,
    prior_option,
    whole,
)
from pulse_sr.training.options import DURATION


def _samples(text: str) -> int:
    return option(8, text, whole(1))


def _repeats(default: int, text: str) -> int:
    return option(default, text, whole(1))


def _time(text: str) -> float | None:
    return option(None, text, DURATION, name="time", unset="none")


@dataclass(frozen=True)
class _Search(Options):
    prior: str | None = prior_option()
    samples: int = _samples("Samples searched at once.")
    steps: int = option(100, "Steps of every run.", whole(2))
    baseline_steps: int | None = option(
        None,
        "Steps of the original's loop in a run, spread over ours.",
        whole(2),
        unset="as many",
    )
    repeats: int = _repeats(3, "Runs of each side, interleaved.")
    seconds: float | None = _time("Leave out after this time what can be spared.")
    device: str = device_option()
    precision: str = precision_option()


@dataclass(frozen=True)
class _Match(Options):
    prior: str | None = prior_option()
    samples: int = _samples("Samples of each input, searched at once.")
    repeats: int = _repeats(3, "Without images: so many faces that the prior draws.")
    device: str = device_option()
    precision: str = precision_option()


@dataclass(frozen=True)
class _Ops(Options):
    repeats: int = _repeats(5, "Measurements of each side of a row, interleaved.")
    full: bool = option(False, "All shapes, on a CPU too: takes very long there.")
    seconds: float | None = _time("Start no row after this time.")
    device: str = device_option()


@dataclass(frozen=True)
class _Train(Options):
    batch: int = option(8, "Images a step.", whole(2))
    ngf: int = option(64, "Width of both networks.", whole(1))
    steps: int = option(3, "Steps of each side in a repeat; on a GPU a multiple of 4.", whole(1))
    repeats: int = _repeats(3, "Repeats, of which the spread is shown.")
    device: str = device_option()


@click.group("bench", context_settings=CONTEXT)
@version_option
def command() -> None:
    """Measure pulse-sr against plain implementations, interleaved."""


@command.command("search", context_settings=CONTEXT)
@takes(options=_Search)
@standard_options
def search_command(options: _Search, console: Console) -> int:
    """Measure our search against a plain form of the original's loop.

    Also says which share of the roofline our step reaches: its arithmetic at the rate of a large
    matrix product, its traffic at the rate of a large copy, whichever takes longer in each layer,
    both rates measured in the same run. After --time there are no further repeats, no further steps
    of the original's loop, and no runs for the peak memory. That loop always computes in float32.

    Example: pulse-sr bench search --json
    """
    from pulse_sr.api import load_prior
    from pulse_sr.bench import search

    given = asdict(options)
    loaded = load_prior(given.pop("prior"), given.pop("device"))
    given["seconds"] = _limit(options.seconds)
    report = search.bench_search(loaded, search.Options(**given), progress=console.live)
    _show(console, report, search_lines(report))
    return 0


@command.command("match", context_settings=CONTEXT)
@click.argument("images", nargs=-1, metavar="[IMAGE...]")
@takes(options=_Match)
@standard_options
def match_command(images: tuple[str, ...], options: _Match, console: Console) -> int:
    """Measure how long all samples of an input take to match it.

    Ours to 38 dB, against PULSE's eps (26.99 dB) by a plain form of the original's loop and by
    --strict-pulse. A side that does not get all samples there in its 100 steps counts with the time
    of these. IMAGE is a square low-res face, made by the operator bicubic.

    Example: pulse-sr bench match faces_lr/*.png
    """
    from pulse_sr.api import load_prior
    from pulse_sr.bench import match
    from pulse_sr.images.read import read_image

    inputs = [read_image(path) for path in images]
    given = asdict(options)
    loaded = load_prior(given.pop("prior"), given.pop("device"))
    report = match.bench_match(loaded, inputs, **given, progress=console.live)
    _show(console, report, match_lines(report))
    return 0


@command.command("ops", context_settings=CONTEXT)
@takes(options=_Ops)
@standard_options
def ops_command(options: _Ops, console: Console) -> int:
    """Measure the compiled ops against PyTorch and the usual algorithms.

    Every op is first compared with its reference on the shape that is measured. Times are
    microseconds; `graph` is ours from a captured graph, without launches, and `in graphs` is
    usual/ours of both; `copy` is the share of the copy bandwidth that the op reaches with the bytes
    that it must move.

    Example: pulse-sr bench ops --device cuda --json
    """
    from pulse_sr.bench import ops

    settings = (options.device, options.repeats, options.full, _limit(options.seconds))
    report = ops.bench_ops(*settings, progress=console.live)
    _show(console, report, ops_lines(report))
    return 0


@command.command("train", context_settings=CONTEXT)
@click.option(
    "--resolution",
    "resolutions",
    type=int,
    multiple=True,
    default=(256, 64),
    show_default=True,
    metavar="N",
    help="Side of the images; may be repeated.",
)
@takes(options=_Train)
@standard_options
def train_command(resolutions: tuple[int, ...], options: _Train, console: Console) -> int:
    """Measure our FastGAN training step against a plain NCHW float32 port.

    Both sides begin with the same weights and share the reconstruction loss. Each trains in a
    process of its own, and they take turns. Peak memory is on a GPU what torch allocated.

    Example: pulse-sr bench train --device cuda --resolution 256 --steps 20 --json
    """
    from pulse_sr.bench import train

    given = asdict(options)
    report = train.bench_train(**given, resolutions=resolutions, progress=console.live)
    _show(console, report, train_lines(report))
    return 0


def _limit(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _show(console: Console, report: dict[str, Any], lines: Sequence[str]) -> None:
    console.clear()
    if console.as_json:
        emit_json(report)
    else:
        click.echo("\n".join(lines))
