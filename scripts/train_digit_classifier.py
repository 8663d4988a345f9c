"""Train the classifier of handwritten digits that the recipe `mnist-srgan-cnn` learns from.

    python scripts/train_digit_classifier.py IMAGES LABELS -o DIR [--seed N]

The files are those of MNIST (idx format, gzip'ed or not). Three epochs of Adam, rate 1e-3, batches
of 64, as the work that the recipe repeats; a tenth is held back to say how good the classifier is.
DIR is what `train-sr --weights-dir` takes.
"""

from __future__ import annotations

from pathlib import Path

import click
import safetensors.torch
import torch
import torch.nn.functional as F

from pulse_sr.data.idx import read_idx
from pulse_sr.data.order import rng_of
from pulse_sr.files.atomic import write_atomic
from pulse_sr.sr.digit_classifier import DigitClassifier
from pulse_sr.training.sr.losses import DIGITS_NAME

EPOCHS, BATCH, RATE = 3, 64, 1e-3


@click.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.argument("labels", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "out", type=click.Path(path_type=Path), required=True)
@click.option("--seed", default=0, help="Another one makes a judge that no network learned from.")
def main(images: Path, labels: Path, out: Path, seed: int) -> None:
    """Write the classifier's weights into a folder."""
    digits = torch.from_numpy(read_idx(images).copy()).float()[:, None] / 255
    classes = torch.from_numpy(read_idx(labels).copy()).long()
    held_back = len(digits) // 10
    torch.manual_seed(seed)
    network = DigitClassifier()
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    for epoch in range(EPOCHS):
        order = held_back + torch.randperm(len(digits) - held_back, generator=rng_of(seed, epoch))
        for rows in order.split(BATCH):
            optimizer.zero_grad()
            F.cross_entropy(network(digits[rows]), classes[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            right = network(digits[:held_back]).argmax(dim=1) == classes[:held_back]
        print(f"epoch {epoch + 1}: {right.float().mean():.2%} of {held_back} held-back digits")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / DIGITS_NAME, safetensors.torch.save(network.state_dict()))


if __name__ == "__main__":
    main()
