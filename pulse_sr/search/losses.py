"""Losses of a latent search, one number per sample: a sample never feels its batch mates.

Shapes: S samples, L ws (the style vectors of W+), D latent width, h w low-res.
"""

from __future__ import annotations

import torch

#: Added under a square root, whose gradient has no limit at 0.
ROOT_EPS = 1e-9


def mean_square(residual: torch.Tensor) -> torch.Tensor:
    """Mean square of each sample of `[S, C, h, w]`, `[S]`."""
    return residual.square().mean(dim=[1, 2, 3])


#: Covariance of red, green and blue of faces, over the pixels of the seed bank of `faces-128`.
#: Its eigenvalues are as 144 : 11 : 1: light varies far more than colour does.
FACE_COLOURS = (
    (0.0595, 0.0461, 0.0383),
    (0.0461, 0.0424, 0.0383),
    (0.0383, 0.0383, 0.0387),
)


def colour_balance() -> torch.Tensor:
    """What red, green and blue of a residual are multiplied by: `FACE_COLOURS^(-1/4)`, `[3, 3]`.

    A generator of faces answers to a change of its features in brightness much more than in
    colour, so errors of colour would be the last to go. With the exponent -1/2 all would go alike;
    it is halved because the match is judged without weights (docs/search.md).

    Returns:
        float64, symmetric; white residuals keep their mean square.
    """
    values, vectors = torch.linalg.eigh(torch.tensor(FACE_COLOURS, dtype=torch.float64))
    weights = values.pow(-0.25)
    return vectors * (weights / weights.square().mean().sqrt()) @ vectors.mT


def geocross(w: torch.Tensor) -> torch.Tensor:
    """How far the ws `[S, L, D]` of a sample point apart, `[S]` (PULSE, section 3.3).

    The mean over all ordered pairs of ws of `D * angle^2 / 8`, where the angle is taken as
    `2 atan2(|a - b|, |a + b|)`.
    """
    a, b = w[:, :, None], w[:, None]
    difference = ((a - b).square().sum(dim=3) + ROOT_EPS).sqrt()
    total = ((a + b).square().sum(dim=3) + ROOT_EPS).sqrt()
    angle = 2 * torch.atan2(difference, total)
    return (angle.square() * w.shape[2]).mean(dim=[1, 2]) / 8


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
