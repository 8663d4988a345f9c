"""`pulse-sr train-prior`: train a prior from scratch on a folder of images."""

from __future__ import annotations

import math
import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, print_result, printable
from pulse_sr.cli.options import (
    CONTEXT,
    DATA,
    Checked,
    dry_run_option,
    missing,
    out_option,
    standard_options,
    takes,
)
from pulse_sr.training.gan.options import GanOptions
from pulse_sr.training.options import Observation, ScheduleOptions


@click.command("train-prior", context_settings=CONTEXT)
@click.argument("data", type=Checked(DATA), metavar="DATA")
@out_option(
    None,
    "Folder of the run: state, prior, pictures, log. A --prior at any time. Required to train.",
    required=False,
)
@click.option(
    "--check-data",
    is_flag=True,
    help="Only look at DATA and say what it is enough for; sheets go to DIR/check.",
)
@takes(times=ScheduleOptions, options=GanOptions, observation=Observation)
@dry_run_option
@standard_options
def command(
    data: Path,
    out: Path | None,
    check_data: bool,
    times: ScheduleOptions,
    options: GanOptions,
    observation: Observation,
    dry_run: bool,
    console: Console,
) -> int:
    """Train a prior on DATA: a folder of images (nested, any size), a zip or WebDataset tars.

    The same command resumes where the last checkpoint stands. --check-data looks at DATA first.

    Example: pulse-sr train-prior ffhq_small/ -o runs/faces --resolution 64 --time 2h

    Several GPUs: torchrun --nproc-per-node 4 -m pulse_sr train-prior ffhq_small/ -o runs/faces
    """
    if check_data:
        return _check(data, out, options, dry_run, console)
    if out is None:
        raise missing("out")
    from pulse_sr.jobs.scoring import open_two_or_more
    from pulse_sr.jobs.training import run_training
    from pulse_sr.training.gan.plan import plan_training
    from pulse_sr.training.loop import Schedule
    from pulse_sr.training.processes import join_processes, leave_processes

    processes = join_processes(options.device)
    try:
        plan = plan_training(data, out, options, processes)
        if observation.held_back is not None:
            open_two_or_more(observation.held_back, options.member)
        if dry_run:
            if processes.first:
                emit_json({"dry_run": True, "settings": plan.describe()})
            return 0
        schedule = Schedule.of(times)
        trainer = plan.start(partial(_show_decoding, console))
        console.line(plan.summary(trainer))
        show = partial(_show, console, trainer, schedule)
        words = shlex.join(["pulse-sr", *sys.argv[1:]])
        observation = replace(observation, command=words, member=options.member)
        run_training(trainer, schedule, observation, show, console.line)
        if trainer.lock is not None:
            trainer.lock.close()  # here and now, not when the trainer is collected
    finally:
        leave_processes()
    console.line(f"prior in {out}: pulse-sr run face.png --prior {out}")
    if console.as_json and processes.first:
        emit_json({"out": str(out), "images": trainer.images_shown, "seconds": trainer.seconds})
    return 0


def _check(
    data: Path, out: Path | None, options: GanOptions, dry_run: bool, console: Console
) -> int:
    from pulse_sr.data.check import check_data
    from pulse_sr.data.open import open_source
    from pulse_sr.jobs.checking import write_check
    from pulse_sr.report.data_check import document, lines

    def progress(done: int, total: int) -> None:
        console.live(f"[{done}/{total}] images read")

    found = check_data(data, options.resolution, progress, options.member)
    console.clear()
    folder = Path(f"{open_source(data).title}-check") if out is None else out / "check"
    written = [] if dry_run else write_check(found, folder)
    if console.as_json:
        emit_json(document(found) | {"files": [str(file) for file in written]})
        return found.exit_code
    *report, verdict = lines(found)
    report += [f"written: {', '.join(map(str, written))}"] if written else []
    for line in (*report, verdict):
        print_result(printable(line))
    return found.exit_code


def _show_decoding(console: Console, done: int, total: int, skipped: int) -> None:
    console.live(f"[{done}/{total}] images decoded" + (f", {skipped} skipped" if skipped else ""))


def _show(console: Console, trainer: Any, schedule: Any, progress: Any) -> None:
    losses = progress.losses
    left = [
        schedule.until_seconds - trainer.seconds_of_call,
        (schedule.until_images - progress.images) / progress.images_per_second,
    ]
    text = (
        f"{progress.images / 1000:.1f} kimg  {progress.images_per_second:.1f} images/s  "
        f"left {clock(min(left))}  G {losses['generator']:.2f}  D {losses['discriminator']:.2f}  "
        f"sign(D) real {losses['real_sign']:+.2f} fake {losses['fake_sign']:+.2f}"
    )
    if "augment_p" in losses:
        text += f"  ADA {losses['augment_p']:.2f}"
    if progress.checkpointed:
        console.line(text)
    else:
        console.live(text)


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    if math.isinf(seconds):
        return "-"
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
