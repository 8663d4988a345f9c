"""The Gaussian that the latents of a generator are described by.

Shapes: N latents, D latent width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from pulse_sr.errors import SetupError
from pulse_sr.priors import stylegan1, stylegan2, stylegan2_bilinear
from pulse_sr.priors.base import STYLEGAN2_SLOPE, LatentStatistics


def fit_statistics(
    generator: stylegan1.Generator | stylegan2.Generator | stylegan2_bilinear.Generator,
    count: int = 100_000,
    seed: int = 0,
    chunk: int = 10_000,
) -> LatentStatistics:
    """Fit the Gaussian of the latent space before the mapping's last activation.

    PULSE (Menon et al., CVPR 2020, section 3.3) fits the mean and the deviation of each dimension
    of `lrelu_5(mapping(z))`; the covariance is kept whole here. Works in chunks, sums in float64.

    Raises:
        SetupError: the latents are not finite, or all the same.
    """
    width = generator.config.w_dim
    rng = torch.Generator().manual_seed(seed)
    total = torch.zeros(width, dtype=torch.float64)
    products = torch.zeros(width, width, dtype=torch.float64)
    device = generator.mapping.w_avg.device
    with torch.no_grad():
        for start in range(0, count, chunk):
            z = torch.randn(min(chunk, count - start), generator.config.z_dim, generator=rng)
            w = generator.mapping(z.to(device))
            v = F.leaky_relu(w, 1 / STYLEGAN2_SLOPE).double().cpu()  # its inverse
            total += v.sum(dim=0)
            products += v.t() @ v
    mean = total / count
    covariance = (products - count * torch.outer(mean, mean)) / (count - 1)
    variance = covariance.diagonal().mean()
    # Float64 sums can not tell a variance that is 1e-12 of the mean's square from none.
    if not (variance.isfinite() and variance > 1e-12 * mean.square().mean()):
        words = "do not vary" if variance.isfinite() else "are not finite"
        raise SetupError(
            f"the latents that the mapping network gives {words}",
            "its weights are damaged, or its training went astray",
        )
    # A mapping may leave directions without variance; the jitter keeps both defined there.
    jitter = 1e-6 * variance
    return LatentStatistics(
        mean=mean.float(),
        std=covariance.diagonal().maximum(jitter).sqrt().float(),
        cholesky=torch.linalg.cholesky(
            covariance + jitter * torch.eye(width, dtype=torch.float64)
        ).float(),
        count=count,
    )


def standard_statistics(width: int) -> LatentStatistics:
    """The exact Gaussian of a generator whose style is the standard normal z itself."""
    return LatentStatistics(
        mean=torch.zeros(width),
        std=torch.ones(width),
        cholesky=torch.eye(width),
        count=0,
        slope=1.0,
    )
