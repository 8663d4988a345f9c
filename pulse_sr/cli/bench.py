"""`pulse-sr bench`: the project's own benchmarks, a table with ratios."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pulse_sr.bench.options import MatchBench, OpsBench, SearchBench, TrainBench, TrainSrBench
from pulse_sr.cli import bench_text as text
from pulse_sr.cli.console import Console, emit_json, print_result
from pulse_sr.cli.options import CONTEXT, Checked, standard_options, takes, version_option
from pulse_sr.errors import UsageError
from pulse_sr.files.paths import FILE
from pulse_sr.options import path, whole
from pulse_sr.report.table import Columns, Rows, result_document


def _free(ctx: click.Context, param: click.Parameter, out: Path | None) -> Path | None:
    """Refuses, before anything is measured, to replace a file that holds no results."""
    from pulse_sr.files.atomic import make_folder
    from pulse_sr.files.documents import read_json

    if out is not None:
        make_folder(out.parent)
    if out is not None and out.exists():
        found = read_json(out, quiet=True)
        if not isinstance(found, dict) or "columns" not in found:
            raise UsageError(f"{out} exists and holds no results", "choose another --output FILE")
    return out


output_option = click.option(
    "--output",
    "out",
    metavar="FILE",
    type=Checked(path("a JSON file", FILE, missing=True)),
    callback=_free,
    help="Also write a JSON file: the table, all numbers, the machine.",
)


@click.group("bench", context_settings=CONTEXT)
@version_option
def command() -> None:
    """Measure pulse-sr against plain implementations, interleaved."""


@command.command("search", context_settings=CONTEXT)
@takes(options=SearchBench)
@output_option
@standard_options
def search_command(options: SearchBench, out: Path | None, console: Console) -> int:
    """Measure our search against a plain form of the original's loop.

    Also says which share of the roofline our step reaches: its arithmetic at the rate of a large
    matrix product, its traffic at the rate of a large copy, whichever takes longer in each layer,
    both rates measured in the same run. After --time there are no further repeats, no further steps
    of the original's loop, and no runs for the peak memory. That loop always computes in float32.

    Example: pulse-sr bench search --json
    """
    from pulse_sr.api import load_prior
    from pulse_sr.bench import search

    loaded = load_prior(options.prior, options.device)
    report = search.bench_search(loaded, options, progress=console.live)
    columns = {**text.SEARCH_COLUMNS, **text.MEMORY_COLUMN}
    _write(out, "search", options.arguments(), report, columns)
    _show(console, report, text.search_lines(report))
    return 0


@command.command("match", context_settings=CONTEXT)
@click.argument("images", nargs=-1, metavar="[IMAGE...]")
@takes(options=MatchBench)
@output_option
@standard_options
def match_command(
    images: tuple[str, ...], options: MatchBench, out: Path | None, console: Console
) -> int:
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
    loaded = load_prior(options.prior, options.device)
    report = match.bench_match(loaded, inputs, options, progress=console.live)
    _write(out, "match", [*images, *options.arguments()], report, text.MATCH_COLUMNS)
    _show(console, report, text.match_lines(report))
    return 0


@command.command("ops", context_settings=CONTEXT)
@takes(options=OpsBench)
@output_option
@standard_options
def ops_command(options: OpsBench, out: Path | None, console: Console) -> int:
    """Measure the compiled ops against PyTorch and the usual algorithms.

    Every op is first compared with its reference on the shape that is measured. Times are
    microseconds; `graph` is ours from a captured graph, without launches, and `in graphs` is
    usual/ours of both; `copy` is the share of the copy bandwidth that the op reaches with the bytes
    that it must move.

    Example: pulse-sr bench ops --device cuda --json
    """
    from pulse_sr.bench import ops

    report = ops.bench_ops(options, progress=console.live)
    rows = ops.summary(report["rows"])
    _write(out, "ops", options.arguments(), report, text.OPS_COLUMNS, rows)
    _show(console, report, text.ops_lines(report))
    return 0


@command.command("train", context_settings=CONTEXT)
@click.option(
    "--resolution",
    "resolutions",
    type=Checked(whole(8, 1024)),
    multiple=True,
    default=(256, 64),
    show_default=True,
    metavar="N",
    help="Side of the images; may be repeated.",
)
@takes(options=TrainBench)
@output_option
@standard_options
def train_command(
    resolutions: tuple[int, ...], options: TrainBench, out: Path | None, console: Console
) -> int:
    """Measure our FastGAN training step against a plain NCHW float32 port.

    Both sides begin with the same weights and share the reconstruction loss. Each trains in a
    process of its own, and they take turns. Peak memory is on a GPU what torch allocated.

    Example: pulse-sr bench train --device cuda --resolution 256 --steps 20 --json
    """
    from pulse_sr.bench import train

    report = train.bench_train(options, resolutions, progress=console.live)
    words = [word for side in resolutions for word in ("--resolution", str(side))]
    columns = {**text.TRAIN_COLUMNS, **text.MEMORY_COLUMN}
    _write(out, "train", [*words, *options.arguments()], report, columns)
    _show(console, report, text.train_lines(report))
    return 0


@command.command("train-sr", context_settings=CONTEXT)
@takes(options=TrainSrBench)
@output_option
@standard_options
def train_sr_command(options: TrainSrBench, out: Path | None, console: Console) -> int:
    """Measure our adversarial step of supervised training against a plain NCHW float32 port.

    SRResNet against the VGG-style discriminator with the mean squared error, as in SRGAN (recipe
    srgan-mse), by the same weights. Each side trains in a process of its own, and they take turns.

    Example: pulse-sr bench train-sr --steps 5 --json
    """
    from pulse_sr.bench import train

    report = train.bench_train_sr(options, progress=console.live)
    columns = {**text.TRAIN_COLUMNS, **text.MEMORY_COLUMN}
    _write(out, "train-sr", options.arguments(), report, columns)
    _show(console, report, text.train_lines(report))
    return 0


def _write(
    output: Path | None,
    name: str,
    words: Sequence[str],
    report: dict[str, Any],
    columns: Columns,
    rows: Rows | None = None,
) -> None:
    """Writes the results file of --output; `rows` stand in the table instead of the report's."""
    if output is None:
        return
    from pulse_sr.files.atomic import write_atomic
    from pulse_sr.files.documents import json_bytes

    command = shlex.join(["pulse-sr", "bench", name, *words])
    shown = report["rows"] if rows is None else rows
    document = result_document("", command, columns, shown, report["environment"], report=report)
    write_atomic(output, json_bytes(document))


def _show(console: Console, report: dict[str, Any], lines: Sequence[str]) -> None:
    console.clear()
    if console.as_json:
        emit_json(report)
    else:
        print_result("\n".join(lines))
