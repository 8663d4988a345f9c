"""The projections of what is written: 8-bit images that downscale to the input, or images that
match a noisy input as closely as its noise allows.

Shape legend: S samples, C channels, H W high-res, h w low-res. Images are in [0, 1].
"""

from __future__ import annotations

import math
from functools import cache

import torch
from torch import Tensor

from pulse_sr.operators.base import Operator
from stylegan_ops.products import sandwich

#: Cosines per axis that count as low frequencies, and the rings in which they are weighed.
_LOW, _RINGS = 4, ((0, 1), (1, 2), (2, 4))
#: Damping of their inverse, as part of the operator's gain: they are far from its null space.
_LITTLE = 0.01


def project_to_rounding_limit(
    operator: Operator, x: Tensor, y: Tensor, passes: int = 10, target_db: float = 58.9
) -> Tensor:
    """Repaints images until their 8-bit files downscale to y; each sample on its own.

    Every pass projects exactly and clamps to [0, 1]. Plain repetition creeps where much is clamped,
    so the passes carry Nesterov momentum (Beck and Teboulle, FISTA, 2009: the pass is a gradient
    step in the metric of A+, the clamp its proximal step). The image is rounded to 8 bits after
    every pass; the best rounded one is kept, and a sample ends as soon as it reaches the target.
    Samples are computed one by one in float64: their bits do not depend on the batch.

    Measured on 24 faces of 128 px at 10 passes, minimum over faces, with the starts: the truth
    blurred plus noise (25 dB), another person's face, flat grey, bicubic upscaling, white noise.
    Without momentum the same minima are 50 to 54 dB.

        scale                        2      4      8     16
        bicubic                    64.3   61.9   60.9   57.1   dB (no early stop)
        ends at (8-bit rounding)   66.6   72.5   78.3   84     dB

    Other operators are alike, except Gaussians that blur a lot or hardly at all for their scale:
    53 dB at least (`gaussian:1.6` from the 25-dB start, scales 2 and 8).

    Args:
        operator: A.
        x: start images [S, C, H, W] in [0, 1], any float dtype.
        y: pictures or observations [S, ...], or one for all, in [0, 1].
        passes: most passes; 0 only rounds.
        target_db: `Operator.lr_psnr` of the rounded image at which a sample is done. 58.9 dB is the
            rounding noise of an 8-bit low-res image.

    Returns:
        float64 [S, C, H, W], multiples of 1/255: `(result * 255).round()` are the bytes.

    Raises:
        UsageError: see `Operator.check_exact`.
    """
    y = operator.observe(y.double())
    targets = y.expand(len(x), *y.shape[-3:])
    return torch.stack(
        [
            _project_one(operator, start, target, passes, target_db)
            for start, target in zip(x.double(), targets, strict=True)
        ]
    )


def project_to_noise(operator: Operator, x: Tensor, y: Tensor, noise_variance: float) -> Tensor:
    """Moves one image softly towards a noisy input: as far as its residual exceeds the noise.

    If the high-res image is off by white noise of variance s^2, the residual y - A x has the
    variance s^2 gain + noise. That gives s^2, and with it lambda = noise variance / s^2
    (`Operator.project_soft`). An image that matches to the noise or better keeps its detail: what
    is left of the residual then is the noise. Last, its mean colour and lowest frequencies become
    those of the input, as far as the noise lets them be known.

    Args:
        operator: A; of a JPEG file its linear part.
        x: [3, H, W] in [0, 1].
        y: a picture or an observation.
        noise_variance: of y, in units of [0, 1], positive.

    Returns:
        [3, H, W] in the dtype of x, not clamped.
    """
    residual = operator.observe(y) - operator.linear(x)
    excess = float(residual.square().mean()) - noise_variance
    if excess > 0:
        x = operator.project_soft(x, y, noise_variance * operator.gain / excess)
    return _with_low_frequencies(operator, x, y, noise_variance)


def _with_low_frequencies(
    operator: Operator, x: Tensor, y: Tensor, noise_variance: float
) -> Tensor:  # [3, H, W]
    """Moves an image to the mean colour and the lowest frequencies of a noisy input.

    An image is seldom off by white noise: most of what is wrong lies in its lowest frequencies,
    which noise hides least. Of the cosine transform of the residual (DCT-II, orthonormal), the
    coefficients up to `_LOW` per axis are taken as far as they exceed the noise, ring by ring
    (James and Stein, 1961).
    """
    if operator.known_pixels is not None:  # no picture to transform
        return x
    residual = operator.observe(y) - operator.linear(x)
    rows, columns = (_cosines(side).to(x) for side in residual.shape[-2:])
    found = sandwich(rows, residual, columns.mT)  # [C, L, L]
    ring = torch.maximum(torch.arange(len(rows))[:, None], torch.arange(len(columns)))
    for low, high in _RINGS:
        inside = (ring >= low) & (ring < high)
        energy = found[:, inside].square().sum(dim=1)
        share = 1 - int(inside.sum()) * noise_variance / energy.clamp_min(1e-300)
        found[:, inside] *= share.clamp_min(0.0)[:, None]
    low_residual = sandwich(rows.mT, found, columns)
    return x + operator.damped_pinv(low_residual, _LITTLE * operator.gain)


@cache
def _cosines(side: int) -> Tensor:
    """The lowest rows of the orthonormal DCT-II, float64 [min(`_LOW`, side), side]."""
    place = torch.arange(side, dtype=torch.float64) + 0.5
    order = torch.arange(min(_LOW, side), dtype=torch.float64)[:, None]
    scale = torch.where(order == 0, 1.0, math.sqrt(2.0)) / math.sqrt(side)
    return scale * torch.cos(math.pi / side * order * place)


def _project_one(
    operator: Operator, x: Tensor, y: Tensor, passes: int, target_db: float
) -> Tensor:  # [C, H, W]
    best = _round(x)
    best_db = float(operator.lr_psnr(best, y))
    ahead, momentum = x, 1.0  # the point beyond x that momentum leads to
    for _ in range(passes):
        if best_db >= target_db:
            break
        previous, x = x, operator.project(ahead, y).clamp(0.0, 1.0)
        following = (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = x + (momentum - 1.0) / following * (x - previous)
        momentum = following
        rounded = _round(x)
        db = float(operator.lr_psnr(rounded, y))
        if db > best_db:
            best, best_db = rounded, db
    return best


def _round(x: Tensor) -> Tensor:
    """The image as an 8-bit file holds it: multiples of 1/255, half to even."""
    return (x.clamp(0.0, 1.0) * 255.0).round() / 255.0
