"""The Fréchet distance of two sets of features: that of the two Gaussians fitted to them.

`|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a^1/2 C_b C_a^1/2)^1/2)`: Dowson and Landau, "The Fréchet
distance between multivariate normal distributions", 1982.

Shapes: N M images, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_BLOCK = 4096


@dataclass(frozen=True)
class Gaussian:
    """Moments of a set of features, float64 on the CPU.

    Attributes:
        mean: `[F]`.
        covariance: `[F, F]`, with N - 1 below the fraction.
        count: N.
    """

    mean: Tensor
    covariance: Tensor
    count: int


def fit_gaussian(features: Tensor) -> Gaussian:
    """The moments of `[N, F]` features, N at least 2, summed in float64 a block of rows at a time.

    Raises:
        ValueError: for fewer than two rows.
    """
    if features.dim() != 2 or len(features) < 2:
        raise ValueError(f"expected two or more rows of features, got {tuple(features.shape)}")
    blocks = features.detach().cpu().split(_BLOCK)
    mean = torch.stack([block.double().sum(dim=0) for block in blocks]).sum(dim=0) / len(features)
    scatter = torch.zeros(len(mean), len(mean), dtype=torch.float64)
    for block in blocks:
        centred = block.double() - mean
        scatter += centred.mT @ centred
    return Gaussian(mean, scatter / (len(features) - 1), len(features))


def frechet_distance(a: Tensor | Gaussian, b: Tensor | Gaussian) -> float:
    """Fréchet distance in float64, by symmetric eigen-decompositions.

    Sets smaller than F give singular covariances, and any finite set makes the number too large:
    compare only distances that were taken with sets of the same two sizes.

    Args:
        a: `[N, F]` with N at least 2, or the moments of it.
        b: `[M, F]` with M at least 2, or the moments of it.

    Raises:
        ValueError: for fewer than two rows.
    """
    a, b = (x if isinstance(x, Gaussian) else fit_gaussian(x) for x in (a, b))
    root = _square_root(a.covariance)
    middle = torch.linalg.eigvalsh(root @ b.covariance @ root).clamp_min(0).sqrt().sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * middle
    return float((a.mean - b.mean).square().sum() + spread)


def _square_root(covariance: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.mT
