"""`pulse-sr bench`: the project's own benchmarks, a table with ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import click

from pulse_sr.cli.bench_text import match_lines, ops_lines, search_lines, train_lines
from pulse_sr.cli.console import Console, emit_json
from pulse_sr.cli.options import (
    CONTEXT,
    device_option,
    precision_option,
    standard_options,
    version_option,
)
from pulse_sr.cli.train_prior import Duration

_AT_LEAST_ONE = click.IntRange(min=1)


_prior_option = click.option(
    "--prior", metavar="NAME|PATH", help="The prior; default: the bundled one."
)


def _samples_option(text: str) -> Any:
    return click.option(
        "--samples",
        type=_AT_LEAST_ONE,
        default=8,
        show_default=True,
        metavar="N",
        help=text,
    )


def _repeats_option(default: int, text: str) -> Any:
    return click.option(
        "--repeats",
        type=_AT_LEAST_ONE,
        default=default,
        show_default=True,
        metavar="N",
        help=text,
    )


def _time_option(text: str) -> Any:
    return click.option(
        "--time",
        "seconds",
        type=Duration(),
        default=math.inf,
        metavar="30m|2h",
        help=f"{text}  [default: none]",
    )


@click.group("bench", context_settings=CONTEXT)
@version_option
def command() -> None:
    """Measure pulse-sr against plain implementations, interleaved."""


@command.command("search", context_settings=CONTEXT)
@_prior_option
@_samples_option("Samples searched at once.")
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    default=100,
    show_default=True,
    metavar="N",
    help="Steps of every run.",
)
@click.option(
    "--baseline-steps",
    type=click.IntRange(min=2),
    metavar="N",
    help="Steps of the original's loop in a run, spread over ours.  [default: as many]",
)
@_repeats_option(3, "Runs of each side, interleaved.")
@_time_option("Leave out after this time what can be spared.")
@device_option
@precision_option
@standard_options
def search_command(
    prior: str | None,
    device: str,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure our search against a plain form of the original's loop.

    Also says which share of the roofline our step reaches: its arithmetic at the rate of a large
    matrix product, its traffic at the rate of a large copy, whichever takes longer in each layer,
    both rates measured in the same run. After --time there are no further repeats, no further steps
    of the original's loop, and no runs for the peak memory. That loop always computes in float32.

    Example: pulse-sr bench search --json
    """
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.api import load_prior
    from pulse_sr.bench import search

    loaded = load_prior(prior, device)
    report = search.bench_search(loaded, search.Options(**options), progress=console.live)
    _show(console, report, search_lines(report), as_json)
    return 0


@command.command("match", context_settings=CONTEXT)
@click.argument("images", nargs=-1, metavar="[IMAGE...]")
@_prior_option
@_samples_option("Samples of each input, searched at once.")
@_repeats_option(3, "Without images: so many faces that the prior draws.")
@device_option
@precision_option
@standard_options
def match_command(
    images: tuple[str, ...],
    prior: str | None,
    device: str,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure how long all samples of an input take to match it.

    Ours to 38 dB, against PULSE's eps (26.99 dB) by a plain form of the original's loop and by
    --strict-pulse. A side that does not get all samples there in its 100 steps counts with the time
    of these. IMAGE is a square low-res face, made by the operator bicubic.

    Example: pulse-sr bench match faces_lr/*.png
    """
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.api import load_prior
    from pulse_sr.bench import match
    from pulse_sr.images.read import read_image

    inputs = [read_image(path) for path in images]
    loaded = load_prior(prior, device)
    report = match.bench_match(loaded, inputs, **options, progress=console.live)
    _show(console, report, match_lines(report), as_json)
    return 0


@command.command("ops", context_settings=CONTEXT)
@_repeats_option(5, "Measurements of each side of a row, interleaved.")
@click.option("--full", is_flag=True, help="All shapes, on a CPU too: takes very long there.")
@_time_option("Start no row after this time.")
@device_option
@standard_options
def ops_command(
    repeats: int,
    full: bool,
    seconds: float,
    device: str,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Measure the compiled ops against PyTorch and the usual algorithms.

    Every op is first compared with its reference on the shape that is measured. Times are
    microseconds; `graph` is ours from a captured graph, without launches, and `in graphs` is
    usual/ours of both; `copy` is the share of the copy bandwidth that the op reaches with the bytes
    that it must move.

    Example: pulse-sr bench ops --device cuda --json
    """
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.bench import ops

    report = ops.bench_ops(device, repeats, full, seconds, progress=console.live)
    _show(console, report, ops_lines(report), as_json)
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
@click.option(
    "--batch",
    type=click.IntRange(min=2),
    default=8,
    show_default=True,
    metavar="N",
    help="Images a step.",
)
@click.option(
    "--ngf",
    type=_AT_LEAST_ONE,
    default=64,
    show_default=True,
    metavar="N",
    help="Width of both networks.",
)
@click.option(
    "--steps",
    type=_AT_LEAST_ONE,
    default=3,
    show_default=True,
    metavar="N",
    help="Steps of each side in a repeat; on a GPU a multiple of 4.",
)
@_repeats_option(3, "Repeats, of which the spread is shown.")
@device_option
@standard_options
def train_command(
    resolutions: tuple[int, ...],
    batch: int,
    ngf: int,
    steps: int,
    repeats: int,
    device: str,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Measure our FastGAN training step against a plain NCHW float32 port.

    Both sides begin with the same weights and share the reconstruction loss. Each trains in a
    process of its own, and they take turns. Peak memory is on a GPU what torch allocated.

    Example: pulse-sr bench train --device cuda --resolution 256 --steps 20 --json
    """
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.bench import train

    settings = (device, batch, resolutions, ngf, steps, repeats)
    report = train.bench_train(*settings, progress=console.live)
    _show(console, report, train_lines(report), as_json)
    return 0


def _show(console: Console, report: dict[str, Any], lines: Sequence[str], as_json: bool) -> None:
    console.clear()
    if as_json:
        emit_json(report)
    else:
        click.echo("\n".join(lines))
