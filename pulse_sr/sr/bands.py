"""Images split into low and high frequencies, for losses and discriminators that see one of them.

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.sr.losses.content import gaussian_taps
from pulse_sr.sr.spectrum import fft2

FILTERS = ("mean", "gaussian", "sinc")
#: Highest frequency that the sinc filter leaves, radians a pixel.
CUTOFF = math.pi / 3


def sinc_kernel(size: int, cutoff: float = CUTOFF) -> Tensor:
    """The round ideal low-pass filter, cut off and scaled to a sum of 1: float64 `[size, size]`.

    Wang et al., "Real-ESRGAN", ICCVW 2021, equation 6: `cutoff J1(cutoff r) / (2 pi r)`.

    Args:
        size: odd.
        cutoff: radians a pixel, up to pi.
    """
    x = torch.arange(size, dtype=torch.float64) - size // 2
    r = torch.hypot(x[:, None], x[None])
    kernel = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r)
    kernel[size // 2, size // 2] = cutoff**2 / (4 * math.pi)
    return kernel / kernel.sum()


def low_pass_kernel(kind: str, size: int) -> Tensor:
    """A kernel that adds up to 1, float64 `[size, size]`.

    Args:
        kind: "mean"; "gaussian", sigma a sixth of the size; "sinc", which ends at `CUTOFF`.
        size: odd.

    Raises:
        ValueError: for another kind or an even size.
    """
    if size % 2 == 0:
        raise ValueError(f"a kernel of {size} px has no middle")
    if kind == "mean":
        return torch.full((size, size), 1 / size**2, dtype=torch.float64)
    if kind == "gaussian":
        taps = gaussian_taps(size, size / 6)
        return taps[:, None] * taps
    if kind == "sinc":
        return sinc_kernel(size)
    raise ValueError(f"filter is {kind!r}, expected one of {', '.join(FILTERS)}")


def separate_frequencies(
    images: Tensor, kind: str = "gaussian", size: int = 9
) -> tuple[Tensor, Tensor]:
    """Low and high frequencies, which add up to the images.

    Fritsche et al., "Frequency Separation for Real-World Super-Resolution", ICCVW 2019, section
    3.2: the pixel loss sees the low ones, the discriminator the high ones.

    Args:
        images: `[N, C, H, W]`, sides above half the size; borders are continued by reflection.
        kind: out of `FILTERS`.
        size: of the kernel in pixels, odd; 5 or 9 in the paper.

    Returns:
        two tensors of the shape of the images; the high frequencies are signed.
    """
    channels, half = images.shape[1], size // 2
    kernel = low_pass_kernel(kind, size).to(images).expand(channels, 1, -1, -1)
    padded = F.pad(images, (half, half, half, half), mode="reflect")
    low = F.conv2d(padded, kernel, groups=channels)
    return low, images - low


def _inside(images: Tensor, radius: float) -> Tensor:
    """Which coefficients of `fft2` lie below `radius` cycles an image, `[H, W]`."""
    fy, fx = (torch.fft.fftfreq(n, 1 / n, device=images.device) for n in images.shape[-2:])
    return torch.hypot(fy[:, None], fx[None]) < radius


def high_frequency_filter(images: Tensor, radius: float) -> Tensor:
    """Images without what lies at `radius` cycles an image and above, clamped to [0, 1].

    Li et al., "Are High-Frequency Components Beneficial for Training of Generative Adversarial
    Networks?", the filter (HFF): the discriminator sees real and generated images through it.

    Args:
        images: `[N, C, H, W]` in [0, 1].
        radius: cycles an image; 20 for 32 px in the paper, which only cuts corners.
    """
    kept = fft2(images) * _inside(images, radius)
    return torch.fft.ifft2(kept).real.clamp(0, 1)


def high_frequency_confusion(fake: Tensor, real: Tensor, radius: float) -> Tensor:
    """Low frequencies of generated images with the high ones of real images, clamped to [0, 1].

    The confusion (HFC) of the same paper: the discriminator sees this in place of the generated
    images, and learns nothing from high frequencies.

    Args:
        fake: `[N, C, H, W]` in [0, 1]; the gradient goes into these.
        real: the same shape.
        radius: see `high_frequency_filter`.
    """
    mixed = torch.where(_inside(fake, radius), fft2(fake), fft2(real))
    return torch.fft.ifft2(mixed).real.clamp(0, 1)
