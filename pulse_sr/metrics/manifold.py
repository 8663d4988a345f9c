"""Precision and recall of samples: how good they are and how much of the data they cover, apart.

Kynkäänniemi et al., "Improved Precision and Recall Metric for Assessing Generative Models",
NeurIPS 2019, eq. 1 and 2. The manifold of a set is the union of balls around its points, each as
large as the distance to the k-th nearest other point.

Shapes: N M images, F features.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: The paper's choice of k.
NEIGHBOURS = 3
_BLOCK = 1024


def precision_recall(samples: Tensor, reals: Tensor, k: int = NEIGHBOURS) -> tuple[float, float]:
    """Share of the samples in the manifold of the reals, share of the reals in that of the samples.

    Both depend on the number of points: the larger set is thinned out evenly to the size of the
    smaller one, and only numbers taken with the same size compare.

    Args:
        samples: `[N, F]`.
        reals: `[M, F]`.
        k: which neighbour sets the radius.

    Raises:
        ValueError: when a set has no k-th neighbour.
    """
    count = min(len(samples), len(reals))
    if count <= k:
        raise ValueError(f"{count} images have no neighbour number {k}")
    samples, reals = (_thinned(x, count).double() for x in (samples, reals))
    precision = _covered(samples, reals, _radii(reals, k))
    recall = _covered(reals, samples, _radii(samples, k))
    return precision, recall


def _thinned(features: Tensor, count: int) -> Tensor:
    places = torch.arange(count) * len(features) // count
    return features.detach().cpu()[places]


def _radii(points: Tensor, k: int) -> Tensor:  # [N, F] -> [N]
    """Distance of every point to its k-th nearest other point; the point itself comes first."""
    blocks = [torch.cdist(block, points) for block in points.split(_BLOCK)]
    return torch.cat([distances.kthvalue(k + 1, dim=1).values for distances in blocks])


def _covered(points: Tensor, centres: Tensor, radii: Tensor) -> float:
    """Share of the points that lie in one of the balls at least."""
    inside = [
        (torch.cdist(block, centres) <= radii).any(dim=1).double() for block in points.split(_BLOCK)
    ]
    return float(torch.cat(inside).mean())
