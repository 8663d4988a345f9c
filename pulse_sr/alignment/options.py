"""The options of `align`; imports neither torch nor numpy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pulse_sr.config import OPERATOR
from pulse_sr.files.paths import FILE
from pulse_sr.options import (
    Options,
    device_option,
    named,
    number,
    one_of,
    option,
    overwrite_option,
    path,
    prior_option,
    recursive_option,
    whole,
    whole_numbers,
)


@dataclass(frozen=True)
class Limits(Options):
    """What a face must have to be used: its score in [0, 1], its side in px, its sharpness."""

    min_score: float = option(
        0.6, "Leave out faces that the detector is less sure of.", number(0, 1)
    )
    min_size: float = option(
        24.0, "Leave out faces whose crop has fewer px in the photo.", number(1, 65536)
    )
    min_sharpness: float = option(
        4.0, "Leave out blurred faces (variance of the Laplacian).", number(0, 10**6)
    )


@dataclass(frozen=True)
class CropOptions(Options):
    """What is made of each face; the sides in `lr` are divisors of `size`."""

    size: int = option(256, "Side of the crops.", whole(4, 4096))
    lr: tuple[int, ...] = option(
        (),
        "Also write low-res versions, lr_N/.",
        whole_numbers("sizes such as 16,32", "N,N", 1, 4096),
    )
    operator: str = option("bicubic", "How --lr makes them.", OPERATOR)
    skip_duplicates: bool = option(False, "Leave out near-duplicates, not only note.")


@dataclass(frozen=True)
class AlignOptions(CropOptions):
    """Which faces are cropped in which framing, and whether again."""

    framing: str = option(
        "prior",
        "That of the prior's card (FFHQ if it names none), or FFHQ.",
        one_of("prior", "ffhq"),
    )
    prior: str | None = prior_option()
    landmarks: str = option(
        "yunet",
        "Who finds the faces: YuNet (5 points), FAN (68), or a file of points.",
        named("yunet|fan|FILE.json", "yunet, fan or a JSON file"),
    )
    weights: Path | None = option(
        None, "Weight file of fan.", path("a file", FILE, missing=True), unset="torch hub's folder"
    )
    download: bool = option(False, "Let fan fetch its weights (96 MB) if missing.")
    overwrite: bool = overwrite_option()
    device: str = device_option()
    recursive: bool = recursive_option()
