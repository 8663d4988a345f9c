"""Score a prior against images it was and was not trained on.

    python scripts/bench/score_prior.py --prior faces-64 --train TRAIN_DIR --held-back EVAL_DIR
        [--output docs/results/faces-64-scores.json]

Prints a table and writes it as a file of results: distances of samples to training images, of
held-back images to training images as the floor, precision and recall, and the check for copies.
The features are those of the first of SqueezeNet and EfficientNet-Lite0 that the prior was not
trained with, and the names of the scores say which: none is FID or KID, unless an Inception file is
given. `--size` scores samples and images at another size, so that priors of different resolution
compare.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image

import pulse_sr
from pulse_sr.bench.frame import describe_machine
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_bytes
from pulse_sr.images.pixels import to_pillow
from pulse_sr.jobs.scoring import (
    COPY_RATIO,
    COPY_SHARE,
    FIRST_SEED,
    Scorer,
    read_images,
    sample_chunks,
)
from pulse_sr.metrics.feature_networks import NETWORKS, judge_of
from pulse_sr.report.table import Document, facts, markdown, result_document


def resized(chunks: Iterator[torch.Tensor], side: int) -> Iterator[torch.Tensor]:
    """Images `[n, 3, R, R]` at another size, by Lanczos as the training images are."""
    for chunk in chunks:
        pictures = [to_pillow(image) for image in chunk.cpu().numpy()]
        small = [picture.resize((side, side), Image.Resampling.LANCZOS) for picture in pictures]
        stacked = np.stack([np.asarray(picture).transpose(2, 0, 1) for picture in small])
        yield torch.from_numpy(stacked)


def document_of(columns: dict[str, dict[str, float]], note: str, environment: Document) -> Document:
    """The scores as a file of results, one row a score."""
    names = next(iter(columns.values()))
    rows = [
        {"score": name, **{title: found[name] for title, found in columns.items() if name in found}}
        for name in names
    ]
    forms = {"score": "{score}", **{title: f"{{{title}:.3f}}" for title in columns}}
    command = "python scripts/bench/score_prior.py --train faces/train --held-back faces/eval"
    return result_document("", command, forms, rows, environment, note=note)


@click.command()
@click.option("--prior", "name", default=None, help="Name or path; default: the bundled one.")
@click.option("--train", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--held-back", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--count", default=5000, show_default=True, help="Samples and training images.")
@click.option("--size", type=int, default=None, help="Score at this size; default: the prior's.")
@click.option("--features", type=click.Choice(list(NETWORKS)), help="The network that judges.")
@click.option("--inception", type=click.Path(path_type=Path), default=None, help="For FID, KID.")
@click.option("--device", default="auto", show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="The file of results.")
def main(
    name: str | None,
    train: Path,
    held_back: Path,
    count: int,
    size: int | None,
    features: str | None,
    inception: Path | None,
    device: str,
    output: Path | None,
) -> None:
    """Print the table, and write it."""
    prior = pulse_sr.load_prior(name, device)
    side = size or prior.resolution
    started = time.perf_counter()
    scorer = Scorer(
        read_images(train, side),
        count,
        held_back=read_images(held_back, side, count),
        inception=inception,
        device=prior.device,
        network=judge_of(prior.card.get("trained_with", []), features),
    )
    chunks = sample_chunks(prior, count)
    found = scorer.score_images(resized(chunks, side) if side != prior.resolution else chunks)
    floor = scorer.reference_scores()
    assert floor is not None  # held-back images were given
    note = (
        f"{prior.name} at {side} px: {count} samples (seeds from {FIRST_SEED}) and the held-back "
        f"images against {scorer.references} of {len(scorer.images)} training images; copies are "
        f"looked for in all of them. {time.perf_counter() - started:.0f} s."
    )
    usual = {COPY_SHARE: 0.05, COPY_RATIO: 1.0}  # the held-back images set the scale
    columns = {f"{count} samples": found.values, floor[0]: floor[1] | usual}
    document = document_of(columns, note, describe_machine(prior.device))
    print(f"{markdown(document)}\n\n{facts(document)}")
    if output is not None:
        write_atomic(output, json_bytes(document))


if __name__ == "__main__":
    main()
