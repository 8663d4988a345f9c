"""`pulse-sr prior`: which priors there are, what they are, and how others become priors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, table
from pulse_sr.cli.options import (
    CONTEXT,
    device_option,
    out_option,
    standard_options,
    version_option,
)

_FIRST_KEYS = ("name", "architecture", "resolution", "sha256", "licence", "data")


@click.group("prior", context_settings=CONTEXT)
@version_option
def command() -> None:
    """List priors, show what they are, and import those of other programs."""


@command.command("list", context_settings=CONTEXT)
@standard_options
def list_command(quiet: bool, verbose: bool, as_json: bool) -> int:
    """List the bundled priors, the default first, and the imported ones."""
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.api import list_priors
    from pulse_sr.models.downloads import downloads

    cards = [_ordered(card) for card in list_priors()]
    if as_json:
        emit_json(cards)
        return 0
    keys = ("name", "architecture", "resolution", "licence")
    click.echo(table([keys, *(tuple(str(card.get(key, "")) for key in keys) for card in cards)]))
    console.line(f"pulse-sr prior get NAME downloads: {', '.join(downloads())}")
    return 0


@command.command("info", context_settings=CONTEXT)
@click.argument("prior", required=False, metavar="[NAME|PATH]")
@standard_options
def info_command(prior: str | None, quiet: bool, verbose: bool, as_json: bool) -> int:
    """Show the card of a prior; without a name, of the default one. Checks its checksum."""
    Console(quiet=quiet, verbose=verbose)
    from pulse_sr.api import load_prior

    loaded = load_prior(prior, "cpu")
    own = {"name": loaded.name, "resolution": loaded.resolution, "sha256": loaded.sha256}
    _show({**loaded.card, **own}, as_json)
    return 0


@command.command("import", context_settings=CONTEXT)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@out_option(None, "The folder to write.  [default: the cache, by name]", required=False)
@click.option("--name", metavar="NAME", help="Name of the prior.  [default: that of the file]")
@click.option("--licence", metavar="SPDX", help="Of the weights.  [default: unknown]")
@click.option(
    "--framing",
    default="ffhq",
    show_default=True,
    metavar="ffhq|bundled|FILE",
    help="How faces lie in its images: --align crops photos that way.",
)
@device_option
@standard_options
def import_command(
    file: Path,
    out: Path | None,
    name: str | None,
    licence: str | None,
    framing: str,
    device: str,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> int:
    """Make a prior of a StyleGAN2, StyleGAN or FastGAN checkpoint; nothing in it is executed.

    Example: pulse-sr prior import ffhq.pkl --licence CC-BY-NC-4.0
    """
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.jobs.importing import import_prior

    console.live(f"importing {file}")
    model = import_prior(file, out, name=name, licence=licence, framing=framing, device=device)
    console.clear()
    _tell(model, out, console, as_json)
    return 0


@command.command("get", context_settings=CONTEXT)
@click.argument("name")
@device_option
@standard_options
def get_command(name: str, device: str, quiet: bool, verbose: bool, as_json: bool) -> int:
    """Download a published checkpoint and import it; the same command goes on where it stopped."""
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.jobs.importing import get_prior
    from pulse_sr.models.downloads import find_download

    entry = find_download(name)
    console.line(f"{entry.url}; licence: {entry.licence}")
    if not entry.commercial:
        console.line("these weights are not for commercial use")

    def progress(done: int, whole: int | None) -> None:
        console.live(f"{done / 1e6:.0f} of {'?' if whole is None else f'{whole / 1e6:.0f}'} MB")

    model = get_prior(name, progress, device)
    console.clear()
    _tell(model, None, console, as_json)
    return 0


@command.command("remove", context_settings=CONTEXT)
@click.argument("name")
@standard_options
def remove_command(name: str, quiet: bool, verbose: bool, as_json: bool) -> int:
    """Remove a prior that was imported or downloaded."""
    console = Console(quiet=quiet, verbose=verbose)
    from pulse_sr.jobs.importing import remove_prior

    folder = remove_prior(name)
    if as_json:
        emit_json({"removed": str(folder)})
    else:
        console.line(f"removed {folder}")
    return 0


def _tell(model: Any, out: Path | None, console: Console, as_json: bool) -> None:
    if as_json:
        _show(model.facts() | {"path": str(model.path.parent)}, as_json)
        return
    console.line(f"{model.path.parent}: {model.architecture} of {model.resolution} px")
    for note in model.card["imported"].get("notes", []):
        console.line(f"note: {note}")
    console.line(f"use it: pulse-sr run INPUT... --prior {model.name if out is None else out}")


def _show(card: dict[str, Any], as_json: bool) -> None:
    card = _ordered(card)
    if as_json:
        emit_json(card)
    else:
        click.echo(table([(key, str(value)) for key, value in card.items()]))


def _ordered(card: dict[str, Any]) -> dict[str, Any]:
    first = {key: card.get(key) for key in _FIRST_KEYS}
    return {**first, **card}
