"""`pulse-sr train-sr`: train a supervised network on a folder of photos."""

from __future__ import annotations

import math
import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json
from pulse_sr.cli.options import (
    CONTEXT,
    device_option,
    dry_run_option,
    missing,
    out_option,
    precision_option,
    standard_options_but_config,
)
from pulse_sr.cli.train_prior import Duration, Size, clock


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
        click.echo("{name}: {title}\n    {source}".format(**row))


@click.command("train-sr", context_settings=CONTEXT)
@click.argument("data", type=click.Path(path_type=Path), metavar="DATA", required=False)
@out_option(
    None,
    "Folder of the run: state, network, pictures, log. An upscale --model any time.",
    required=False,
)
@click.option(
    "--config",
    "recipe",
    metavar="NAME|FILE.toml",
    help="The recipe: one of --list, or a file like those.",
)
@click.option(
    "--list",
    "list_recipes",
    is_flag=True,
    help="List the recipes of the package with their sources, and end.",
)
@click.option("--time", "seconds", type=Duration(), help="Stop cleanly after this time.")
@click.option(
    "--kimg",
    type=click.FloatRange(min=0, min_open=True),
    help="Thousands of patches in all; the phases keep their proportions.  [default: the recipe's]",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    help="Patches a step, over all processes.  [default: the recipe's]",
)
@click.option("--max-memory", type=Size(), help="Deal a batch out in parts that fit.")
@click.option(
    "--checkpoint-every",
    type=Duration(),
    default="10m",
    show_default=True,
    help="Time between checkpoints.",
)
@click.option(
    "--snapshot",
    type=click.FloatRange(min=0.001),
    default=20.0,
    show_default=True,
    help="Thousands of patches between pictures and scores.",
)
@click.option(
    "--held-back",
    type=click.Path(exists=True, path_type=Path),
    help="Photos that are not in DATA: PSNR on them is written down, the best network kept.",
)
@click.option(
    "--weights-dir",
    "weights",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder of the networks that losses look through (VGG, AlexNet).  [default: torch hub's]",
)
@click.option("--tensorboard", is_flag=True, help="Write scalars and grids for TensorBoard too.")
@click.option("--licence", default="unstated", help="Licence of the weights, kept with them.")
@click.option("--seed", type=int, help="Of everything random.  [default: the recipe's, 0]")
@device_option
@precision_option
@dry_run_option
@standard_options_but_config
def command(
    data: Path | None,
    out: Path | None,
    recipe: str | None,
    list_recipes: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Train a network on DATA: a folder of photos (nested, any size) or WebDataset tars.

    The same command resumes where the last checkpoint stands.

    Example: pulse-sr train-sr photos/ -o runs/x4 --config compact-x4 --time 2h

    Several GPUs: torchrun --nproc-per-node 4 -m pulse_sr train-sr photos -o runs/x4 --config srgan
    """
    if list_recipes:
        _show_recipes(as_json)
        return 0
    if data is None:
        raise missing("data")
    if out is None or recipe is None:
        raise missing("out" if out is None else "recipe")
    # Under torchrun the first process speaks for all; errors come from whoever has one.
    console = Console(quiet=quiet or os.environ.get("RANK", "0") != "0", verbose=verbose)
    return _train((data, out, recipe), dry_run, console, as_json, options)


def _train(
    what: tuple[Path, Path, str],
    dry_run: bool,
    console: Console,
    as_json: bool,
    options: dict[str, Any],
) -> int:
    from pulse_sr.jobs.sr_training import SrObservation, run_sr_training
    from pulse_sr.training.loop import Schedule
    from pulse_sr.training.processes import join_processes, leave_processes
    from pulse_sr.training.sr.plan import plan_sr_training

    own = ("kimg", "batch", "licence", "seed", "device", "precision", "max_memory", "weights")
    _, out, _ = what
    processes = join_processes(options["device"])
    try:
        settings = {name: options[name] for name in own}
        plan = plan_sr_training(*what, processes=processes, **settings)
        if dry_run:
            if processes.first:
                emit_json({"dry_run": True, "settings": plan.describe()})
            return 0
        schedule = Schedule(
            until_images=plan.config.images,
            until_seconds=math.inf if options["seconds"] is None else options["seconds"],
            checkpoint_seconds=options["checkpoint_every"],
            snapshot_images=options["snapshot"] * 1000,
        )
        trainer = plan.start()
        console.line(plan.summary(trainer))
        observation = SrObservation(
            options["held_back"], options["tensorboard"], shlex.join(["pulse-sr", *sys.argv[1:]])
        )
        show = partial(_show, console, trainer, schedule)
        run_sr_training(trainer, schedule, observation, show, console.line)
    finally:
        leave_processes()
    console.line(f"network in {out}: pulse-sr upscale photo.jpg --model {out}")
    if as_json and processes.first:
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
