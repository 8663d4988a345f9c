"""`pulse-sr run`: search the prior for faces that downscale to each input."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_sr.cli.console import (
    INTERRUPTED,
    TERMINATED,
    Console,
    Terminated,
    emit_json,
    table,
)
from pulse_sr.cli.options import (
    CONTEXT,
    IntegerOrAuto,
    device_option,
    dry_run_option,
    out_option,
    precision_option,
    seed_option,
    standard_options,
)
from pulse_sr.config import ALIGN_MODES, FITS, METHODS, PROJECTIONS, SearchConfig

if TYPE_CHECKING:
    from pulse_sr.jobs.plan import Plan
    from pulse_sr.jobs.search_worker import Record

_DEFAULTS = SearchConfig()
_REASONS_SHOWN = 5


class Shard(click.ParamType):
    """`i/N`, as two whole numbers; `jobs.plan` checks their range."""

    name = "i/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Converts the text."""
        if isinstance(value, tuple):
            return value
        part, slash, whole = str(value).partition("/")
        if not (slash and part.isdecimal() and whole.isdecimal()):
            self.fail(f"expects i/N such as 0/4, got {value!r}", param, ctx)
        return int(part), int(whole)


@click.command("run", context_settings=CONTEXT)
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@out_option("pulse_out", "The run folder.")
@click.option(
    "--samples",
    type=int,
    default=_DEFAULTS.samples,
    show_default=True,
    metavar="N",
    help="Faces for each input.",
)
@click.option("--prior", metavar="NAME|PATH", help="The prior; without it, the bundled one.")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default=_DEFAULTS.method,
    show_default=True,
    help="The search.",
)
@click.option(
    "--strict-pulse",
    is_flag=True,
    help="With --method pulse: the original's own behaviour, for tables.",
)
@click.option("--steps", type=int, metavar="N", help="Steps per sample.  [default: the method's]")
@click.option(
    "--operator",
    default=_DEFAULTS.operator,
    show_default=True,
    metavar="SPEC",
    help="How the inputs were made from high-res images, such as 'gaussian:1.6|pillow|noise:0.02', "
    "mask:FILE or gray; auto finds out.",
)
@click.option(
    "--scale",
    type=int,
    metavar="N",
    help="High-res / low-res size.  [default: prior resolution / LR size]",
)
@click.option(
    "--project",
    type=click.Choice(PROJECTIONS),
    help="Null-space projection.  [default: exact; soft for JPEG and noise]",
)
@click.option(
    "--target-db",
    type=float,
    default=_DEFAULTS.target_db,
    show_default=True,
    help="LR-PSNR at which a sample stops.",
)
@click.option(
    "--fit",
    type=click.Choice(FITS),
    help="Pad or crop to a square, and resize to a size that the prior knows.",
)
@click.option(
    "--align",
    type=click.Choice(ALIGN_MODES),
    default="auto",
    show_default=True,
    help="Find the faces of photos, search each and paste it back.",
)
@click.option(
    "--cluster",
    is_flag=True,
    help="Show the most typical sample first, then always the most different one.",
)
@click.option(
    "--save-steps",
    is_flag=True,
    help="Keep frames of each search and make an animation (search.gif) of them.",
)
@click.option(
    "--batch",
    type=IntegerOrAuto(),
    default="auto",
    show_default=True,
    help="Samples searched at once.",
)
@click.option(
    "--resume/--overwrite",
    default=True,
    show_default=True,
    help="Skip what is complete, or do everything again.",
)
@click.option("--retry-failed", is_flag=True, help="Try again what failed in an earlier run.")
@click.option("--shard", type=Shard(), help="Only the i-th of N parts of the inputs, from 0.")
@seed_option
@device_option
@precision_option
@dry_run_option
@standard_options
def command(
    inputs: tuple[str, ...],
    out: Path,
    prior: str | None,
    resume: bool,
    retry_failed: bool,
    shard: tuple[int, int] | None,
    align: str,
    cluster: bool,
    save_steps: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Find high-res faces that downscale to each INPUT (image files, folders or globs).

    Example: pulse-sr run face_lr.png --samples 8 -o results
    """
    config = SearchConfig(**options)
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.jobs.plan import plan_run

    plan = plan_run(
        inputs,
        out,
        config,
        prior,
        overwrite=not resume,
        retry_failed=retry_failed,
        shard=shard,
        align=align,
        cluster=cluster,
        save_steps=save_steps,
        looking=lambda done, total: console.live(f"looking for faces: {done} of {total}"),
    )
    console.clear()
    if dry_run:
        _show_plan(plan, as_json)
        return 0
    return _carry_out(plan, console, _retry_command(inputs, plan, shard), as_json)


def _carry_out(plan: Plan, console: Console, retry: str, as_json: bool) -> int:
    from pulse_sr.jobs.searching import run_plan

    records: list[Record] = []

    def show(task: Any, step: Any) -> None:
        console.live(
            f"[{len(records) + 1}/{len(plan.tasks)}] {task.stem}  step {step.step}/{step.steps}  "
            f"best {step.best_db:.1f} dB  {step.done}/{step.samples} samples"
        )

    try:
        with contextlib.closing(run_plan(plan, progress=show)) as running:
            for record in running:
                records.append(record)
                _show_record(record, f"[{len(records)}/{len(plan.tasks)}]", console)
    except (KeyboardInterrupt, Terminated) as stop:
        console.clear()
        _summarise(plan, records, console, retry)
        if as_json:
            code = TERMINATED if isinstance(stop, Terminated) else INTERRUPTED
            emit_json(_summary(plan, records, retry, "interrupted", code))
        raise
    _summarise(plan, records, console, retry)
    code = _exit_code(records)
    if as_json:
        emit_json(_summary(plan, records, retry, "finished", code))
    return code


def _show_record(record: Record, place: str, console: Console) -> None:
    if record.status == "failed":
        note = f" ({record.note})" if record.note else ""
        console.error(_reason(record) + note, record.hint)
        return
    worst = "" if record.lowest_db is None else f", lowest {record.lowest_db:.1f} dB"
    below = f", {record.below_target} below target" if record.below_target else ""
    words = f"{record.samples} samples{worst}{below}"
    if record.status == "skipped":
        console.line(f"{place} {record.stem}  skipped, complete: {words}")
        return
    if record.searched < record.samples:
        words = f"{record.searched} more, now {words}"
    note = f"; {record.note}" if record.note else ""
    console.line(f"{place} {record.stem}  done in {record.seconds:.1f} s: {words}{note}")


def _summarise(plan: Plan, records: Sequence[Record], console: Console, retry: str) -> None:
    counts = _counts(records)
    words = ", ".join(f"{number} {name}" for name, number in counts.items())
    left = len(plan.tasks) - len(records)
    unfinished = f", {left} not started or unfinished" if left else ""
    console.line(f"{words}{unfinished}; results in {plan.out}, page {plan.out / 'index.html'}")
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


def _show_plan(plan: Plan, as_json: bool) -> None:
    settings = {
        **asdict(plan.config),
        "steps": plan.config.total_steps,
        "batch": plan.config.slots,
        "project": plan.config.project or "auto",
        "prior": plan.prior.name,
        "prior_sha256": plan.prior.sha256,
        "resolution": plan.prior.resolution,
        "out": str(plan.out),
        "overwrite": plan.overwrite,
        "align": plan.align,
        "cluster": plan.cluster,
        "save_steps": plan.save_steps,
    }
    tasks = [
        {"path": str(t.path), "stem": t.stem, "action": t.action, "samples": list(t.indices)}
        for t in plan.tasks
    ]
    if as_json:
        emit_json({"dry_run": True, "settings": settings, "tasks": tasks})
        return
    click.echo(table([(name, str(value)) for name, value in settings.items()]) + "\n")
    rows = [("action", "samples", "folder", "input")]
    for task in plan.tasks:
        count = str(len(task.indices)) if task.action != "skip" else "-"
        rows.append((task.action, count, task.stem, str(task.path)))
    click.echo(table(rows))


def _retry_command(inputs: Sequence[str], plan: Plan, shard: tuple[int, int] | None) -> str:
    words = ["pulse-sr", "run", *inputs, "-o", str(plan.out), *plan.config.arguments()]
    if plan.prior_source:
        words += ["--prior", plan.prior_source]
    if plan.align != ALIGN_MODES[0]:
        words += ["--align", plan.align]
    if plan.cluster:
        words.append("--cluster")
    if plan.save_steps:
        words.append("--save-steps")
    if shard:
        words += ["--shard", f"{shard[0]}/{shard[1]}"]
    return shlex.join([*words, "--retry-failed"])
