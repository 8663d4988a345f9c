"""ADA's geometric transforms as inverse 3x3 matrices: where each output pixel reads its input.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, appendix
B (pixel blitting, general geometric transformations).

Coordinates are pixels from the centre of the image, x to the right, y down; a matrix acts on
(x, y, 1) from the left. Each function takes the parameters of a transform, float64 `[N]`, and
returns the inverse of the transform, `[N, 3, 3]`.
"""

from __future__ import annotations

import torch
from torch import Tensor


def _matrix(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Matrices with these two rows above (0, 0, 1)."""
    zero = torch.zeros_like(rows[0][0])
    full = (*rows, (zero, zero, torch.ones_like(zero)))
    return torch.stack([torch.stack(row, dim=1) for row in full], dim=1)


def unscale(x: Tensor, y: Tensor) -> Tensor:
    """Undo a magnification by `x` across and `y` down; -1 mirrors."""
    zero = torch.zeros_like(x)
    return _matrix((1 / x, zero, zero), (zero, 1 / y, zero))


def unrotate(angle: Tensor) -> Tensor:
    """Undo a rotation by `angle` radians, counter-clockwise as it is seen."""
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    return _matrix((cosine, -sine, zero), (sine, cosine, zero))


def untranslate(x: Tensor, y: Tensor) -> Tensor:
    """Undo a move by `x` pixels to the right and `y` down."""
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _matrix((one, zero, -x), (zero, one, -y))
