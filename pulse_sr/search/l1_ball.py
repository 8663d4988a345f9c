"""Projection onto l1 balls.

Shapes: S samples.
"""

from __future__ import annotations

import torch


def project_l1(x: torch.Tensor, radius: float) -> torch.Tensor:
    """The nearest point of the l1 ball around zero, sample by sample.

    The projection soft-thresholds: `sign(x) max(|x| - theta, 0)`, where theta makes the absolute
    values sum to the radius (Duchi, Shalev-Shwartz, Singer and Chandra, "Efficient Projections onto
    the l1-Ball for Learning in High Dimensions", ICML 2008, figure 1). A sample inside the ball
    comes back as it is, bit for bit.

    Args:
        x: `[S, ...]`, every sample a vector of its own.
        radius: of the ball, positive.

    Returns:
        A tensor of the shape and type of `x`.
    """
    size = x.flatten(1).abs()
    descending = size.sort(dim=1, descending=True).values
    excess = descending.cumsum(dim=1) - radius  # [S, n]
    count = torch.arange(1, size.shape[1] + 1, device=x.device, dtype=x.dtype)
    # rho in the paper: how many values stay above zero. The first one always does.
    kept = (descending * count > excess).sum(dim=1, keepdim=True)
    theta = excess.gather(1, kept - 1) / kept
    projected = (size - theta).clamp_min(0).copysign(x.flatten(1))
    inside = size.sum(dim=1, keepdim=True) <= radius
    return torch.where(inside, x.flatten(1), projected).view_as(x)
