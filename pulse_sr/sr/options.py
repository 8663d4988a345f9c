"""The options of `upscale`; imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass

from pulse_sr.options import (
    Options,
    device_option,
    named,
    option,
    overwrite_option,
    recursive_option,
    whole,
)


@dataclass(frozen=True)
class UpscaleOptions(Options):
    """What is asked for: the network, and the side of the tiles in input pixels."""

    model: str | None = option(
        None, "The network.", named("NAME|PATH"), unset="the first of --list"
    )
    tile: int | None = option(
        None, "Side of the tiles in input pixels.", whole(32, 65536), unset="from memory"
    )
    overwrite: bool = overwrite_option()
    device: str = device_option()
    recursive: bool = recursive_option()
