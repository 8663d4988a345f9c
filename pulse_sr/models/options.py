"""The options of `prior import`; imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_sr.options import Options, device_option, named, option, text

#: A name is a folder's in the cache.
NAME = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}"


@dataclass(frozen=True)
class ImportOptions(Options):
    """What an imported prior is called, and what its card says."""

    name: str | None = option(
        None,
        "Name of the prior.",
        text("NAME", NAME, "letters, digits and ._+-"),
        unset="that of the file",
    )
    licence: str | None = option(
        None, "Licence of the weights.", text("SPDX", r"\S(.*\S)?"), unset="unknown"
    )
    framing: str = option(
        "ffhq",
        "How faces lie in its images, for --align: as in FFHQ, as in the bundled prior's, or five "
        "points in a JSON file.",
        named("ffhq|bundled|FILE", "ffhq, bundled or a JSON file"),
    )
    device: str = device_option()
