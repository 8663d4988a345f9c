"""`pulse-sr prior`: which priors there are, what they are, and how others become priors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, print_result, table
from pulse_sr.cli.options import (
    CONTEXT,
    Checked,
    out_option,
    path_argument,
    standard_options,
    takes,
    version_option,
)
from pulse_sr.files.paths import FILE
from pulse_sr.models.options import ImportOptions
from pulse_sr.options import named, text

_FIRST_KEYS = ("name", "architecture", "resolution", "sha256", "licence", "data")


@click.group("prior", context_settings=CONTEXT)
@version_option
def command() -> None:
    """List priors, show what they are, and import those of other programs."""


@command.command("list", context_settings=CONTEXT)
@standard_options
def list_command(console: Console) -> int:
    """List the bundled priors, the default first, and the imported ones."""
    from pulse_sr.api import list_priors
    from pulse_sr.models.downloads import downloads

    cards = [_ordered(card) for card in list_priors()]
    if console.as_json:
        emit_json(cards)
        return 0
    keys = ("name", "architecture", "resolution", "licence")
    print_result(table([keys, *(tuple(str(card.get(key, "")) for key in keys) for card in cards)]))
    console.line(f"pulse-sr prior get NAME downloads: {', '.join(downloads())}")
    return 0


@command.command("info", context_settings=CONTEXT)
@click.argument("prior", type=Checked(named("NAME|PATH")), required=False, metavar="[NAME|PATH]")
@standard_options
def info_command(prior: str | None, console: Console) -> int:
    """Show the card of a prior; without a name, of the default one. Checks its checksum."""
    from pulse_sr.models.registry import load_prior

    loaded = load_prior(prior)
    own = {"name": loaded.name, "resolution": loaded.resolution, "sha256": loaded.sha256}
    card = _ordered({**loaded.card, **own})
    if console.as_json:
        emit_json(card)
    else:
        print_result(table([(key, str(value)) for key, value in card.items()]))
    return 0


@command.command("import", context_settings=CONTEXT)
@path_argument("file", "FILE", FILE)
@out_option(None, "The folder to write.  [default: one in the cache, by name]", required=False)
@takes(options=ImportOptions)
@standard_options
def import_command(file: Path, out: Path | None, options: ImportOptions, console: Console) -> int:
    """Make a prior of a StyleGAN2, StyleGAN or FastGAN checkpoint; nothing in it is executed.

    Example: pulse-sr prior import ffhq.pkl --licence CC-BY-NC-4.0
    """
    from pulse_sr.jobs.importing import import_prior

    console.live(f"importing {file}")
    model = import_prior(file, out, **options.of(ImportOptions))
    _tell(model, out, console)
    return 0


@command.command("get", context_settings=CONTEXT)
@click.argument("name", type=Checked(text("NAME")))
@standard_options
def get_command(name: str, console: Console) -> int:
    """Download a published checkpoint and import it; the same command goes on where it stopped."""
    from pulse_sr.jobs.importing import get_prior
    from pulse_sr.models.downloads import find_download

    entry = find_download(name)
    console.line(f"{entry.url}; licence: {entry.licence}")
    if not entry.commercial:
        console.line("these weights are not for commercial use")

    def progress(done: int, whole: int | None) -> None:
        console.live(f"{done / 1e6:.0f} of {'?' if whole is None else f'{whole / 1e6:.0f}'} MB")

    _tell(get_prior(name, progress), None, console)
    return 0


@command.command("remove", context_settings=CONTEXT)
@click.argument("name", type=Checked(text("NAME")))
@standard_options
def remove_command(name: str, console: Console) -> int:
    """Remove a prior that was imported or downloaded."""
    from pulse_sr.jobs.importing import remove_prior

    folder = remove_prior(name)
    console.line(f"removed {folder}")
    if console.as_json:
        emit_json({"removed": str(folder)})
    return 0


def _tell(model: Any, out: Path | None, console: Console) -> None:
    console.clear()
    console.line(f"{model.path.parent}: {model.architecture} of {model.resolution} px")
    for note in model.card["imported"].get("notes", []):
        console.line(f"note: {note}")
    console.line(f"use it: pulse-sr run INPUT... --prior {model.name if out is None else out}")
    if console.as_json:
        emit_json(_ordered(model.facts() | {"path": str(model.path.parent)}))


def _ordered(card: dict[str, Any]) -> dict[str, Any]:
    first = {key: card.get(key) for key in _FIRST_KEYS}
    return {**first, **card}
