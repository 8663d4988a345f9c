"""Losses between an enlarged image and its original, by their spectra.

All take images `[N, C, H, W]` in [0, 1] and return a scalar, a mean over the images. What splits
images by frequency is in `pulse_sr.sr.bands`.

Shapes: N images, C channels, H W pixels, K rings of frequencies.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pulse_sr.sr.losses.adversarial import AdversarialLoss
from pulse_sr.sr.spectrum import (
    azimuthal_mean,
    dct2,
    fft2,
    grey_of,
    log_magnitude,
    normalised,
)

NORMS = ("l1", "l2")
SPECTRA = ("complex", "magnitude", "log")
_EPS = 1e-12
#: Profiles are kept so far from 0 and 1, where cross entropy has no bound.
_PROFILE_MARGIN = 1e-4


def _norm(x: Tensor, norm: str) -> Tensor:
    """L1 or L2 norm of each image, `[N]`; of complex numbers by their moduli."""
    if norm == "l1":
        return x.abs().flatten(1).sum(dim=1)
    parts = torch.view_as_real(x) if x.is_complex() else x
    return (parts.square().flatten(1).sum(dim=1) + _EPS).sqrt()


def relative_distance(a: Tensor, b: Tensor, norm: str) -> Tensor:
    """`|a - b| / max(|a|, |b|)` of each image, a mean over them."""
    if norm not in NORMS:
        raise ValueError(f"norm is {norm!r}, expected one of {', '.join(NORMS)}")
    larger = torch.maximum(_norm(a, norm), _norm(b, norm)).clamp_min(_EPS)
    return (_norm(a - b, norm) / larger).mean()


def fft_loss(
    enlarged: Tensor, original: Tensor, norm: str = "l1", spectrum: str = "complex"
) -> Tensor:
    """Relative distance of two spectra, `|F(a) - F(b)| / max(|F(a)|, |F(b)|)`.

    The loss of the ESRGAN with LPIPS, RaGP and FFT, which names neither norm nor spectrum. With
    "l2" and "complex" it is a pixel loss by Parseval's theorem: the relative Euclidean distance of
    the images. The others see the spectrum.

    Args:
        enlarged: `[N, C, H, W]` in [0, 1].
        original: the same shape.
        norm: "l1", the sum of the moduli over all coefficients of an image, or "l2".
        spectrum: "complex"; "magnitude" does not see where things are; "log" takes
            `log(1 + magnitude)`, in which high frequencies weigh more.

    Raises:
        ValueError: for another norm or spectrum.
    """
    if spectrum not in SPECTRA:
        raise ValueError(f"spectrum is {spectrum!r}, expected one of {', '.join(SPECTRA)}")
    a, b = fft2(enlarged), fft2(original)
    if spectrum != "complex":
        a, b = a.abs(), b.abs()
    if spectrum == "log":
        a, b = a.log1p(), b.log1p()
    return relative_distance(a, b, norm)


def dct_loss(enlarged: Tensor, original: Tensor, norm: str = "l1") -> Tensor:
    """`fft_loss` with the orthonormal cosine transform (DCT-II), without a seam at the borders.

    With "l2" it is a pixel loss, as that one.
    """
    return relative_distance(dct2(enlarged), dct2(original), norm)


def spectral_loss(enlarged: Tensor, original: Tensor) -> Tensor:
    """Binary cross entropy of the profile of an enlarged image with that of its original.

    Durall et al., "Watch your Up-Convolution", CVPR 2020, equations 6 and 8: the azimuthal mean of
    the logarithmic magnitudes of the luma, scaled to [0, 1]. The authors' code weighs another loss
    by this number, without a gradient; this one has one. Its least value is the entropy of the
    original's profile, not 0.

    Args:
        enlarged: `[N, C, H, W]` in [0, 1], C 1 or 3.
        original: the same shape.
    """
    a, b = (
        normalised(azimuthal_mean(log_magnitude(grey_of(images))))
        for images in (enlarged, original)
    )
    a, b = a.clamp(_PROFILE_MARGIN, 1 - _PROFILE_MARGIN), b.detach()
    return -(b * a.log() + (1 - b) * (1 - a).log()).mean()


def _patches(images: Tensor, factor: int) -> Tensor:
    """Cut into `factor^2` equal parts, `[N, factor^2, C, h, w]`."""
    n, c, height, width = images.shape
    if height % factor or width % factor:
        raise ValueError(f"{height}x{width} px do not divide into {factor}x{factor} parts")
    parts = images.reshape(n, c, factor, height // factor, factor, width // factor)
    return parts.permute(0, 2, 4, 1, 3, 5).flatten(1, 2)


def focal_frequency_loss(
    enlarged: Tensor,
    original: Tensor,
    *,
    alpha: float = 1.0,
    patches: int = 1,
    average: bool = False,
    log_weights: bool = False,
    batch_weights: bool = False,
) -> Tensor:
    """Squared distance of the spectra, weighed by how far each coefficient is off.

    Jiang et al., "Focal Frequency Loss for Image Reconstruction and Synthesis", ICCV 2021, equation
    8, with the options of the authors' package.

    Args:
        enlarged: `[N, C, H, W]` in [0, 1].
        original: the same shape.
        alpha: exponent of the weights.
        patches: cut each side into so many parts, and compare these.
        average: compare the mean spectra of the batch.
        log_weights: weigh by the logarithm.
        batch_weights: divide the weights by the largest of the batch instead of the image's and
            channel's.

    Raises:
        ValueError: for sides that do not divide into the parts.
    """
    a, b = (fft2(_patches(images, patches), norm="ortho") for images in (enlarged, original))
    if average:
        a, b = a.mean(dim=0, keepdim=True), b.mean(dim=0, keepdim=True)
    distances = torch.view_as_real(a - b).square().sum(dim=-1)
    weights = distances.detach().sqrt() ** alpha
    if log_weights:
        weights = weights.log1p()
    largest = weights.amax() if batch_weights else weights.amax(dim=[-2, -1], keepdim=True)
    weights = (weights / largest).nan_to_num(0.0).clamp(0, 1)
    return (weights * distances).mean()


def ssd_gan_loss(
    loss: AdversarialLoss,
    mixed: Callable[[Tensor], Tensor],
    spectral: Callable[[Tensor], Tensor],
    real: Tensor,
    fake: Tensor,
) -> Tensor:
    """Loss of the discriminator of SSD-GAN (Chen et al., AAAI 2021), mixture and spectra apart.

    That of the generator is `loss.generator` on the mixed logits.

    Args:
        loss: out of `adversarial.LOSSES`.
        mixed: `SSDDiscriminator`, pixels and spectra weighed.
        spectral: its `spectral_logits`.
        real: `[N, C, H, W]` in [0, 1].
        fake: generated images, detached.
    """
    return loss.discriminator(mixed(real), mixed(fake)) + loss.discriminator(
        spectral(real), spectral(fake)
    )
