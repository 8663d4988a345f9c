"""The options of `eval`; imports neither torch nor numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pulse_sr.config import OPERATOR
from pulse_sr.errors import UsageError, shown
from pulse_sr.files import paths
from pulse_sr.options import (
    Kind,
    Options,
    device_option,
    of_type,
    one_of,
    option,
    path,
    seed_option,
    suggest,
    text,
    whole,
)

METRICS = (
    "psnr",
    "ssim",
    "lr-psnr",
    "lpips-alex",
    "lpips-vgg",
    "dists",
    "squeezenet",
    "niqe",
    "brisque",
    "psnr-mean",
    "diversity",
    "pixel-distance",
    "coverage",
    "niqe-set",
    "frechet",
    "kernel",
    "precision",
    "recall",
    "sliced-wasserstein",
    "spectrum",
    "fid",
    "kid",
)


def _known(value: Any) -> tuple[str, ...]:
    """The metrics of a list, each once."""
    names: Sequence[str] = of_type(value, tuple, list)
    for name in names:
        if name not in METRICS:
            raise UsageError(f"there is no metric {shown(name)}", suggest(str(name), METRICS))
    return tuple(dict.fromkeys(names))


def _names_of(listed: str) -> tuple[str, ...]:
    return () if listed == "all" else tuple(part.strip() for part in listed.split(","))


#: Metrics, in a text with commas.
NAMES = Kind(
    "metrics such as psnr,ssim",
    _known,
    "NAME,NAME",
    _names_of,
    ",".join,
    hint="known: all, " + ", ".join(METRICS),
)
FOLDER = path("a folder that exists", paths.FOLDER)


@dataclass(frozen=True)
class EvalOptions(Options):
    """Which metrics are taken, and by which convention."""

    metrics: tuple[str, ...] = option((), "Which metrics.", NAMES, unset="all")
    channels: str = option("rgb", "What PSNR and SSIM compare: RGB or Y.", one_of("rgb", "y"))
    crop: int = option(
        0, "Leave out so many px at each side for PSNR, SSIM and NIQE.", whole(0, 4096)
    )
    by: Path | None = option(
        None,
        "CSV file with labels of the images: one more table for each label, and the largest gap.",
        path("a CSV file", paths.FILE),
    )
    lr: Path | None = option(
        None, "Low-res inputs of results that do not name theirs, for LR consistency.", FOLDER
    )
    operator: str | None = option(None, "What made those.", OPERATOR, unset="bicubic")
    picture: str | None = option(
        None, "Of a folder of compare: which picture of each input.", text("NAME"), unset="sample"
    )
    weights: Path | None = option(
        None,
        "Folder of the files of AlexNet, VGG-16 and Inception.",
        FOLDER,
        unset="torch hub's folder",
    )
    seed: int = seed_option()
    device: str = device_option()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.operator is not None and self.lr is None:
            raise UsageError("--operator says how the pictures of --lr were made", "add --lr DIR")
