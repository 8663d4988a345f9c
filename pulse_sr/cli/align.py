"""`pulse-sr align`: find the faces of photos and crop them as a prior wants them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click

from pulse_sr.alignment.options import AlignOptions, Limits
from pulse_sr.cli.console import Console, Pace, Terminated, exit_code_now, show_plan
from pulse_sr.cli.options import (
    CONTEXT,
    dry_run_option,
    out_option,
    stage_of,
    standard_options,
    takes,
)
from pulse_sr.config import EngineOptions


@click.command("align", context_settings=CONTEXT)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@out_option(None, "Folder (or URL) for the crops: <stem>.png and <stem>.json each.", urls=True)
@takes(options=AlignOptions, limits=Limits, engine=EngineOptions)
@dry_run_option
@standard_options
def command(
    inputs: tuple[str, ...],
    out: Path | str,
    options: AlignOptions,
    limits: Limits,
    engine: EngineOptions,
    dry_run: bool,
    console: Console,
) -> int:
    """Find every face of each INPUT (image files, folders or globs), crop and rotate it.

    Example: pulse-sr align holidays/ -o faces --size 128 --lr 16,32
    """
    from pulse_sr.images.find import find_images
    from pulse_sr.jobs import aligning
    from pulse_sr.jobs.executors.choice import choose_executor

    stage = stage_of(inputs, out, console, recursive=options.recursive, dry_run=dry_run)
    executor = stage.executor(choose_executor(engine, "cpu"))
    options = replace(options, device=engine.device(options.device))
    paths = find_images(stage.inputs, recursive=options.recursive, out=stage.out)
    landmarks = aligning.landmarks_of(options, limits)
    settings = aligning.settings_of(options, limits)
    aligning.keep_inputs(paths, stage.out, settings)
    if dry_run:
        described = {
            **asdict(settings),
            **asdict(engine),
            "framing": settings.framing.describe(),
            "out": str(stage.out),
        }
        names = [str(path) for path in paths]
        return show_plan(console, described, {"images": names}, [("align", name) for name in names])
    licences = aligning.copy_licences(stage.inputs, stage.out)
    rows = aligning.align(
        paths, stage.out, settings, landmarks, overwrite=options.overwrite, executor=executor
    )
    return _carry_out(rows, len(paths), stage.out, licences, console)


def _carry_out(
    running: Iterable[dict[str, Any]], total: int, out: Path, licences: list[Path], console: Console
) -> int:
    from pulse_sr.jobs.aligning import contact_sheet_path

    rows: list[dict[str, Any]] = []
    status, pace = "interrupted", Pace(console, total)
    try:
        for row in running:
            rows.append(row)
            _show_row(row, f"[{len(rows)}/{total}]", console)
            pace.show(len(rows), sum(each["status"] == "failed" for each in rows))
        status = "finished"
    except (KeyboardInterrupt, Terminated):
        console.clear()
        raise
    finally:
        sheet = contact_sheet_path(out)
        _summarise(rows, total, out, licences, sheet, console)
        failed = any(row["status"] == "failed" for row in rows)
        if console.as_json and rows:
            console.json(
                {
                    "status": status,
                    "out": str(out),
                    "contact_sheet": None if sheet is None else str(sheet),
                    "licences": [str(each) for each in licences],
                    "exit_code": exit_code_now(int(failed)),
                    "images": rows,
                }
            )
    return int(failed)


def _show_row(row: dict[str, Any], place: str, console: Console) -> None:
    if row["status"] == "failed":
        console.error(row["error"], row["hint"])
        return
    faces = len(row["names"])
    words = f"{faces} face" + ("" if faces == 1 else "s")
    reasons = [each["reason"] for each in row["left_out"]]
    if reasons:
        words += f", {len(reasons)} left out ({reasons[0]}{', ...' if len(reasons) > 1 else ''})"
    for each in row["faces"]:
        if each["near_duplicate_of"]:
            words += f", {each['name']} nearly equals {each['near_duplicate_of']}"
    done = "complete: " if row.get("resumed") else ""
    console.line(f"{place} {row['stem']}  {done}{words}")


def _summarise(
    rows: list[dict[str, Any]],
    total: int,
    out: Path,
    licences: list[Path],
    sheet: Path | None,
    console: Console,
) -> None:
    faces = sum(len(row.get("names", ())) for row in rows)
    failed = sum(row["status"] == "failed" for row in rows)
    left_out = sum(len(row.get("left_out", ())) for row in rows)
    twins = sum(bool(f["near_duplicate_of"]) for row in rows for f in row.get("faces", ()))
    parts = [f"{faces} faces of {len(rows)} images"]
    parts += [f"{failed} without a usable face"] if failed else []
    parts += [f"{left_out} faces left out"] if left_out else []
    parts += [f"{twins} near-duplicates (--skip-duplicates leaves them out)"] if twins else []
    parts += [f"{total - len(rows)} not started"] if total > len(rows) else []
    where = f"crops in {out}" + (f", overview {sheet}" if sheet else "")
    console.line(f"{', '.join(parts)}; {where}")
    if licences:
        console.line(f"licence files copied: {', '.join(each.name for each in licences)}")
