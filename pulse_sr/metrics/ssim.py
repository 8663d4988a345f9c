"""Structural similarity to the truth, by scikit-image with the settings of the paper.

Wang et al., "Image Quality Assessment: From Error Visibility to Structural Similarity", IEEE TIP
2004: a Gaussian window of 11 x 11 px with sigma 1.5, K1 = 0.01, K2 = 0.03, the variances of the
window without a correction, and the mean over the windows that lie inside the image. Tables of
super-resolution take these. scikit-image's own defaults are others (7 x 7, uniform).

Shapes: N images, C channels, H W size.
"""

from __future__ import annotations

import torch
from skimage.metrics import structural_similarity
from torch import Tensor

#: Side of the window; smaller images have no SSIM.
WINDOW = 11


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """SSIM with peak 1.0, a mean over the channels, in float64.

    Args:
        images: `[N, C, H, W]` in [0, 1], any float dtype, H and W at least 11.
        truth: the same shape, or one image `[1, C, H, W]` or `[C, H, W]` for all.

    Returns:
        float64 `[N]` on the CPU, from -1 to 1 (identical).

    Raises:
        ValueError: the sizes differ or are under 11 px, or an argument holds integers.
    """
    if images.dim() != 4 or images.shape[1:] != truth.shape[-3:]:
        raise ValueError(f"images {tuple(images.shape)} and truth {tuple(truth.shape)} differ")
    if not (images.is_floating_point() and truth.is_floating_point()):
        raise ValueError(f"expected floats in [0, 1], got {images.dtype} and {truth.dtype}")
    if min(images.shape[-2:]) < WINDOW:
        raise ValueError(f"SSIM needs images of {WINDOW} px or more, got {tuple(images.shape)}")
    values = [_ssim(a, b) for a, b in zip(images, truth.expand_as(images), strict=True)]
    return torch.tensor(values, dtype=torch.float64)


def _ssim(a: Tensor, b: Tensor) -> float:
    arrays = (x.detach().cpu().double().numpy() for x in (a, b))
    value = structural_similarity(
        *arrays,
        win_size=WINDOW,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=1.0,
        channel_axis=0,
    )
    return float(value)
