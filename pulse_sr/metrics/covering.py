"""The order in which a few samples soonest show all that is possible.

First the sample that is nearest to all others, then always the one farthest from those before: the
greedy k-center order (Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985).
However many one looks at, no sample is farther from them than twice what the best choice of as many
would leave. That holds in a metric, such as the root of the feature distance, which gives the same
order after the first.

Shapes: S samples, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.metrics.squeezenet import UNIT_EPS, squeezenet_features

#: Images whose features are in memory at once, twice: 9.4 MB each at 224 px. Up to 25 rows `cdist`
#: subtracts; above, it expands the square, which loses the difference of similar images.
_BLOCK = 16
#: Features summed in float32 at once: over all of them `cdist` is wrong in the fourth place.
_TERMS = 8192


@dataclass(frozen=True)
class Covering:
    """An order of samples.

    Attributes:
        order: indices, the most typical sample (the medoid) first.
        radii: beside each, how far the farthest sample is from the nearest of the order so far.
    """

    order: tuple[int, ...]
    radii: tuple[float, ...]


def covering_order(distances: Tensor) -> Covering:
    """Orders samples by the matrix of their distances.

    The first has the least sum of distances to all others. Of equal ones the lower index goes
    first.

    Args:
        distances: `[S, S]`, symmetric, 0 on the diagonal, S at least 1.

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    if distances.dim() != 2 or distances.shape[0] != distances.shape[1] or not len(distances):
        raise ValueError(f"expected distances [S, S], got {tuple(distances.shape)}")
    if not bool(distances.isfinite().all()):
        raise ValueError("a distance is not finite")
    order = [int(distances.sum(dim=1).argmin())]
    gap = distances[order[0]].clone()
    radii = [float(gap.max())]
    while len(order) < len(distances):
        gap[order] = -1.0  # taken, also where others are equal to them
        order.append(int(gap.argmax()))
        gap = torch.minimum(gap, distances[order[-1]])
        radii.append(max(float(gap.max()), 0.0))
    return Covering(tuple(order), tuple(radii))


def feature_distances(images: Tensor) -> Tensor:
    """SqueezeNet feature distance (`squeezenet.feature_distance`) of every pair of images.

    Memory is bounded (300 MB at 224 px): above 16 images, features are computed again for every
    block of pairs.

    Args:
        images: RGB `[S, 3, H, W]` in [0, 1].

    Returns:
        float32 `[S, S]` on the CPU, symmetric, 0 on the diagonal, at most 2.
    """
    found = torch.zeros(len(images), len(images))
    blocks = torch.arange(len(images)).split(_BLOCK)
    with torch.no_grad():
        for i, rows in enumerate(blocks):
            ours = _unit_features(images[rows])
            for columns in blocks[i:]:
                theirs = ours if columns is rows else _unit_features(images[columns])
                block = _square_distances(ours, theirs).float().cpu()
                found[rows[:, None], columns] = block
                found[columns[:, None], rows] = block.mT
    return found.fill_diagonal_(0.0)


def _unit_features(images: Tensor) -> Tensor:  # [n, 3, H, W] -> [n, F]
    """Features whose squared Euclidean distance is the SqueezeNet feature distance."""
    maps = squeezenet_features(images)
    unit = [F.normalize(x, eps=UNIT_EPS) / (x[0, 0].numel() * len(maps)) ** 0.5 for x in maps]
    return torch.cat([x.flatten(1) for x in unit], dim=1)


def _square_distances(a: Tensor, b: Tensor) -> Tensor:  # [n, F], [m, F] -> [n, m]
    total = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for x, y in zip(a.split(_TERMS, dim=1), b.split(_TERMS, dim=1), strict=True):
        total += torch.cdist(x, y).double().square()
    return total
