"""The card of a supervised network: `README.md` of its training run.

Returns text; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pulse_sr.report.templates import card_environment


@dataclass(frozen=True)
class SrCardFacts:
    """All that the card says.

    Attributes:
        name, architecture, scale, parameters: of the network.
        recipe, source: what it was trained by.
        card: of its file: data, licence, training.
        images_shown, seconds: how long it was trained.
        device: name of the device.
        command: the command line; empty if it is not known.
        scores: (of the network, of bicubic enlargement) by name.
        photos: how many were scored.
        grid: file of the picture; empty: none yet.
    """

    name: str
    architecture: str
    scale: int
    parameters: int
    recipe: str
    source: str
    card: Mapping[str, Any]
    images_shown: int
    seconds: float
    device: str
    command: str = ""
    scores: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    photos: int = 0
    grid: str = ""


def render_sr_card(facts: SrCardFacts) -> str:
    """Returns the card as Markdown."""
    return card_environment().get_template("sr_card.md").render(facts=facts).rstrip("\n") + "\n"
