"""`pulse-sr bench`: the project's own benchmarks, a table with ratios."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, table
from pulse_sr.cli.options import CONTEXT, device_option, standard_options, version_option
from pulse_sr.cli.train_prior import Duration

_AT_LEAST_ONE = click.IntRange(min=1)


def _microseconds(seconds: float) -> str:
    return f"{seconds * 1e6:.1f}" if seconds < 1e-3 else f"{seconds * 1e6:.0f}"


# Title, key and form of the columns of `bench ops`, each there where some row has the key.
_OP_COLUMNS: tuple[tuple[str, str, Callable[[float], str]], ...] = (
    ("ours", "ours_s", _microseconds),
    ("reference", "reference_s", _microseconds),
    ("usual", "baseline_s", _microseconds),
    ("compiled", "compiled_s", _microseconds),
    ("graph", "ours_graph_s", _microseconds),
    ("ref/ours", "reference_ratio", lambda r: f"{r:.2f}x"),
    ("usual/ours", "ratio", lambda r: f"{r:.2f}x"),
    ("in graphs", "graph_ratio", lambda r: f"{r:.2f}x"),
    ("GB/s", "bandwidth", lambda b: f"{b / 1e9:.1f}"),
    ("copy", "copy_fraction", lambda f: f"{100 * f:.0f} %"),
)


#: Parts of the environment of `bench ops` that have lines of their own.
_OWN_LINES = (
    "copy_bandwidth",
    "matrix_rate",
    "matrix_format",
    "left_out_for_time",
    "left_out_for_memory",
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


@click.group("bench", context_settings=CONTEXT)
@version_option
def command() -> None:
    """Measure pulse-sr against plain implementations, interleaved."""


@command.command("search", context_settings=CONTEXT)
@click.option("--prior", metavar="NAME|PATH", help="The prior; default: the bundled one.")
@click.option(
    "--samples",
    type=_AT_LEAST_ONE,
    default=8,
    show_default=True,
    metavar="N",
    help="Samples searched at once.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    default=100,
    show_default=True,
    metavar="N",
    help="Steps of every run.",
)
@_repeats_option(3, "Runs of each side, interleaved.")
@device_option
@standard_options
def search_command(
    prior: str | None,
    samples: int,
    steps: int,
    repeats: int,
    device: str,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Measure our search against a plain form of the original's loop.

    Example: pulse-sr bench search --json
    """
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.api import load_prior
    from pulse_sr.bench import search

    loaded = load_prior(prior, device)
    report = search.bench_search(loaded, samples, steps, repeats, progress=console.live)
    _show(console, report, search_lines(report), as_json)
    return 0


@command.command("ops", context_settings=CONTEXT)
@_repeats_option(5, "Measurements of each side of a row, interleaved.")
@click.option("--full", is_flag=True, help="All shapes, on a CPU too: takes very long there.")
@click.option(
    "--time",
    "seconds",
    type=Duration(),
    default=math.inf,
    metavar="30m|2h",
    help="Start no row after this time.  [default: none]",
)
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


def search_lines(report: dict[str, Any]) -> list[str]:
    """Returns the report of `bench search` as text."""
    rows = report["rows"]
    cells = [("name", "ours_s", "baseline_s", "ratio"), *map(_search_cells, rows)]
    return [table(cells), *_memory_lines(rows), _environment_line(report)]


def _search_cells(row: dict[str, Any]) -> tuple[str, ...]:
    times = f"{row['ours_s']:.4g}", f"{row['baseline_s']:.4g}"
    return (row["name"], *times, f"{row['ratio']:.2f}x")


def _memory_lines(rows: list[dict[str, Any]]) -> list[str]:
    return [
        f"{row['name']}: peak memory {row['ours_peak_mb']:.0f} MB against "
        f"{row['baseline_peak_mb']:.0f} MB (the search alone {row['ours_added_mb']:.0f} and "
        f"{row['baseline_added_mb']:.0f}), system time {row['ours_system_s']:.2f} s against "
        f"{row['baseline_system_s']:.2f} s"
        for row in rows
        if "ours_peak_mb" in row
    ]


def train_lines(report: dict[str, Any]) -> list[str]:
    """Returns the report of `bench train` as text."""
    heading = ("name", "ours_s", "baseline_s", "ratio", "range", "images/s")
    cells = [heading, *map(_train_cells, report["rows"])]
    memory = [
        f"{row['name']}: peak memory {row['ours_peak_mb']:.0f} MB against "
        f"{row['baseline_peak_mb']:.0f} MB (the training alone {row['ours_added_mb']:.0f} and "
        f"{row['baseline_added_mb']:.0f}), system time of a step {row['ours_system_s']:.2g} s "
        f"against {row['baseline_system_s']:.2g} s"
        for row in report["rows"]
    ]
    return [table(cells), *memory, _environment_line(report)]


def _train_cells(row: dict[str, Any]) -> tuple[str, ...]:
    least, largest = row["ratio_range"]
    rates = f"{row['ours_images_per_s']:.4g} against {row['baseline_images_per_s']:.4g}"
    return (*_search_cells(row), f"{least:.2f}-{largest:.2f}x", rates)


def ops_lines(report: dict[str, Any]) -> list[str]:
    """Returns the report of `bench ops` as text of at most 140 columns, times in microseconds."""
    rows, fixed, environment = report["rows"], report["pytorch"], report["environment"]
    lines = [_ops_table(rows)] if rows else []
    if fixed:
        lines += ["", "one pass in PyTorch (FastGAN's pair):", _ops_table(fixed)]
    if rows:
        mean = f"ratio {report['ratio']:.2f}x: geometric mean over {len(rows)} rows of usual / ours"
        lines += ["", mean]
    lines += [
        f"copy bandwidth {environment['copy_bandwidth'] / 1e9:.1f} GB/s, matrix products "
        f"{environment['matrix_rate'] / 1e12:.2f} TFLOP/s in {environment['matrix_format']}",
        f"rows left out: {environment['left_out_for_time']} for want of time, "
        f"{environment['left_out_for_memory']} for want of memory",
        _environment_line(report, but=_OWN_LINES),
    ]
    return lines


def _ops_table(rows: list[dict[str, Any]]) -> str:
    columns = [column for column in _OP_COLUMNS if any(column[1] in row for row in rows)]
    cells = [("name", *(title for title, _, _ in columns))]
    for row in rows:
        each = (form(row[key]) if key in row else "-" for _, key, form in columns)
        cells.append((row["name"], *each))
    return table(cells)


def _environment_line(report: dict[str, Any], but: Sequence[str] = ()) -> str:
    values = report["environment"].items()
    return "  ".join(f"{key} {value}" for key, value in values if key not in but)
