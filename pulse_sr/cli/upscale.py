"""`pulse-sr upscale`: enlarge pictures with a supervised network."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import (
    Console,
    Pace,
    emit_json,
    exit_code_now,
    print_result,
    show_plan,
    table,
)
from pulse_sr.cli.options import (
    CONTEXT,
    dry_run_option,
    missing,
    out_option,
    stage_of,
    standard_options,
    takes,
)
from pulse_sr.config import EngineOptions
from pulse_sr.sr.options import UpscaleOptions


def _show_networks(as_json: bool) -> None:
    from pulse_sr.models.registry import list_networks

    cards = [model.facts() for model in list_networks()]
    if as_json:
        emit_json(cards)
        return
    facts = ("licence", "use")
    rows = [(c["name"], f"x{c['scale']}", *(str(c.get(key, "")) for key in facts)) for c in cards]
    print_result(table(rows))


@click.command("upscale", context_settings=CONTEXT)
@click.argument("inputs", nargs=-1, metavar="INPUT...")
@out_option(
    "upscaled", "Folder (or URL) for the results: <stem>.png and <stem>.json each.", urls=True
)
@click.option(
    "--list", "list_networks", is_flag=True, help="List the networks of the package, and end."
)
@takes(options=UpscaleOptions, engine=EngineOptions)
@dry_run_option
@standard_options
def command(
    inputs: tuple[str, ...],
    out: Path | str,
    list_networks: bool,
    options: UpscaleOptions,
    engine: EngineOptions,
    dry_run: bool,
    console: Console,
) -> int:
    """Enlarge every INPUT (image files, folders or globs) by the scale of the network.

    Depth, grey, opacity and colour profile stay. A picture of any size goes through in tiles.

    Example: pulse-sr upscale holidays/ -o large
    """
    if list_networks:
        _show_networks(console.as_json)
        return 0
    if not inputs:
        raise missing("inputs")
    from pulse_sr.jobs.executors.choice import choose_executor
    from pulse_sr.jobs.upscaling import plan_upscale

    stage = stage_of(inputs, out, console, recursive=options.recursive, dry_run=dry_run)
    executor = stage.executor(choose_executor(engine, options.device))
    plan = plan_upscale(
        stage.inputs,
        stage.out,
        options.model,
        tile=options.tile,
        device=engine.device(options.device),
        overwrite=options.overwrite,
        recursive=options.recursive,
    )
    if dry_run:
        actions = [(action, str(path)) for action, path in plan.actions()]
        listed = [{"action": action, "path": path} for action, path in actions]
        return show_plan(console, plan.describe() | asdict(engine), {"images": listed}, actions)
    card = plan.model.card
    if card.get("licence") == "unstated" and "caveat" in card:
        console.line(f"{plan.model.name}: no licence of the weights is stated. {card['caveat']}")
    rows: list[dict[str, Any]] = []
    total = len(plan.entries)
    pace = Pace(console, total)
    try:
        for row in plan.carry_out(executor):
            rows.append(row)
            _show_row(row, f"[{len(rows)}/{total}]", console)
            pace.show(len(rows), sum(each["status"] == "failed" for each in rows))
    finally:
        failed = sum(row["status"] == "failed" for row in rows)
        resumed = sum(bool(row.get("resumed")) for row in rows)
        parts = [f"{len(rows) - failed - resumed} enlarged", f"{resumed} complete before"]
        parts += [f"{failed} failed"] if failed else []
        parts += [f"{total - len(rows)} not started"] if total > len(rows) else []
        console.line(f"{', '.join(parts)}; results in {out}")
        if console.as_json and rows:
            console.json(
                {"out": str(out), "exit_code": exit_code_now(int(failed > 0)), "images": rows}
            )
    return int(failed > 0)


def _show_row(row: dict[str, Any], place: str, console: Console) -> None:
    if row["status"] == "failed":
        console.error(row["error"], row["hint"])
        return
    done = "complete before" if row.get("resumed") else f"{row['seconds']:.1f} s"
    notes = "".join(f", {note}" for note in row["notes"])
    console.line(f"{place} {row['file']}  {row['width']}x{row['height']} px, {done}{notes}")
