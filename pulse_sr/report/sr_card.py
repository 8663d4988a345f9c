"""The card of a supervised network: `README.md` of its training run.

Returns text; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


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
    training = facts.card.get("training", {})
    operator = training.get("operator", "unknown")
    rows = [
        ("what it is", f"{facts.architecture}, x{facts.scale}, {facts.parameters:,} parameters"),
        ("recipe", facts.recipe),
        ("after", " ".join(facts.source.split())),
        ("made by", f"`{facts.command}`" if facts.command else "`pulse-sr train-sr`"),
        ("training", f"{facts.images_shown:,} patches in {facts.seconds / 60:.0f} min"),
        ("on", facts.device),
        ("data", str(facts.card.get("data", "unknown"))),
        ("licence", str(facts.card.get("licence", "unstated"))),
        ("low-res pictures", f"operator `{operator}`, rounded to 8 bits"),
    ]
    table = "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)])
    sections = [f"# Model card: `{facts.name}`"]
    if facts.grid:
        caption = "Input, bicubic, the network, the truth: patches of the training photos"
        sections += [f"![{facts.grid}]({facts.grid})\n\n*{caption}.*"]
    return "\n\n".join([*sections, table, _scores(facts), _limits(operator)]) + "\n"


def _scores(facts: SrCardFacts) -> str:
    if not facts.scores:
        return "## Scores\n\nNot measured: give photos that are not trained on with --held-back."
    lines = ["| | network | bicubic |\n|---|---|---|"]
    lines += [
        f"| {name} | {own:.2f} | {other:.2f} |" for name, (own, other) in facts.scores.items()
    ]
    basis = (
        f"Mean over {facts.photos} photos not trained on; Y of BT.601 (16 to 235), without "
        f"a border of {facts.scale} px; the best network so far (`best.safetensors`)."
    )
    return f"## Scores\n\n{basis}\n\n" + "\n".join(lines)


def _limits(operator: str) -> str:
    return (
        "## Limits\n\n"
        f"It undoes what it saw: pictures made small by `{operator}`. Those that were made small "
        "in another way, blurred, noisy or compressed come out worse. Details are the likeliest "
        "ones, not those of the scene."
    )
