"""`pulse-sr degrade`: make low-res test inputs with a known operator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pulse_sr.cli.console import Console, emit_json, show_plan
from pulse_sr.cli.options import CONTEXT, dry_run_option, out_option, standard_options, takes
from pulse_sr.config import DegradeOptions
from pulse_sr.errors import InputError
from pulse_sr.operators.spec import OperatorSpec

if TYPE_CHECKING:
    import numpy as np

    from pulse_sr.operators.degrading import Degraded


@click.command("degrade", context_settings=CONTEXT)
@click.argument("inputs", nargs=-1, required=True, metavar="HR...")
@out_option(None, "Folder for the low-res images, <stem>.png each (.jpg if the operator says so).")
@takes(options=DegradeOptions)
@dry_run_option
@standard_options
def command(
    inputs: tuple[str, ...], out: Path, options: DegradeOptions, dry_run: bool, console: Console
) -> int:
    """Make low-res test inputs from HR images (files, folders or globs).

    Noise is drawn anew for each image, from the seed and the image's own bytes.

    Example: pulse-sr degrade faces/ -o lr --operator bicubic --scale 8
    """
    spec, scale, seed = options.spec, options.factor, options.seed
    settings = {"operator": spec.text, "scale": scale, "seed": seed}
    from pulse_sr.files.atomic import make_folder
    from pulse_sr.images.find import find_images

    suffix = ".jpg" if spec.stages[-1].kind == "jpeg" else ".png"
    paths = find_images(list(inputs), recursive=options.recursive, out=out)
    pairs = _name_outputs(paths, out, suffix)
    if dry_run:
        rows = [{"path": str(source), "file": str(target)} for source, target in pairs]
        table = [(row["path"], row["file"]) for row in rows]
        return show_plan(console, settings, {"images": rows}, table)
    make_folder(out)
    rows = [_degrade_one(source, target, spec, scale, seed, console) for source, target in pairs]
    failed = sum(row["status"] == "failed" for row in rows)
    console.line(f"{len(rows) - failed} done, {failed} failed; images in {out}")
    if console.as_json:
        emit_json({"out": str(out), **settings, "images": rows})
    return 1 if failed else 0


def _name_outputs(sources: list[Path], out: Path, suffix: str) -> list[tuple[Path, Path]]:
    """Pairs each input with its output file; a second one of the same stem becomes <stem>-2."""
    from pulse_sr.images.places import refuse_inputs
    from pulse_sr.jobs.stems import clean_stem

    taken: set[str] = set()
    pairs = []
    for source in sources:
        stem, number = clean_stem(source), 1
        name = stem
        while name.casefold() in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        pairs.append((source, out / f"{name}{suffix}"))
    refuse_inputs(sources, out, below=[target for _, target in pairs])
    return pairs


def _degrade_one(
    source: Path, target: Path, spec: OperatorSpec, scale: int, seed: int, console: Console
) -> dict[str, Any]:
    from pulse_sr.images.places import check_place
    from pulse_sr.images.read import read_image
    from pulse_sr.operators.degrading import degrade_picture

    row: dict[str, Any] = {"path": str(source), "file": str(target), "status": "done"}
    try:
        check_place(target.parent, [target])
        image = read_image(source)
        made = degrade_picture(image.pixels, spec.text, scale, _generator(seed, image.sha256))
    except InputError as error:
        named = str(source) in error.message
        console.error(error.message if named else f"{source}: {error.message}", error.hint)
        return {**row, "status": "failed", "error": error.message, "hint": error.hint}
    _write(target, made, spec, scale)
    row["height"], row["width"] = made.pixels.shape[1:]
    console.line(f"{target}  {row['width']}x{row['height']}")
    return row


def _generator(seed: int, sha256: str) -> np.random.Generator:
    """The noise of one image: its own, whatever else is degraded with it."""
    import numpy as np

    return np.random.default_rng([seed, int(sha256[:16], 16)])


def _write(target: Path, made: Degraded, spec: OperatorSpec, scale: int) -> None:
    from pulse_sr import __version__
    from pulse_sr.files.atomic import write_atomic
    from pulse_sr.images.write import write_png

    if made.jpeg is not None:
        write_atomic(target, made.jpeg)
        return
    text = {"Software": f"pulse-sr {__version__}", "pulse-sr:degraded": f"{spec.text}, {scale}"}
    write_png(target, made.pixels, text)
