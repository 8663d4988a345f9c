"""`pulse-sr eval`: the metrics of results against their references."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, print_result, progress_bar, show_plan, table
from pulse_sr.cli.options import (
    CONTEXT,
    Checked,
    dry_run_option,
    out_option,
    path_argument,
    standard_options,
    takes,
)
from pulse_sr.files.paths import FOLDER
from pulse_sr.metrics.options import EvalOptions
from pulse_sr.options import path

#: So many names of what did not match are shown; `metrics.json` has all.
_MOST_NAMES = 10

Document = dict[str, Any]


@click.command("eval", context_settings=CONTEXT)
@path_argument("results", "RESULT_DIR", FOLDER)
@click.option(
    "--reference",
    "references",
    required=True,
    metavar="DIR",
    type=Checked(path("a folder that exists", FOLDER)),
    help="The true pictures, of the same stems and sizes.",
)
@out_option(
    None, "Where tables and plots go.  [default: ./<name of RESULT_DIR>-eval]", required=False
)
@takes(options=EvalOptions)
@dry_run_option
@standard_options
def command(
    results: Path,
    references: Path,
    out: Path | None,
    options: EvalOptions,
    dry_run: bool,
    console: Console,
) -> int:
    """Measure the results in RESULT_DIR (of run, upscale, compare, or any) against references.

    Every number stands with the convention that it was taken by. A metric whose weight file is
    missing is skipped with what to fetch; nothing takes its place.

    Example: pulse-sr eval pulse_out --reference faces/ --by labels.csv
    """
    from pulse_sr.jobs import evaluating

    out = out or evaluating.default_out(results)
    plan = evaluating.plan_evaluation(results, references, out, options)
    if dry_run:
        stems = [each.stem for each in plan.matched.inputs]
        settings = {**plan.describe(), "out": str(out)}
        return show_plan(console, settings, {"inputs": stems}, [("measure", s) for s in stems])
    document = evaluating.evaluate(plan, _listener(console))
    console.clear()
    code = _exit_code(document, options)
    if console.as_json:
        emit_json({**document, "out": str(out), "exit_code": code})
    else:
        print_result(_numbers(document))
        for column, groups in document["groups"].items():
            print_result("\n" + _group_table(column, groups, document["gaps"][column]))
    _say_what_failed(document, console)
    console.line(f"{document['inputs']} inputs measured; tables and plots in {out}")
    return code


def _listener(console: Console) -> Callable[[int, int, str], None]:
    started = time.monotonic()

    def tell(done: int, total: int, stem: str) -> None:
        now = stem if done < total else "metrics of whole sets"
        console.live(f"{progress_bar(done, total, time.monotonic() - started)}  {now}")

    return tell


def _exit_code(document: Document, options: EvalOptions) -> int:
    """3 where nothing of what was asked for by name could be measured for want of weights."""
    if options.metrics and all(row["missing"] for row in document["table"]):
        return 3
    return int(bool(document["failed"] or document["without_reference"]))


def _numbers(document: Document) -> str:
    """Each metric on a line, its convention below."""
    rows = [_number(row) for row in document["table"]]
    lines = table([cells for cells, _ in rows]).splitlines()
    below = [f"    {text}" for _, text in rows]
    return "\n".join(line for pair in zip(lines, below, strict=True) for line in pair)


def _number(row: Document) -> tuple[tuple[str, ...], str]:
    if row["value"] is None:
        return (row["title"], "skipped", "", "", ""), f"skipped: {row['skipped']}"
    interval = "" if row["interval"] is None else "[{:.4g}, {:.4g}]".format(*row["interval"])
    better = f"{row['better']} is better" if row["better"] else ""
    value = f"{row['value']:.4g} {row['unit']}"
    text = row["convention"] + (f"; without {row['skipped']}" if row["skipped"] else "")
    return (row["title"], value, interval, f"{row['inputs']} inputs", better), text


def _group_table(column: str, groups: Document, gaps: Document) -> str:
    """Metrics against groups, then the gaps."""
    head = (column, *(f"{name} ({each['inputs']})" for name, each in groups.items()))
    rows = [head]
    tables = [each["table"] for each in groups.values()]
    for entries in zip(*tables, strict=True):
        values = ["-" if e["value"] is None else f"{e['value']:.4g}" for e in entries]
        if any(value != "-" for value in values):
            rows.append((entries[0]["title"], *values))
    titles = {entry["metric"]: entry["title"] for entry in tables[0]}
    found = [
        (
            f"largest gap of {titles[name]}",
            f"{gap['value']:.3g}",
            f"[{gap['low']:.3g}, {gap['high']:.3g}]",
            f"by chance under {gap['by_chance']:.3g}",
            f"{gap['least']} to {gap['most']}",
        )
        for name, gap in gaps.items()
    ]
    return table(rows) + ("\n" + table(found) if found else "")


def _say_what_failed(document: Document, console: Console) -> None:
    for row in document["failed"]:
        console.error(f"{row['stem']}: {row['error']}", row["hint"])
    for key, words in (
        ("without_reference", "results have no reference"),
        ("without_result", "references have no result"),
    ):
        stems = document[key]
        if stems:
            more = ", ..." if len(stems) > _MOST_NAMES else ""
            console.line(f"{len(stems)} {words}: {', '.join(stems[:_MOST_NAMES])}{more}")
