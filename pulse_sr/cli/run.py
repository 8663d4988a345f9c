"""`pulse-sr run`: search the prior for faces that downscale to each input."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_sr.cli.console import (
    INTERRUPTED,
    TERMINATED,
    Console,
    Pace,
    Terminated,
    show_plan,
)
from pulse_sr.cli.options import (
    CONTEXT,
    dry_run_option,
    out_option,
    stage_of,
    standard_options,
    takes,
)
from pulse_sr.config import EngineOptions, RunOptions, SearchConfig

if TYPE_CHECKING:
    from pulse_sr.inversion.stream import SearchProgress
    from pulse_sr.jobs.job import Executor
    from pulse_sr.jobs.plan import Plan
    from pulse_sr.jobs.search_worker import Record
    from pulse_sr.jobs.task import Task

_REASONS_SHOWN = 5


@click.command("run", context_settings=CONTEXT)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@out_option("pulse_out", "The run folder, or the URL of one.", urls=True)
@takes(config=SearchConfig, options=RunOptions, engine=EngineOptions)
@dry_run_option
@standard_options
def command(
    inputs: tuple[str, ...],
    out: Path | str,
    config: SearchConfig,
    options: RunOptions,
    engine: EngineOptions,
    dry_run: bool,
    console: Console,
) -> int:
    """Find high-res faces that downscale to each INPUT (image files, folders or globs).

    Example: pulse-sr run face_lr.png --samples 8 -o results
    """
    from pulse_sr.jobs.executors.choice import choose_executor
    from pulse_sr.jobs.plan import plan_run

    def looking(done: int, total: int) -> None:
        console.live(f"looking for faces: {done} of {total}")

    stage = stage_of(inputs, out, console, recursive=options.recursive, dry_run=dry_run)
    executor = stage.executor(choose_executor(engine, config.device))
    plan = plan_run(
        stage.inputs,
        stage.out,
        config,
        options,
        looking=looking,
        device=engine.device(config.device),
        opening=stage.complete if stage.url else None,
    )
    console.clear()
    if dry_run:
        return _show_plan(plan, engine, console)
    return _carry_out(plan, executor, console, _retry_command(inputs, plan, engine))


def _carry_out(plan: Plan, executor: Executor, console: Console, retry: str) -> int:
    from pulse_sr.jobs.searching import run_plan

    records: list[Record] = []
    pace = Pace(console, len(plan.tasks))

    def show(task: Task, step: SearchProgress) -> None:
        console.live(
            f"[{len(records) + 1}/{len(plan.tasks)}] {task.stem}  step {step.step}/{step.steps}  "
            f"best {step.best_db:.1f} dB  {step.done}/{step.samples} samples"
        )

    def pasting(photo: str, done: int, total: int) -> None:
        console.live(f"{photo}: enlarging and pasting, {done} of {total} pictures written")

    try:
        running = run_plan(plan, progress=show, pasting=pasting, executor=executor)
        with contextlib.closing(running):
            for record in running:
                records.append(record)
                _show_record(record, f"[{len(records)}/{len(plan.tasks)}]", console)
                pace.show(len(records), sum(each.status == "failed" for each in records))
    except (KeyboardInterrupt, Terminated) as stop:
        console.clear()
        _summarise(plan, records, console, retry)
        if console.as_json:
            code = TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
            console.json(_summary(plan, records, retry, "interrupted", code))
        raise
    _summarise(plan, records, console, retry)
    code = _exit_code(records)
    if console.as_json:
        console.json(_summary(plan, records, retry, "finished", code))
    return code


def _show_record(record: Record, place: str, console: Console) -> None:
    if record.status == "failed":
        note = f" ({record.note})" if record.note else ""
        console.error(_reason(record) + note, record.hint)
        return
    worst = "" if record.lowest_db is None else f", lowest {record.lowest_db:.1f} dB"
    below = f", {record.below_target} below target" if record.below_target else ""
    words = f"{record.samples} samples{worst}{below}" if record.samples else record.note
    if record.status == "skipped":
        console.line(f"{place} {record.stem}  skipped, complete: {words}")
        return
    if record.searched < record.samples:
        words = f"{record.searched} more, now {words}"
    note = f"; {record.note}" if record.note and record.samples else ""
    console.line(f"{place} {record.stem}  done in {record.seconds:.1f} s: {words}{note}")


def _summarise(plan: Plan, records: Sequence[Record], console: Console, retry: str) -> None:
    counts = _counts(records)
    words = ", ".join(f"{number} {name}" for name, number in counts.items())
    left = len(plan.tasks) - len(records)
    unfinished = f", {left} not started or unfinished" if left else ""
    here = console.named(str(plan.out)) == str(plan.out)  # at a URL there is no page
    page = f", page {plan.out / 'index.html'}" if here else ""
    console.line(f"{words}{unfinished}; results in {plan.out}{page}")
    failed = [record for record in records if record.status == "failed"]
    if not failed:
        return
    for record in failed[:_REASONS_SHOWN]:
        console.line(f"  failed: {_reason(record)}")
    if len(failed) > _REASONS_SHOWN:
        console.line(f"  and {len(failed) - _REASONS_SHOWN} more, see {plan.out / 'manifest.json'}")
    console.line(f"retry: {retry}")


def _reason(record: Record) -> str:
    """The error, with the name of the input in front where it does not hold it already."""
    return record.error if record.path in record.error else f"{record.path}: {record.error}"


def _counts(records: Sequence[Record]) -> dict[str, int]:
    return {
        name: sum(record.status == name for record in records)
        for name in ("done", "skipped", "failed")
    }


def _exit_code(records: Sequence[Record]) -> int:
    """0, 1 if some input failed, 2 if every input failed because the call does not suit it."""
    codes = [record.exit_code for record in records]
    if codes and all(code == 2 for code in codes):
        return 2
    return 1 if any(codes) else 0


def _summary(
    plan: Plan, records: Sequence[Record], retry: str, status: str, exit_code: int
) -> dict[str, Any]:
    counts = _counts(records)
    return {
        "status": status,
        "out": str(plan.out),
        "page": str(plan.out / "index.html"),
        **counts,
        "exit_code": exit_code,
        "retry": retry if counts["failed"] else None,
        "images": [asdict(record) for record in records],
    }


def _show_plan(plan: Plan, engine: EngineOptions, console: Console) -> int:
    settings = {
        **asdict(plan.config),
        **asdict(plan.options),
        **asdict(engine),
        "steps": plan.config.total_steps,
        "batch": plan.config.slots,
        "project": plan.config.project or "auto",
        "prior": plan.prior.name,
        "prior_sha256": plan.prior.sha256,
        "resolution": plan.prior.resolution,
        "background_sha256": None if plan.background is None else plan.background.sha256,
        "out": str(plan.out),
    }
    tasks = [
        {"path": str(t.path), "stem": t.stem, "action": t.action, "samples": list(t.indices)}
        for t in plan.tasks
    ]
    rows = [("action", "samples", "folder", "input")]
    for task in plan.tasks:
        count = str(len(task.indices)) if task.indices else "-"
        rows.append((task.action, count, task.stem, str(task.path)))
    return show_plan(console, settings, {"tasks": tasks}, rows)


def _retry_command(inputs: Sequence[str], plan: Plan, engine: EngineOptions) -> str:
    options = replace(plan.options, overwrite=False, retry_failed=True)
    words = [*inputs, "-o", str(plan.out), *plan.config.arguments(), *options.arguments()]
    words += engine.arguments()
    return shlex.join(["pulse-sr", "run", *words])
