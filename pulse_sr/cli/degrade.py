"""`pulse-sr degrade`: make low-res test inputs with a known operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, table
from pulse_sr.cli.options import CONTEXT, dry_run_option, out_option, standard_options
from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError, UsageError


@click.command("degrade", context_settings=CONTEXT)
@click.argument("inputs", nargs=-1, required=True, metavar="HR...")
@out_option(None, "Folder for the low-res images, <stem>.png each.")
@click.option(
    "--operator",
    default=SearchConfig().operator,
    show_default=True,
    metavar="SPEC",
    help="The degradation.",
)
@click.option(
    "--scale",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="N",
    help="How many times smaller.",
)
@dry_run_option
@standard_options
def command(
    inputs: tuple[str, ...],
    out: Path,
    operator: str,
    scale: int,
    dry_run: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Make low-res test inputs from HR images (files, folders or globs).

    Example: pulse-sr degrade faces/ -o lr --operator bicubic --scale 8
    """
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.images import find_images

    pairs = _name_outputs(find_images(list(inputs)), out)
    if dry_run:
        rows = [{"path": str(source), "file": str(target)} for source, target in pairs]
        settings = {"operator": operator, "scale": scale}
        if as_json:
            emit_json({"dry_run": True, "settings": settings, "images": rows})
        else:
            click.echo(f"operator {operator}, scale {scale}")
            click.echo(table([(row["path"], row["file"]) for row in rows]))
        return 0
    out.mkdir(parents=True, exist_ok=True)
    rows = [_degrade_one(source, target, operator, scale, console) for source, target in pairs]
    failed = sum(row["status"] == "failed" for row in rows)
    console.line(f"{len(rows) - failed} done, {failed} failed; images in {out}")
    if as_json:
        emit_json({"out": str(out), "operator": operator, "scale": scale, "images": rows})
    return 1 if failed else 0


def _name_outputs(sources: list[Path], out: Path) -> list[tuple[Path, Path]]:
    """Pairs each input with its output file; a second one of the same stem becomes <stem>-2."""
    taken: set[str] = set()
    pairs = []
    for source in sources:
        name, number = source.stem, 1
        while name.casefold() in taken:
            number += 1
            name = f"{source.stem}-{number}"
        taken.add(name.casefold())
        pairs.append((source, out / f"{name}.png"))
    inputs = {source.resolve() for source in sources}
    for source, target in pairs:
        if target.resolve() in inputs:
            raise UsageError(
                f"{target} is an input and would be replaced by the result for {source}",
                "choose another folder with -o DIR",
            )
    return pairs


def _degrade_one(
    source: Path, target: Path, operator: str, scale: int, console: Console
) -> dict[str, Any]:
    from pulse_sr import __version__
    from pulse_sr.images import read_image, write_png
    from pulse_sr.operators import degrade

    row: dict[str, Any] = {"path": str(source), "file": str(target), "status": "done"}
    try:
        pixels = degrade(read_image(source).pixels, operator, scale)
    except InputError as error:
        named = str(source) in error.message
        console.error(error.message if named else f"{source}: {error.message}", error.hint)
        return {**row, "status": "failed", "error": error.message, "hint": error.hint}
    text = {"Software": f"pulse-sr {__version__}", "pulse-sr:degraded": f"{operator}, {scale}"}
    write_png(target, pixels, text)
    row["width"], row["height"] = pixels.shape[2], pixels.shape[1]
    console.line(f"{target}  {pixels.shape[2]}x{pixels.shape[1]}")
    return row
