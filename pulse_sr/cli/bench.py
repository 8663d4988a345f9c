"""`pulse-sr bench`: the project's own benchmarks, a table with ratios."""

from __future__ import annotations

import importlib
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, table
from pulse_sr.cli.options import CONTEXT, device_option, standard_options

#: WHAT -> module:function(prior, samples, steps, repeats, progress=...) that returns the report.
BENCHMARKS = {"search": "pulse_sr.bench.search:bench_search"}

_AT_LEAST_ONE = click.IntRange(min=1)


@click.command("bench", context_settings=CONTEXT)
@click.argument("what", type=click.Choice(list(BENCHMARKS)), metavar="WHAT")
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
@click.option(
    "--repeats",
    type=_AT_LEAST_ONE,
    default=3,
    show_default=True,
    metavar="N",
    help="Runs of each side, interleaved.",
)
@device_option
@standard_options
def command(
    what: str,
    prior: str | None,
    samples: int,
    steps: int,
    repeats: int,
    device: str,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Measure WHAT (search) against a plain implementation, interleaved.

    Example: pulse-sr bench search --json
    """
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.api import load_prior

    module, function = BENCHMARKS[what].split(":")
    measure = getattr(importlib.import_module(module), function)
    report = measure(load_prior(prior, device), samples, steps, repeats, progress=console.live)
    console.clear()
    if as_json:
        emit_json(report)
        return 0
    click.echo(table([("name", "ours_s", "baseline_s", "ratio"), *map(_cells, report["rows"])]))
    for line in _memory_lines(report["rows"]):
        click.echo(line)
    click.echo("  ".join(f"{key} {value}" for key, value in report["environment"].items()))
    return 0


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
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
