"""Score a prior against images it was and was not trained on.

    python scripts/bench/score_prior.py --prior faces-64 --train TRAIN_DIR --held-back EVAL_DIR

Prints a Markdown table of the SqueezeNet Fréchet distance and the SqueezeNet kernel distance
(neither is FID or KID: other network, other numbers) between samples and training images, between
held-back and training images as the floor, and the memorisation check: how far samples and
held-back images lie from their nearest training image in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
import torch

import pulse_sr
from pulse_sr.metrics.squeezenet import frechet_distance, kernel_distance, pooled_features
from pulse_sr.priors.base import Prior
from pulse_sr.training.images import decode, list_images

FIRST_SEED = 1000  # the card's grid shows the seeds below


def read_folder(folder: Path, count: int, side: int) -> torch.Tensor:
    """Evenly chosen images of a folder, `[N, 3, R, R]` in [0, 1]."""
    paths = list_images(folder)
    chosen = [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).astype(int)]
    return torch.from_numpy(np.stack([decode(path, side) for path in chosen])).float() / 255


def draw(prior: Prior, count: int, chunk: int = 50) -> torch.Tensor:
    """Uncurated samples `[N, 3, R, R]` in [0, 1]."""
    seeds = range(FIRST_SEED, FIRST_SEED + count)
    return torch.cat([prior.sample(seeds[i : i + chunk]).cpu() for i in range(0, count, chunk)])


def nearest_rms(images: torch.Tensor, references: torch.Tensor) -> float:
    """Median over `images` of the RMS difference to the nearest reference."""
    a, b = images.flatten(1), references.flatten(1)
    return (torch.cdist(a, b).min(dim=1).values / a.shape[1] ** 0.5).median().item()


def scores(images: torch.Tensor, references: torch.Tensor, features: torch.Tensor) -> list[float]:
    """Fréchet distance, kernel distance x 1000, RMS to the nearest reference."""
    own = pooled_features(images)
    distances = [frechet_distance(own, features), kernel_distance(own, features) * 1000]
    return [*distances, nearest_rms(images, references)]


def row(name: str, values: Sequence[float]) -> str:
    """One line of the table."""
    return f"| {name} | {values[0]:.3f} | {values[1]:.3f} | {values[2]:.3f} |"


@click.command()
@click.option("--prior", "name", default=None, help="Name or path; default: the bundled one.")
@click.option("--train", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--held-back", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--count", default=2000, show_default=True, help="Samples and training images.")
def main(name: str | None, train: Path, held_back: Path, count: int) -> None:
    """Print the table."""
    prior = pulse_sr.load_prior(name)
    training = read_folder(train, count, prior.resolution)
    features = pooled_features(training)
    held = read_folder(held_back, count, prior.resolution)
    print(
        f"{prior.name}: {count} samples (seeds from {FIRST_SEED}), {len(training)} training images"
    )
    print(
        "| images | Fréchet (SqueezeNet) | kernel x 1000 (SqueezeNet) | RMS to nearest training |"
    )
    print("|---|---|---|---|")
    print(row("samples", scores(draw(prior, count), training, features)))
    print(row(f"held-back photos ({len(held)})", scores(held, training, features)))


if __name__ == "__main__":
    main()
