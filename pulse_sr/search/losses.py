"""Losses of a latent search, one number per sample: a sample never feels its batch mates.

Shapes: S samples, L style rows, D latent width, h w low-res.
"""

from __future__ import annotations

import math

import torch

EPS = 1e-9


def mean_square(low: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of `[S, C, h, w]` and `[S or 1, C, h, w]`, `[S]`."""
    return (low - target).square().mean(dim=[1, 2, 3])


def geocross(w: torch.Tensor) -> torch.Tensor:
    """How far the style rows of a sample point apart, `[S]` (PULSE, section 3.3).

    The mean over all ordered pairs of rows of `D * angle^2 / 8`, where the angle is taken as
    `2 atan2(|a - b|, |a + b|)`.

    Args:
        w: styles `[S, L, D]`.
    """
    a, b = w[:, :, None], w[:, None]
    difference = ((a - b).square().sum(dim=3) + EPS).sqrt()
    total = ((a + b).square().sum(dim=3) + EPS).sqrt()
    angle = 2 * torch.atan2(difference, total)
    return (angle.square() * w.shape[2]).mean(dim=[1, 2]) / 8


def psnr(mse: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio in dB for peak 1.0; infinite at zero error."""
    return -10 * torch.log10(mse)


def mse_of(db: float) -> float:
    """The mean squared error that `db` stands for."""
    return 10 ** (-db / 10)


def linear_1cycle(step: float, steps: float) -> float:
    """PULSE's `linear1cycle`: from 1/10 up to 1 in the middle and back."""
    return (9 * (1 - abs(step / steps - 0.5) * 2) + 1) / 10


def linear_1cycle_drop(step: int, steps: int) -> float:
    """PULSE's schedule: `linear1cycle` over the first 90 %, then down from 1/10 to 1/1000."""
    cycle = 0.9 * steps
    if step < cycle:
        return linear_1cycle(step, cycle)
    return 0.1 + (step - cycle) / (steps - cycle) * (0.001 - 0.1)


def cosine_1cycle(step: int, steps: int, warmup: float = 0.1, low: float = 0.1) -> float:
    """Linear warm-up over a share `warmup` of the steps, then a cosine from 1 down to `low`."""
    rise = max(1.0, warmup * steps)
    if step < rise:
        return (step + 1) / (rise + 1)
    phase = (step - rise) / max(1.0, steps - rise)
    return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * phase))
