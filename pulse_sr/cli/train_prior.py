"""`pulse-sr train-prior`: train a StyleGAN2 prior from scratch on a folder of images."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, printable
from pulse_sr.cli.options import (
    CONTEXT,
    device_option,
    dry_run_option,
    out_option,
    precision_option,
    seed_option,
    standard_options,
)

_UNITS = {"s": 1, "m": 60, "h": 3600, "": 60}


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
        return float(match[1]) * _UNITS[match[2]]


@click.command("train-prior", context_settings=CONTEXT)
@click.argument("data", type=click.Path(path_type=Path), metavar="DATA")
@out_option(
    None,
    "Folder of the run: state, prior, sample grids, log. A --prior at any time. Required to train.",
    required=False,
)
@click.option(
    "--check-data",
    is_flag=True,
    help="Only look at DATA and say what it is enough for; sheets go to DIR/check.",
)
@click.option("--resolution", type=int, metavar="N", help="Power of two; default: what DATA has.")
@click.option("--time", "seconds", type=Duration(), help="Stop cleanly after this time.")
@click.option("--kimg", type=float, help="Stop after this many thousand images.  [default: 1000]")
@click.option("--batch", type=click.IntRange(min=2), default=16, show_default=True)
@click.option("--lr", type=float, default=0.002, show_default=True, help="Learning rate.")
@click.option("--gamma", type=float, help="Weight of R1.  [default: 0.0002 * N^2 / batch]")
@click.option(
    "--augment", type=click.Choice(["diffaug", "off"]), default="diffaug", show_default=True
)
@click.option("--cutout/--no-cutout", help="Add cutout to diffaug (below 2000 images).")
@click.option("--mirror/--no-mirror", default=True, show_default=True)
@click.option("--channel-base", type=int, default=2048, show_default=True, help="Width * side.")
@click.option("--channel-max", type=int, default=128, show_default=True, help="Largest width.")
@click.option("--w-dim", type=int, default=128, show_default=True, help="Latent width.")
@click.option("--mapping-layers", type=int, default=2, show_default=True)
@click.option("--ema-kimg", type=float, default=10.0, show_default=True, help="EMA half-life.")
@click.option(
    "--snapshot",
    type=click.FloatRange(min=0.001),
    default=20.0,
    show_default=True,
    help="kimg between checkpoints.",
)
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
    """Train a StyleGAN2 prior on DATA, a folder of images (nested, any size).

    The same command resumes where the last checkpoint stands. --check-data looks at DATA first.

    Example: pulse-sr train-prior ffhq_small/ -o runs/faces --resolution 64 --time 2h
    """
    console = Console(quiet=quiet, verbose=verbose)
    if check_data:
        return _check(data, out, dry_run, console, options)
    if out is None:
        raise _missing_out()
    return _train(data, out, dry_run, console, options)


def _missing_out() -> click.MissingParameter:
    context = click.get_current_context()
    param = next(each for each in context.command.params if each.name == "out")
    return click.MissingParameter(ctx=context, param=param)


def _check(
    data: Path, out: Path | None, dry_run: bool, console: Console, options: dict[str, Any]
) -> int:
    from pulse_sr.jobs.checking import write_check
    from pulse_sr.report.data_check import document, lines
    from pulse_sr.training.check import check_data

    def progress(done: int, total: int) -> None:
        console.live(f"[{done}/{total}] images read")

    found = check_data(data, options["resolution"], progress)
    console.clear()
    folder = Path(f"{data.resolve().name}-check") if out is None else out / "check"
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
    from pulse_sr.training.run import plan_training

    plan = plan_training(data, out, **_settings(options))
    if dry_run:
        emit_json({"dry_run": True, "settings": plan.describe()})
        return 0
    until_images = math.inf if options["kimg"] is None else options["kimg"] * 1000
    if options["kimg"] is None and options["seconds"] is None:
        until_images = 1_000_000
    until_seconds = math.inf if options["seconds"] is None else options["seconds"]
    trainer = plan.start()
    console.line(plan.summary(trainer))
    progress = None
    for progress in trainer.train(until_images, until_seconds, int(options["snapshot"] * 1000)):
        text = _progress_text(progress, until_images, until_seconds, trainer.seconds_of_call)
        if progress.checkpointed:
            console.line(text)
        else:
            console.live(text)
    console.line(f"prior in {out}: pulse-sr run face.png --prior {out}")
    if options["as_json"]:
        emit_json({"out": str(out), "images": trainer.images_shown, "seconds": trainer.seconds})
    return 0


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    names: tuple[str, ...] = (
        "resolution",
        "batch",
        "lr",
        "gamma",
        "augment",
        "cutout",
        "mirror",
        "channel_base",
    )
    names += ("channel_max", "w_dim", "mapping_layers", "ema_kimg", "licence", "seed")
    return {name: options[name] for name in (*names, "device", "precision")}


def _progress_text(progress: Any, until_images: float, until_seconds: float, elapsed: float) -> str:
    left = [until_seconds - elapsed, (until_images - progress.images) / progress.images_per_second]
    losses = progress.losses
    return (
        f"{progress.images / 1000:.1f} kimg  {progress.images_per_second:.1f} images/s  "
        f"left {_clock(min(left))}  G {losses.generator:.2f}  D {losses.discriminator:.2f}  "
        f"sign(D) real {losses.real_sign:+.2f} fake {losses.fake_sign:+.2f}"
    )


def _clock(seconds: float) -> str:
    if math.isinf(seconds):
        return "-"
    minutes, seconds = divmod(int(max(seconds, 0)), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
