"""`pulse-sr train-sr`: train a supervised network on a folder of photos."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, print_result
from pulse_sr.cli.options import (
    CONTEXT,
    DATA,
    Checked,
    dry_run_option,
    missing,
    out_option,
    standard_options_but_config,
    takes,
)
from pulse_sr.cli.train_prior import clock
from pulse_sr.training.sr.options import SrObservation, SrOptions, SrScheduleOptions


def _show_recipes(as_json: bool) -> None:
    from pulse_sr.training.sr.recipes import preset_names, read_recipe

    recipes = {name: read_recipe(name) for name in preset_names()}
    rows = [
        {"name": name, "title": recipe.title, "source": " ".join(recipe.source.split())}
        for name, recipe in recipes.items()
    ]
    if as_json:
        emit_json(rows)
        return
    for row in rows:
        print_result("{name}: {title}\n    {source}".format(**row))


@click.command("train-sr", context_settings=CONTEXT)
@click.argument("data", type=Checked(DATA), metavar="DATA", required=False)
@out_option(
    None,
    "Folder of the run: state, network, pictures, log. An upscale --model any time.",
    required=False,
)
@click.option(
    "--list",
    "list_recipes",
    is_flag=True,
    help="List the recipes of the package with their sources, and end.",
)
@takes(times=SrScheduleOptions, options=SrOptions, observation=SrObservation)
@dry_run_option
@standard_options_but_config
def command(
    data: Path | None,
    out: Path | None,
    list_recipes: bool,
    times: SrScheduleOptions,
    options: SrOptions,
    observation: SrObservation,
    dry_run: bool,
    console: Console,
) -> int:
    """Train a network on DATA: a folder of photos (nested, any size), a zip or WebDataset tars.

    The same command resumes where the last checkpoint stands.

    Example: pulse-sr train-sr photos/ -o runs/x4 --config compact-x4 --time 2h

    Several GPUs: torchrun --nproc-per-node 4 -m pulse_sr train-sr photos -o runs/x4 --config srgan
    """
    if list_recipes:
        _show_recipes(console.as_json)
        return 0
    for name, given in (("data", data), ("out", out), ("recipe", options.recipe)):
        if given is None:
            raise missing(name)
    assert data is not None
    assert out is not None
    from pulse_sr.jobs.sr_training import held_back_photos, run_sr_training
    from pulse_sr.training.loop import Schedule
    from pulse_sr.training.processes import join_processes, leave_processes
    from pulse_sr.training.sr.plan import plan_sr_training

    processes = join_processes(options.device)
    try:
        plan = plan_sr_training(data, out, options, times.kimg, processes)
        command = shlex.join(["pulse-sr", *sys.argv[1:]])
        observation = replace(observation, command=command, member=options.member)
        held_back_photos(observation)
        if dry_run:
            plan.check()
            if processes.first:
                emit_json({"dry_run": True, "settings": plan.describe()})
            return 0
        schedule = replace(Schedule.of(times), until_images=plan.config.images)
        trainer = plan.start()
        console.line(plan.summary(trainer))
        show = partial(_show, console, trainer, schedule)
        run_sr_training(trainer, schedule, observation, show, console.line)
        if trainer.lock is not None:
            trainer.lock.close()  # here and now, not when the trainer is collected
    finally:
        leave_processes()
    console.line(f"network in {out}: pulse-sr upscale photo.jpg --model {out}")
    if console.as_json and processes.first:
        emit_json({"out": str(out), "images": trainer.images_shown, "seconds": trainer.seconds})
    return 0


def _show(console: Console, trainer: Any, schedule: Any, progress: Any) -> None:
    left = [
        schedule.until_seconds - trainer.seconds_of_call,
        (schedule.until_images - progress.images) / progress.images_per_second,
    ]
    numbers = {k: v for k, v in progress.losses.items() if k != "lr"}
    text = (
        f"{progress.images / 1000:.1f} k patches  {progress.images_per_second:.1f} a second  "
        f"left {clock(min(left))}  " + "  ".join(f"{k} {v:.4f}" for k, v in numbers.items())
    )
    if progress.checkpointed:
        console.line(text)
    else:
        console.live(text)
