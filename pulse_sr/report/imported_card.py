"""The card of an imported prior, as Markdown."""

from __future__ import annotations

import re

from pulse_sr.priors.base import Prior

_NON_COMMERCIAL = (
    "**Not for commercial use**: the licence of these weights, or of the data that they were "
    "trained on, forbids it."
)

#: As in CC-BY-NC-4.0 or LicenseRef-NVIDIA-Source-Code-NC, and in words.
_WORDS_OF_IT = re.compile(r"\bNC\b|non-?commercial", re.IGNORECASE)


def imported_card(prior: Prior, samples: str, size: int) -> str:
    """The text.

    Args:
        prior: with its card.
        samples: name of the picture of uncurated samples.
        size: of its file in bytes.
    """
    card, made_of = prior.card, prior.card["imported"]
    framing = (card.get("alignment") or {}).get("name", "ffhq")
    rows = {
        "architecture": card["architecture"],
        "resolution": f"{prior.resolution} px",
        "licence": card["licence"],
        "data": card["data"],
        "framing of faces": framing,
        "imported from": f"{made_of['from']}, `{made_of['file']}`",
        "sha256 of that file": f"`{made_of['sha256']}`",
        "published at": card.get("url", "unknown"),
        "size": f"{size / 1e6:.1f} MB",
    }
    lines = [f"# {prior.name}", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in rows.items()]
    if card.get("commercial_use") is False or _WORDS_OF_IT.search(card["licence"]):
        lines += ["", _NON_COMMERCIAL]
    if card["licence"] == "unknown":
        lines += ["", "Its licence is unknown: ask those who made the file before you use it."]
    lines += [f"\n- {note}" for note in made_of.get("notes", [])]
    lines += [
        "",
        f"![Uncurated samples, seeds 0 to 8]({samples})",
        "",
        "The faces are synthetic: plausible reconstructions, not the person. Never for identifying "
        "anybody.",
        "",
    ]
    return "\n".join(lines)
