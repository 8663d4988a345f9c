"""`pulse-sr compare`: bicubic, supervised and latent search side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import click

from pulse_sr.cli.console import Console, Pace, exit_code_now, print_result, show_plan, table
from pulse_sr.cli.options import (
    CONTEXT,
    dry_run_option,
    out_option,
    stage_of,
    standard_options,
    takes,
)
from pulse_sr.config import CompareOptions, EngineOptions, SearchConfig

#: Number of a method -> head of its column, and how it is written.
_COLUMNS = {
    "lr_psnr": ("LR-PSNR", "{:.2f} dB"),
    "psnr": ("PSNR", "{:.2f} dB"),
    "ssim": ("SSIM", "{:.4f}"),
    "distance": ("feature distance", "{:.4f}"),
}


@click.command("compare", context_settings=CONTEXT)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@out_option(
    "compared",
    "Folder (or URL) for the results: <stem>/compare.png and <stem>/compare.json each.",
    urls=True,
)
@takes(options=CompareOptions, config=SearchConfig, engine=EngineOptions)
@dry_run_option
@standard_options
def command(
    inputs: tuple[str, ...],
    out: Path | str,
    options: CompareOptions,
    config: SearchConfig,
    engine: EngineOptions,
    dry_run: bool,
    console: Console,
) -> int:
    """Enlarge each low-res face INPUT by every method, in one picture and one table.

    Nearest, bicubic, the supervised network, that projected onto what downscales to the input, and
    the latent search (its first sample, and the mean of all).

    Example: pulse-sr compare face_lr.png --truth face.png -o compared
    """
    from pulse_sr.jobs.comparing import plan_compare
    from pulse_sr.jobs.executors.choice import choose_executor

    stage = stage_of(inputs, out, console, recursive=options.recursive, dry_run=dry_run)
    executor = stage.executor(choose_executor(engine, config.device))
    device = engine.device(config.device)
    plan = plan_compare(stage.inputs, stage.out, config, options, device=device)
    if dry_run:
        actions = [(action, str(path), str(truth or "")) for action, path, truth in plan.actions()]
        names = ("action", "path", "truth")
        listed = [dict(zip(names, each, strict=True)) for each in actions]
        return show_plan(console, plan.describe() | asdict(engine), {"images": listed}, actions)
    rows: list[dict[str, Any]] = []
    total = len(plan.tasks)
    pace = Pace(console, total)

    def show(task: Any, step: Any) -> None:
        console.live(
            f"[{len(rows) + 1}/{total}] {task.stem}  step {step.step}/{step.steps}  "
            f"{step.done}/{step.samples} samples"
        )

    try:
        for row in plan.carry_out(progress=show, executor=executor):
            rows.append(row)
            _show_row(row, f"[{len(rows)}/{total}]", console)
            pace.show(len(rows), sum(each["status"] == "failed" for each in rows))
    finally:
        means = mean_methods([row for row in rows if row["status"] == "ok"])
        code = _summarise(rows, total, means, out, console)
        if console.as_json and rows:
            console.json(
                {"out": str(out), "exit_code": exit_code_now(code), "images": rows, "mean": means}
            )
    return code


def mean_methods(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The means over inputs of the numbers of each method, and over how many inputs."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for method in (each for row in rows for each in row["methods"]):
        by_name.setdefault(method["method"], []).append(method)
    found = []
    for name, methods in by_name.items():
        # The network may be another one for inputs of another size.
        title = methods[0]["title"] if len({each["title"] for each in methods}) == 1 else name
        found.append({"method": name, "title": title, "inputs": len(methods)})
        for number in _COLUMNS:
            values = [each[number] for each in methods if each.get(number) is not None]
            if values:
                found[-1][number] = round(fmean(values), 4)
    return found


def _show_row(row: dict[str, Any], place: str, console: Console) -> None:
    if row["status"] == "failed":
        console.error(row["error"], row["hint"])
        return
    done = "complete before" if row.get("resumed") else f"{row['seconds']:.1f} s"
    notes = "".join(f", {note}" for note in row["notes"])
    console.line(f"{place} {row['stem']}  {done}{notes}")
    if not console.as_json and not console.quiet:
        print_result(_table(row["methods"]))


def _table(methods: Sequence[dict[str, Any]]) -> str:
    known = [name for name in _COLUMNS if any(each.get(name) is not None for each in methods)]
    lines = [("", *(_COLUMNS[name][0] for name in known))]
    for each in methods:
        numbers = (each.get(name) for name in known)
        forms = (_COLUMNS[name][1] for name in known)
        texts = [
            "" if number is None else form.format(number)
            for number, form in zip(numbers, forms, strict=True)
        ]
        lines.append((each["title"], *texts))
    return table(lines)


def _summarise(
    rows: Sequence[dict[str, Any]],
    total: int,
    means: Sequence[dict[str, Any]],
    out: Path | str,
    console: Console,
) -> int:
    """Says what was done; returns the exit code."""
    failed = sum(row["status"] == "failed" for row in rows)
    resumed = sum(bool(row.get("resumed")) for row in rows)
    compared = len(rows) - failed - resumed
    if compared + resumed > 1 and not console.as_json and not console.quiet:
        print_result(f"\nmean of {compared + resumed} inputs\n{_table(means)}")
    parts = [f"{compared} compared", f"{resumed} complete before"]
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{total - len(rows)} not started"] if total > len(rows) else []
    console.line(f"{', '.join(parts)}; results in {out}")
    return int(failed > 0)
