"""What `evaluate_search.py` searches: real faces, or faces that the prior itself drew.

The two are never mixed in one table. Shapes: R the prior's resolution, h w low-res.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pulse_sr.images.pixels import Pixels, to_pillow, to_uint8
from pulse_sr.images.read import read_image
from pulse_sr.metrics.squeezenet import pooled_features
from pulse_sr.operators.base import Operator
from pulse_sr.priors.base import Prior
from pulse_sr.search.records import Observed

#: Seeds of the faces that the prior draws; those of the seed bank lie at 10 million.
TRUTH_SEED, REFERENCE_SEED = 20_000_000, 30_000_000
REFERENCES = 400


@dataclass(frozen=True)
class Face:
    """A face whose true pixels are known: uint8 `[3, R, R]`."""

    name: str
    truth: Pixels


def to_tensor(pixels: Pixels) -> torch.Tensor:
    """uint8 [3, h, w] to float32 [1, 3, h, w] in [0, 1]."""
    return torch.from_numpy(pixels).float()[None] / 255.0


def sha256_of(pixels: Pixels) -> str:
    """What the seeds of an input's samples depend on."""
    return hashlib.sha256(pixels.tobytes()).hexdigest()


def observed(low: Pixels, operator: Operator, samples: int) -> Observed:
    """The low-res picture as a search takes it, with so many samples."""
    return Observed(
        y=to_tensor(low)[0],
        operator=operator,
        side=low.shape[-1],
        sha256=sha256_of(low),
        indices=range(samples),
    )


def read_truth(path: Path, resolution: int) -> Pixels:
    """The face at the prior's resolution: uint8 [3, R, R], reduced by Pillow's Lanczos."""
    pixels = read_image(path).pixels
    same = pixels.shape[1:] == (resolution, resolution)
    return pixels if same else _resized(pixels, resolution, Image.Resampling.LANCZOS)


def enlarge(pixels: Pixels, resolution: int) -> Pixels:
    """Pillow's bicubic upscaling."""
    return _resized(pixels, resolution, Image.Resampling.BICUBIC)


def _resized(pixels: Pixels, resolution: int, kind: Image.Resampling) -> Pixels:
    image = to_pillow(pixels).resize((resolution, resolution), kind)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def find_faces(folder: Path) -> list[Path]:
    """The pictures of a folder, by name."""
    kinds = {".jpg", ".jpeg", ".png"}
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds)


def real_faces(folder: Path, count: int, resolution: int) -> Iterator[Face]:
    """The first `count` pictures of a folder."""
    for path in find_faces(folder)[:count]:
        yield Face(path.name, read_truth(path, resolution))


def drawn_faces(prior: Prior, count: int) -> Iterator[Face]:
    """Samples of the prior, of seeds that the seed bank does not hold."""
    for seed in range(TRUTH_SEED, TRUTH_SEED + count):
        yield Face(f"seed {seed}", to_uint8(prior.sample([seed])[0].double().cpu().numpy()))


def reference_features(prior: Prior, folder: Path | None, count: int) -> torch.Tensor:
    """Features that written samples are compared with, `[N, F]`.

    Those of the pictures of the folder that are not searched, or of other samples of the prior.
    """
    if folder is None:
        seeds = range(REFERENCE_SEED, REFERENCE_SEED + REFERENCES)
        parts = [prior.sample(seeds[i : i + 50]).cpu() for i in range(0, len(seeds), 50)]
        return pooled_features(torch.cat(parts))
    others = find_faces(folder)[count:][:REFERENCES]
    if len(others) < 2:
        raise ValueError(f"{folder} has {len(others)} pictures beyond the first {count}")
    return pooled_features(torch.cat([to_tensor(read_truth(p, prior.resolution)) for p in others]))
