"""Losses between an enlarged image and its original, by their pixels.

All take images `[N, C, H, W]` in [0, 1] and return a scalar, a mean over the images. L1 and the
mean squared error are torch's own `l1_loss` and `mse_loss`.

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Window of SSIM: Wang et al., IEEE TIP 2004, section III-C.
WINDOW, SIGMA = 11, 1.5
_C1, _C2 = 0.01**2, 0.03**2


def charbonnier(enlarged: Tensor, original: Tensor, eps: float = 1e-12) -> Tensor:
    """Mean of `sqrt(d^2 + eps)` (Lai et al., LapSRN, CVPR 2017, equation 1; eps as in BasicSR)."""
    return ((enlarged - original).square() + eps).sqrt().mean()


def total_variation(enlarged: Tensor, eps: float = 1e-12) -> Tensor:
    """Sum of the lengths of the gradient over the number of pixels, a mean over channels.

    The regularisation loss of SRGAN (Ledig et al., CVPR 2017; weight 2e-8), isotropic:
    `sqrt(dx^2 + dy^2)` at every pixel, forward differences, zero across the last row and column.
    Other programs add up instead of averaging, or take absolute values.

    Args:
        enlarged: `[N, C, H, W]` in [0, 1].
        eps: added under the root, which has no gradient in a flat image otherwise.
    """
    across = F.pad(enlarged.diff(dim=3), (0, 1))
    down = F.pad(enlarged.diff(dim=2), (0, 0, 0, 1))
    return (across.square() + down.square() + eps).sqrt().mean()


def gaussian_taps(size: int, sigma: float) -> Tensor:
    """Samples of a Gaussian that add up to 1, float64 `[size]`."""
    x = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    taps = (-x.square() / (2 * sigma**2)).exp()
    return taps / taps.sum()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity of each pair, `[N]`.

    Wang et al., IEEE TIP 2004, equation 13: Gaussian window of 11 px and sigma 1.5 where it lies
    inside the image, range 1, no reduction of size, a mean over channels. That is what MATLAB's and
    BasicSR's number is.

    Args:
        a: `[N, C, H, W]` in [0, 1], H and W at least 11.
        b: the same shape.

    Raises:
        ValueError: for smaller images.
    """
    if min(a.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs {WINDOW} px, got images of {tuple(a.shape[-2:])}")
    channels = a.shape[1]
    taps = gaussian_taps(WINDOW, SIGMA).to(a).expand(channels, 1, 1, -1)

    def blur(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, taps, groups=channels), taps.mT, groups=channels)

    mean_a, mean_b = blur(a), blur(b)
    variance_a = blur(a.square()) - mean_a.square()
    variance_b = blur(b.square()) - mean_b.square()
    covariance = blur(a * b) - mean_a * mean_b
    light = (2 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    structure = (2 * covariance + _C2) / (variance_a + variance_b + _C2)
    return (light * structure).mean(dim=[1, 2, 3])


def dssim(enlarged: Tensor, original: Tensor) -> Tensor:
    """Structural dissimilarity `(1 - SSIM) / 2`, from 0 to 1."""
    return (1 - ssim(enlarged, original)).mean() / 2


def mse_and_dssim(enlarged: Tensor, original: Tensor, weight: float = 1.0) -> Tensor:
    """Mean squared error and `weight` times DSSIM, the content loss of the FFHQ face SRGAN."""
    return F.mse_loss(enlarged, original) + weight * dssim(enlarged, original)
