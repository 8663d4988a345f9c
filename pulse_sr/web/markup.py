"""The pieces of HTML of the page; every text from outside is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

NOTICE = (
    '<div class="notice" role="note"><strong>These faces are made up.</strong> Each is a plausible '
    "reconstruction, <strong>not the person</strong>: many faces look like the same few pixels. "
    "Never use one to identify or judge anybody.</div>"
)

HEADER = (
    '<div class="masthead"><h1>pulse-sr</h1><p>Faces that match a small photo exactly, '
    "several of them, because a few pixels never have only one answer.</p></div>"
)

PRIVACY = (
    '<p class="fine-print">Pictures stay on the computer that serves this page and are removed '
    "when you close or reload it, which also stops a search.</p>"
)

#: Filled in by `limit.js`.
TOO_LARGE = (
    '<div class="alert" role="alert" hidden><b></b><span>Make the picture smaller.</span></div>'
)

EMPTY = (
    '<div class="blank"><div class="blank-faces" aria-hidden="true"><i></i><i></i><i></i><i></i>'
    "</div><p>The faces that are found will be here.</p>"
    "<p>Drop a photo or a small face on the left, and choose <b>Find faces</b>.</p></div>"
)


def alert(message: str, hint: str = "") -> str:
    """Returns what went wrong, and what helps."""
    more = f"<span>{escape(_sentence(hint))}</span>" if hint else ""
    return f'<div class="alert" role="alert"><b>{escape(_sentence(message))}</b>{more}</div>'


def progress(words: str, share: float, picture: str, seconds: float) -> str:
    """Returns how far a search is, with the image of the moment (a data URL, or nothing)."""
    percent = round(100 * min(max(share, 0.0), 1.0))
    said = f"{seconds:.0f} s; the picture is the first sample as it is now"
    more = f'<p class="fine-print">{said}</p>' if picture else ""
    image = f'<img src="{escape(picture)}" alt="the first sample as it is now">' if picture else ""
    return (
        f'<div class="progress"><div class="live">{image}</div><div class="how-far">'
        f'<p aria-live="polite">{escape(words)}</p>'
        f'<div class="bar" role="progressbar" aria-valuenow="{percent}" aria-valuemin="0" '
        f'aria-valuemax="100"><div style="width: {percent}%"></div></div>{more}</div></div>'
    )


def caption(title: str, more: str = "") -> str:
    """Returns the words above a picture."""
    return f'<div class="caption"><b>{escape(title)}</b> <span>{escape(more)}</span></div>'


def waiting() -> str:
    """Returns what is shown until a search begins."""
    return progress("Waiting for a turn: one search runs at a time", 0.0, "", 0.0)


def said(text: str) -> str:
    """Returns a quiet line."""
    return f'<p class="said">{escape(text)}</p>'


def seen(heading: str, remarks: Sequence[str]) -> str:
    """Returns what was seen in an upload."""
    items = "".join(f"<li>{escape(_sentence(each))}</li>" for each in remarks)
    return f'<div class="seen"><b>{escape(heading)}</b>' + (
        f"<ul>{items}</ul></div>" if items else "</div>"
    )


def _sentence(text: str) -> str:
    text = text.strip()
    if text.split(" ", 1)[0].isalpha():  # no name of a file
        text = text[:1].upper() + text[1:]
    return text + ("" if text.endswith((".", "!", "?")) else ".")
