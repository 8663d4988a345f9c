"""The page of a run: one self-contained `index.html` that opens without a network.

Everything that came from outside (file names, error messages) is escaped; there are no scripts.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import quote

from pulse_sr import __version__
from pulse_sr.images.places import stays_in
from pulse_sr.report import page_section
from pulse_sr.report.canvas import NOTICE
from pulse_sr.report.page_section import Record, Row
from pulse_sr.report.templates import template_environment

#: Pictures are embedded until the page holds this many bytes of them; later ones are linked.
EMBED_BYTES = 64 * 2**20


class Pictures:
    """Turns files into `src` values: data URIs while the budget lasts, then relative links."""

    def __init__(self, out: Path, limit: int) -> None:
        """Begin a page.

        Args:
            out: the run folder.
            limit: how many bytes are embedded.
        """
        self.out, self.limit, self.left, self.linked = out, limit, limit, 0

    def link(self, stem: str, name: str) -> str:
        """Returns the address of a file of an input, relative to the page."""
        return quote(os.fsencode(f"{stem}/{name}"))

    def source(self, stem: str, name: str) -> str:
        """Returns the `src` of a picture of an input; empty for one that is not there."""
        path = self.out / stem / name
        if not stays_in(path, self.out):  # a link to what is not for the page
            return ""
        try:
            if path.stat().st_size > self.left:
                self.linked += 1
                return self.link(stem, name)
            content = path.read_bytes()
        except OSError:
            return ""
        self.left -= len(content)
        kind = path.suffix[1:].replace("jpg", "jpeg")
        return f"data:image/{kind};base64," + base64.b64encode(content).decode("ascii")


def render_page(
    out: Path,
    rows: Sequence[Row],
    record_of: Callable[[str], Record | None],
    photo_of: Callable[[str], Record | None],
) -> Iterator[str]:
    """Returns the HTML page of a run folder, part by part: with all its pictures it is large.

    Args:
        out: the run folder, where the pictures are read.
        rows: the manifest.
        record_of: reads the `result.json` of a stem, None where there is none. It is asked twice
            for each: of many inputs, all of them do not fit into memory.
        photo_of: reads the `photo.json` of an input, None for one that is no photo.
    """
    return (
        template_environment(autoescape=True)
        .get_template("page.html")
        .generate(
            rows=rows,
            record_of=record_of,
            photo_of=photo_of,
            pictures=Pictures(out, EMBED_BYTES),
            version=__version__,
            notice=NOTICE,
            words=page_section,
        )
    )
