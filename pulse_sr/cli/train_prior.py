"""`pulse-sr train-prior`: train a prior from scratch on a folder of images."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, printable
from pulse_sr.cli.options import (
    CONTEXT,
    device_option,
    dry_run_option,
    missing,
    out_option,
    precision_option,
    seed_option,
    standard_options,
)

_SECONDS = {"s": 1, "m": 60, "h": 3600, "": 60}
_BYTES = {"": 1e9, "GB": 1e9, "MB": 1e6, "GIB": 2**30, "MIB": 2**20}


class Duration(click.ParamType):
    """A time such as 90s, 30m or 2h, in seconds; a bare number means minutes."""

    name = "30m|2h"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Converts what the command line or the TOML file gave."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", str(value))
        if not match:
            self.fail(f"expects a time such as 90s, 30m or 2h, got {value!r}", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]


class Numbers(click.ParamType):
    """Positive numbers with commas between them, as a tuple; nothing: none."""

    name = "5,20"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[float, ...]:
        """Converts what the command line or the TOML file gave."""
        if isinstance(value, tuple):
            return value
        words = [word for word in str(value).split(",") if word.strip()]
        try:
            found = tuple(float(word) for word in words)
        except ValueError:
            found = (math.nan,)
        if not all(0 < number < math.inf for number in found) or len(set(found)) < len(found):
            self.fail(f"expects different positive numbers such as 5,20, got {value!r}", param, ctx)
        return found


class Size(click.ParamType):
    """An amount of memory such as 4GB or 900MB, in bytes; a bare number means GB."""

    name = "4GB|900MB"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Converts what the command line or the TOML file gave."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([GM]i?B)?", str(value), re.IGNORECASE)
        if not match:
            self.fail(f"expects an amount such as 4GB or 900MB, got {value!r}", param, ctx)
        return int(float(match[1]) * _BYTES[(match[2] or "").upper()])


@click.command("train-prior", context_settings=CONTEXT)
@click.argument("data", type=click.Path(path_type=Path), metavar="DATA")
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
@click.option(
    "--arch",
    "architecture",
    type=click.Choice(["stylegan2", "fastgan"]),
    default="stylegan2",
    show_default=True,
    help="stylegan2 is the better prior to search, fastgan the faster to train.",
)
@click.option("--resolution", type=int, metavar="N", help="Power of two; default: what DATA has.")
@click.option("--time", "seconds", type=Duration(), help="Stop cleanly after this time.")
@click.option("--kimg", type=float, help="Stop after this many thousand images.  [default: 1000]")
@click.option(
    "--batch",
    type=click.IntRange(min=2),
    help="Images a step, over all processes.  [default: 16; fastgan 8]",
)
@click.option(
    "--max-memory",
    type=Size(),
    help="Deal a batch out in parts that fit; keep no activations if it must be.",
)
@click.option(
    "--init", metavar="PRIOR", help="Begin with the weights of a prior or run, of any resolution."
)
@click.option(
    "--continue",
    "continued",
    metavar="RUN",
    help="Begin with the whole state of a run in another folder; options may differ from its own.",
)
@click.option(
    "--freeze-d",
    type=click.IntRange(min=0),
    default=0,
    metavar="N",
    help="With --init: leave the first N stages of the discriminator as they are.",
)
@click.option(
    "--augment",
    type=click.Choice(["diffaug", "ada", "off"]),
    default="diffaug",
    show_default=True,
    help="ada sets its strength by how much the discriminator overfits.",
)
@click.option("--cutout/--no-cutout", help="Add cutout to diffaug (below 2000 images).")
@click.option("--mirror/--no-mirror", default=True, show_default=True)
@click.option(
    "--loss",
    type=click.Choice(["logistic", "hinge", "relativistic"]),
    help="[default: logistic; fastgan hinge]",
)
@click.option("--lr", type=float, help="Learning rate.  [default: 0.002; fastgan 0.0002]")
@click.option("--gamma", type=float, help="Weight of R1.  [default: 0.0002 * N^2 / batch]")
@click.option(
    "--path-length",
    "path_weight",
    type=click.FloatRange(min=0),
    default=0.0,
    help="Weight of path length regularisation (2 in the paper).  [default: off]",
)
@click.option("--channel-base", type=int, help="StyleGAN2: width * side.  [default: 2048]")
@click.option("--channel-max", type=int, help="StyleGAN2: largest width.  [default: 128]")
@click.option("--w-dim", type=int, help="StyleGAN2: latent width.  [default: 128]")
@click.option("--mapping-layers", type=int, help="StyleGAN2.  [default: 2]")
@click.option("--ngf", type=int, help="FastGAN: base width.  [default: 64]")
@click.option("--ema-kimg", type=float, help="EMA half-life.  [default: 10; fastgan 5.5]")
@click.option(
    "--ema-bank",
    type=Numbers(),
    default="",
    metavar="KIMG,...",
    help="Half-lives of further averages in the state, to choose from at the end.",
)
@click.option(
    "--heads",
    type=click.Choice(["off", "squeezenet", "efficientnet-lite0"]),
    default="off",
    show_default=True,
    help='Heads on features of an ImageNet network beside D; the last: "pulse-sr[heads]".',
)
@click.option(
    "--heads-weight",
    type=click.FloatRange(min=0),
    help="Weight of the heads for G, beside D.  [default: 0.3]",
)
@click.option(
    "--heads-warmup",
    type=click.FloatRange(min=0),
    metavar="KIMG",
    help="So long the heads learn, and G does not hear them.  [default: 2]",
)
@click.option("--compile", is_flag=True, help="Use torch.compile where gradients allow it.")
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
    help="kimg between pictures and scores.",
)
@click.option(
    "--score-samples",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Samples that a score is computed from; 0: no scores.",
)
@click.option(
    "--held-back",
    type=click.Path(exists=True, path_type=Path),
    help="Images that are not in DATA: the floor of the scores.",
)
@click.option(
    "--inception",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The Inception file of the usual FID; without it no FID is computed.",
)
@click.option("--tensorboard", is_flag=True, help="Write scalars and grids for TensorBoard too.")
@click.option("--licence", default="unstated", help="Licence of the weights, kept with them.")
@seed_option
@device_option
@precision_option
@dry_run_option
@standard_options
def command(
    data: Path,
    out: Path | None,
    check_data: bool,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    **options: Any,
) -> int:
    """Train a prior on DATA: a folder of images (nested, any size) or WebDataset tars.

    The same command resumes where the last checkpoint stands. --check-data looks at DATA first.

    Example: pulse-sr train-prior ffhq_small/ -o runs/faces --resolution 64 --time 2h

    Several GPUs: torchrun --nproc-per-node 4 -m pulse_sr train-prior ffhq_small/ -o runs/faces
    """
    # Under torchrun the first process speaks for all; errors come from whoever has one.
    console = Console(quiet=quiet or os.environ.get("RANK", "0") != "0", verbose=verbose)
    if check_data:
        return _check(data, out, dry_run, console, options)
    if out is None:
        raise missing("out")
    return _train(data, out, dry_run, console, options)


def _check(
    data: Path, out: Path | None, dry_run: bool, console: Console, options: dict[str, Any]
) -> int:
    from pulse_sr.data.check import check_data
    from pulse_sr.data.open import open_source
    from pulse_sr.jobs.checking import write_check
    from pulse_sr.report.data_check import document, lines

    def progress(done: int, total: int) -> None:
        console.live(f"[{done}/{total}] images read")

    found = check_data(data, options["resolution"], progress)
    console.clear()
    folder = Path(f"{open_source(data).title}-check") if out is None else out / "check"
    written = [] if dry_run else write_check(found, folder)
    if options["as_json"]:
        emit_json(document(found) | {"files": [str(file) for file in written]})
        return found.exit_code
    *report, verdict = lines(found)
    report += [f"written: {', '.join(map(str, written))}"] if written else []
    for line in (*report, verdict):
        click.echo(printable(line))
    return found.exit_code


def _train(data: Path, out: Path, dry_run: bool, console: Console, options: dict[str, Any]) -> int:
    from pulse_sr.jobs.training import run_training
    from pulse_sr.training.gan.plan import plan_training
    from pulse_sr.training.loop import Schedule
    from pulse_sr.training.processes import join_processes, leave_processes

    processes = join_processes(options["device"])
    try:
        plan = plan_training(data, out, processes=processes, **_settings(options))
        if dry_run:
            if processes.first:
                emit_json({"dry_run": True, "settings": plan.describe()})
            return 0
        schedule = Schedule(
            until_images=until_images(options),
            until_seconds=math.inf if options["seconds"] is None else options["seconds"],
            checkpoint_seconds=options["checkpoint_every"],
            snapshot_images=options["snapshot"] * 1000,
        )
        trainer = plan.start(partial(_show_decoding, console))
        console.line(plan.summary(trainer))
        show = partial(_show, console, trainer, schedule)
        run_training(trainer, schedule, _observation(options), show, console.line)
    finally:
        leave_processes()
    console.line(f"prior in {out}: pulse-sr run face.png --prior {out}")
    if options["as_json"] and processes.first:
        emit_json({"out": str(out), "images": trainer.images_shown, "seconds": trainer.seconds})
    return 0


#: Options that decide how the run goes, not what is shown of it.
_OF_THE_PLAN: tuple[str, ...] = (
    *("architecture", "resolution", "batch", "loss", "lr", "gamma", "path_weight", "augment"),
    *(
        "cutout",
        "mirror",
        "freeze_d",
        "init",
        "continued",
        "ema_kimg",
        "ema_bank",
        "licence",
        "seed",
        "device",
    ),
    *("precision", "max_memory", "compile", "channel_base", "channel_max", "w_dim"),
    *("mapping_layers", "ngf", "heads", "heads_weight", "heads_warmup"),
)


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options[name] for name in _OF_THE_PLAN}


def until_images(options: dict[str, Any]) -> float:
    """Images to stop after: what --kimg says; without it and --time a million."""
    if options["kimg"] is not None:
        return float(options["kimg"]) * 1000
    return 1_000_000 if options["seconds"] is None else math.inf


def _observation(options: dict[str, Any]) -> Any:
    from pulse_sr.jobs.training import Observation

    return Observation(
        samples=options["score_samples"],
        held_back=options["held_back"],
        inception=options["inception"],
        tensorboard=options["tensorboard"],
        command=shlex.join(["pulse-sr", *sys.argv[1:]]),
    )


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
