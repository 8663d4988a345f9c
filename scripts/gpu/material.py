"""What the steps of `scripts/gpu_run.sh` work on, made from random numbers.

python scripts/gpu/material.py prior RESOLUTION FILE    a StyleGAN2 of config F, untrained
python scripts/gpu/material.py images SIDE COUNT FOLDER pictures to train on, of nothing
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pulse_sr.priors.files import save_prior
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior


def write_prior(resolution: int, file: Path) -> None:
    """Writes a generator with the widths of config F and random weights as a prior file."""
    torch.manual_seed(0)
    generator = Generator(StyleGAN2Config.from_base(resolution)).eval()
    statistics = fit_statistics(generator, count=10_000)
    card = {"licence": "none needed"}
    save_prior(file, StyleGAN2Prior(f"random-{resolution}", generator, statistics, card=card))


def write_images(side: int, count: int, folder: Path) -> None:
    """Writes random pictures with large and small structures."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = rng.integers(0, 256, (4, 4, 3)).astype(np.uint8)
        large = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        pixels = np.asarray(large).astype(int) + rng.integers(-20, 21, (side, side, 3))
        picture = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
        picture.save(folder / f"{index:05d}.png")


def main(words: Sequence[str]) -> int:
    """Writes what is asked for; returns the exit code."""
    match list(words):
        case ["prior", resolution, file]:
            write_prior(int(resolution), Path(file))
        case ["images", side, count, folder]:
            write_images(int(side), int(count), Path(folder))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
