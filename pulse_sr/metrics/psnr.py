"""Peak signal-to-noise ratio to the truth.

Shapes: N images, C channels, H W size.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pulse_sr.images.pixels import Pixels
from pulse_sr.metrics.convention import Convention
from pulse_sr.operators.base import psnr_of

#: Stands for "identical" (an infinite PSNR), which JSON has no number for.
HIGHEST_DB = 200.0


def psnr(images: Tensor, truth: Tensor) -> Tensor:
    """PSNR in dB: peak 1.0, all channels, no border crop, computed in float64.

    Args:
        images: `[N, C, H, W]` in [0, 1], any float dtype.
        truth: `[N, C, H, W]`, or one image `[1, C, H, W]` or `[C, H, W]` for all.

    Returns:
        float64 `[N]`; identical images give infinity.

    Raises:
        ValueError: when the sizes differ, or an argument holds integers.
    """
    if images.dim() != 4 or images.shape[1:] != truth.shape[-3:]:
        raise ValueError(f"images {tuple(images.shape)} and truth {tuple(truth.shape)} differ")
    if not (images.is_floating_point() and truth.is_floating_point()):
        raise ValueError(f"expected floats in [0, 1], got {images.dtype} and {truth.dtype}")
    mse = (images.double() - truth.double()).square().mean(dim=[1, 2, 3])
    return psnr_of(mse)


def luma_psnr(pixels: Pixels, truth: Pixels, border: int) -> float:
    """PSNR in dB as tables of super-resolution have it: Y in studio range, the border cut away.

    Y is that of BT.601 (16 to 235), not rounded; peak 255.

    Args:
        pixels: uint8 RGB `[3, H, W]`.
        truth: the same size.
        border: pixels left out on each side; the scale, as a rule.

    Returns:
        infinity for equal pictures.

    Raises:
        ValueError: when the sizes differ, or the border leaves nothing.
    """
    convention = Convention("y", border)
    luma, expected = (
        convention.of(torch.from_numpy(each / 255.0)[None]) for each in (pixels, truth)
    )
    return float(psnr(luma, expected))
