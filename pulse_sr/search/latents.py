"""The latent space of a search: a Gaussianised style space and its spheres.

Shapes: S samples, L ws (the style vectors of W+), D latent width, r noise map side.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from pulse_sr.priors.base import LatentStatistics
from pulse_sr.search.losses import ROOT_EPS
from stylegan_ops.products import product

LatentMap = Callable[[torch.Tensor], torch.Tensor]


def diagonal_map(statistics: LatentStatistics) -> LatentMap:
    """`w = lrelu(std * u + mean)`: PULSE's map (Menon et al., CVPR 2020, section 3.3).

    The slope of the leaky ReLU is that of the statistics: 0.2 for StyleGAN2, 1 where w is z.
    """
    return lambda u: F.leaky_relu(u * statistics.std + statistics.mean, statistics.slope)


def full_map(statistics: LatentStatistics) -> LatentMap:
    """`w = lrelu(L u + mean)` with the Cholesky factor of the whole covariance."""
    factor = statistics.cholesky.t().contiguous()

    def to_style(u: torch.Tensor) -> torch.Tensor:  # [S, L, D] -> [S, L, D]
        return F.leaky_relu(product(u, factor) + statistics.mean, statistics.slope)

    return to_style


def draw_noise(
    shapes: Sequence[tuple[int, int]], generators: Sequence[torch.Generator]
) -> list[torch.Tensor]:
    """Standard normal noise maps `[S, 1, r, r]`, each sample from its own generator."""
    return [torch.stack([torch.randn(1, *s, generator=g) for g in generators]) for s in shapes]


def radius(x: torch.Tensor, first_dim: int) -> torch.Tensor:
    """Euclidean norm over the dimensions from `first_dim` on, kept for broadcasting."""
    dims = list(range(first_dim, x.ndim))
    return (x.square().sum(dim=dims, keepdim=True) + ROOT_EPS).sqrt()


def to_sphere_(x: torch.Tensor, radii: torch.Tensor, first_dim: int = 2) -> None:
    """Scale `x` in place to the spheres of `radii` (as `radius` gives them)."""
    x.div_(radius(x, first_dim)).mul_(radii)
