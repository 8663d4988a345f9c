"""Train the classifier of handwritten digits that the recipe `mnist-srgan-cnn` learns from.

    python scripts/train_digit_classifier.py IMAGES.gz LABELS.gz -o DIR

The files are those of MNIST (idx format, gzip'ed). Three epochs of Adam, rate 1e-3, batches of 64,
as the work that the recipe repeats; a tenth is held back to say how good the classifier is. DIR is
what `train-sr --weights-dir` takes.
"""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import click
import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F

from pulse_sr.data.order import rng_of
from pulse_sr.files.atomic import write_atomic
from pulse_sr.sr.digit_classifier import DigitClassifier
from pulse_sr.training.sr.losses import DIGITS_NAME

EPOCHS, BATCH, RATE = 3, 64, 1e-3


def read_idx(path: Path) -> np.ndarray:
    """The array of an idx file of bytes."""
    data = gzip.decompress(path.read_bytes())
    _, kind, dimensions = struct.unpack(">HBB", data[:4])
    if kind != 8:
        raise click.UsageError(f"{path} holds no bytes in idx format")
    shape = struct.unpack(f">{dimensions}I", data[4 : 4 + 4 * dimensions])
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


@click.command()
@click.argument("images", type=click.Path(exists=True, path_type=Path))
@click.argument("labels", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "out", type=click.Path(path_type=Path), required=True)
def main(images: Path, labels: Path, out: Path) -> None:
    """Write the classifier's weights into a folder."""
    digits = torch.from_numpy(read_idx(images).copy()).float()[:, None] / 255
    classes = torch.from_numpy(read_idx(labels).copy()).long()
    held_back = len(digits) // 10
    torch.manual_seed(0)
    network = DigitClassifier()
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    for epoch in range(EPOCHS):
        order = held_back + torch.randperm(len(digits) - held_back, generator=rng_of(0, epoch))
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
