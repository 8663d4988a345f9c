"""Conjugate gradients for systems that have no closed form (Hestenes and Stiefel, 1952).

Shape legend: ... independent systems, [C, h, w] the unknowns of one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def solve(
    apply: Callable[[Tensor], Tensor], right: Tensor, tolerance: float, most: int = 1000
) -> Tensor:
    """Solves M u = b for a symmetric positive definite M, each system on its own.

    A system that has converged stays as it is while others of the batch go on.

    Args:
        apply: u -> M u, over the last three dimensions.
        right: b, [..., C, h, w].
        tolerance: of the residual, relative to b.
        most: largest number of products with M.

    Returns:
        u, the shape of b. With `most` products done, the best that they gave.
    """
    u = torch.zeros_like(right)
    residual = direction = right
    energy = _dot(residual, residual)
    goal = energy * tolerance**2
    tiny = torch.finfo(right.dtype).tiny
    for _ in range(most):
        active = energy > goal
        if not bool(active.any()):
            break
        product = apply(direction)
        step = active * energy / _dot(direction, product).clamp_min(tiny)
        u = u + step * direction
        residual = residual - step * product
        following = _dot(residual, residual)
        direction = residual + active * following / energy.clamp_min(tiny) * direction
        energy = torch.where(active, following, energy)
    return u


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=(-3, -2, -1), keepdim=True)
