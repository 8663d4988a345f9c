"""The mean spectrum of images over direction, and how far two sets of images are apart in it.

Enlarging networks leave too little or too much at high frequencies (Durall et al., "Watch your
Up-Convolution", CVPR 2020). The profile is that of the authors' code, so that curves compare:
rings are 1 px wide, counted from the middle of the array of coefficients, half a coefficient beside
the mean; neither the first nor the last of them is kept. Losses take `pulse_sr.sr.spectrum`, whose
rings are centred on the mean.

Shapes: N images, H W size, K rings.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_sr.sr.spectrum import grey_of, normalised

#: Keeps the logarithm finite.
_EPS = 1e-8
#: From the profile's units, 20 times a natural logarithm, to decibels.
TO_DECIBELS = float(np.log10(np.e))
#: Side of the smallest image with two rings.
LEAST_SIDE = 6


def ring_mean(values: Tensor) -> Tensor:
    """Mean over rings around the middle of `[N, H, W]`, float64 `[N, K]`, see above.

    Ring k holds the places whose distance to ((H - 1) / 2, (W - 1) / 2) is from k + 1 to k + 2.
    """
    height, width = values.shape[-2:]
    y = torch.arange(height, dtype=torch.float64) - (height - 1) / 2
    x = torch.arange(width, dtype=torch.float64) - (width - 1) / 2
    rings = torch.hypot(y[:, None], x[None]).long().flatten()
    sums = torch.zeros(len(values), int(rings.max()) + 1, dtype=torch.float64)
    sums.index_add_(1, rings, values.detach().cpu().double().flatten(1))
    return (sums / torch.bincount(rings))[:, 1:-1]


def ring_frequencies(count: int) -> NDArray[np.float64]:
    """Frequency of each of K rings in cycles per px, to half a percent; 0.5 is Nyquist.

    The last ring ends half a diagonal from the middle, so their number tells the side to 0.7 px.
    """
    side = np.sqrt(2) * (count + 1.5) + 1
    found: NDArray[np.float64] = (np.arange(count) + 1.5) / side
    return found


def spectral_profile(images: Tensor) -> Tensor:
    """20 ln |F + 1e-8| of the luma, averaged over rings: float64 `[N, K]` on the CPU.

    Of images that are not square, the square at the top left is taken.

    Args:
        images: RGB `[N, 3, H, W]` in [0, 1], any float dtype, H and W at least 6.

    Raises:
        ValueError: another shape, or smaller images.
    """
    if images.dim() != 4 or min(images.shape[-2:]) < LEAST_SIDE:
        raise ValueError(
            f"a spectrum needs images [N, 3, H, W] of {LEAST_SIDE} px or more, got "
            f"{tuple(images.shape)}"
        )
    side = min(images.shape[-2:])
    grey = grey_of(images[..., :side, :side].detach().cpu().double())
    return ring_mean(20 * (torch.fft.fftshift(torch.fft.fft2(grey), (-2, -1)) + _EPS).abs().log())


def spectral_discrepancy(a: Tensor, b: Tensor) -> float:
    """Mean square difference of the mean profiles of two sets, each image's scaled to [0, 1].

    Papers that name a "power spectrum discrepancy" seldom say which; this is ours.

    Args:
        a: `[N, K]` of `spectral_profile`.
        b: `[M, K]`.

    Raises:
        ValueError: no images, or profiles of other sizes of images.
    """
    if not len(a) or not len(b) or a.shape[1] != b.shape[1]:
        raise ValueError(f"profiles {tuple(a.shape)} and {tuple(b.shape)} do not compare")
    difference = normalised(a).mean(dim=0) - normalised(b).mean(dim=0)
    return float(difference.square().mean())
