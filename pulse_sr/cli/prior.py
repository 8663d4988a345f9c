"""`pulse-sr prior`: which priors there are, and what they are."""

from __future__ import annotations

from typing import Any

import click

from pulse_sr.cli.console import Console, emit_json, table
from pulse_sr.cli.options import CONTEXT, standard_options, version_option

_FIRST_KEYS = ("name", "architecture", "resolution", "sha256", "licence", "data")


@click.group("prior", context_settings=CONTEXT)
@version_option
def command() -> None:
    """List priors and show what they are."""


@command.command("list", context_settings=CONTEXT)
@standard_options
def list_command(console: Console) -> int:
    """List the bundled priors; the first is the default."""
    from pulse_sr.api import list_priors

    cards = [_ordered(card) for card in list_priors()]
    if console.as_json:
        emit_json(cards)
        return 0
    keys = ("name", "architecture", "resolution", "licence")
    click.echo(table([keys, *(tuple(str(card.get(key, "")) for key in keys) for card in cards)]))
    return 0


@command.command("info", context_settings=CONTEXT)
@click.argument("prior", required=False, metavar="[NAME|PATH]")
@standard_options
def info_command(prior: str | None, console: Console) -> int:
    """Show the card of a prior; without a name, of the default one. Checks its checksum."""
    from pulse_sr.api import load_prior

    loaded = load_prior(prior, "cpu")
    own = {"name": loaded.name, "resolution": loaded.resolution, "sha256": loaded.sha256}
    card = _ordered({**loaded.card, **own})
    if console.as_json:
        emit_json(card)
    else:
        click.echo(table([(key, str(value)) for key, value in card.items()]))
    return 0


def _ordered(card: dict[str, Any]) -> dict[str, Any]:
    first = {key: card.get(key) for key in _FIRST_KEYS}
    return {**first, **card}
