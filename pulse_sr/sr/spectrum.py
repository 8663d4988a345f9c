"""Spectra of images: the discrete Fourier transform and its mean over rings of equal frequency.

Shapes: N images, C channels, H W pixels, K rings.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: Rec. 601 weights of red, green and blue.
LUMA = (0.2989, 0.5870, 0.1140)


def grey_of(images: Tensor) -> Tensor:
    """Luma `[N, H, W]` of RGB images, or the channel of grey ones.

    Args:
        images: `[N, 3, H, W]` or `[N, 1, H, W]`.

    Raises:
        ValueError: for another number of channels.
    """
    if images.shape[1] == 1:
        return images[:, 0]
    if images.shape[1] != 3:
        raise ValueError(f"expected 1 or 3 channels, got {tuple(images.shape)}")
    weights = torch.tensor(LUMA, dtype=images.dtype, device=images.device)
    return torch.einsum("nchw,c->nhw", images, weights)


def fft2(images: Tensor, norm: str = "backward") -> Tensor:
    """`torch.fft.fft2`, in float32 for the half precisions that it does not take."""
    return torch.fft.fft2(images if images.dtype == torch.float64 else images.float(), norm=norm)


def ring_numbers(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Number of the ring of each coefficient of `fft2`, int64 `[H, W]`.

    Rings are one cycle per shorter side wide, centred on whole numbers; ring 0 is the mean. In
    corners, beyond the Nyquist frequency of the axes, they go on.
    """
    short = min(height, width)
    fy = torch.fft.fftfreq(height, dtype=torch.float64, device=device) * short
    fx = torch.fft.fftfreq(width, dtype=torch.float64, device=device) * short
    return torch.hypot(fy[:, None], fx[None]).round().long()


def azimuthal_mean(values: Tensor) -> Tensor:
    """Mean over each ring of frequencies up to the Nyquist frequency, differentiable.

    Args:
        values: floating point `[..., H, W]`, in the order of `fft2`.

    Returns:
        `[..., K]` with K = min(H, W) // 2 + 1; entry k belongs to k cycles per shorter side.
    """
    height, width = values.shape[-2:]
    rings = ring_numbers(height, width, values.device).flatten()
    count = min(height, width) // 2 + 1
    kept = rings < count
    sums = values.new_zeros(*values.shape[:-2], count)
    sums = sums.index_add(-1, rings[kept], values.flatten(-2)[..., kept])
    return sums / torch.bincount(rings[kept], minlength=count).to(values.dtype)


def log_magnitude(images: Tensor, eps: float = 1e-8) -> Tensor:
    """`20 log10 |F + eps|`, decibels `[..., H, W]`, in the order of `fft2`.

    The square root of a sum with `eps^2` keeps the gradient finite where a coefficient is zero.
    """
    spectrum = fft2(images)
    power = spectrum.real.square() + spectrum.imag.square()
    return 10 * torch.log10(power + eps**2)


def normalised(profile: Tensor, eps: float = 1e-8) -> Tensor:
    """Each profile `[..., K]` moved and scaled so that it reaches from 0 to 1."""
    low, high = profile.amin(dim=-1, keepdim=True), profile.amax(dim=-1, keepdim=True)
    return (profile - low) / (high - low).clamp_min(eps)


def _cosines(size: int, like: Tensor) -> Tensor:
    """The orthonormal DCT-II as a matrix, `[size, size]`."""
    k = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * (k + 0.5) * k[:, None]) * math.sqrt(2 / size)
    matrix[0] = math.sqrt(1 / size)
    return matrix.to(like)


def dct2(images: Tensor) -> Tensor:
    """Orthonormal cosine transform (DCT-II) of the last two dimensions, differentiable."""
    height, width = images.shape[-2:]
    return _cosines(height, images) @ images @ _cosines(width, images).mT
