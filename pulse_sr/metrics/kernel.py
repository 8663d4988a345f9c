"""The kernel distance of two sets of features: unbiased squared maximum mean discrepancy.

Binkowski et al., "Demystifying MMD GANs", ICLR 2018, with its kernel `(x.y / F + 1)^3`, over the
whole sets instead of random subsets.

Shapes: N M images, F features.
"""

from __future__ import annotations

from torch import Tensor

_BLOCK = 1024


def kernel_distance(a: Tensor, b: Tensor, within_b: float | None = None) -> float:
    """Unbiased squared MMD in float64; below zero by chance where the distributions are equal.

    Args:
        a: `[N, F]`, N at least 2.
        b: `[M, F]`, M at least 2.
        within_b: `mean_kernel_within(b)`, where it is known already.

    Raises:
        ValueError: for fewer than two rows.
    """
    if within_b is None:
        within_b = mean_kernel_within(b)
    across = _kernel_sum(a, b) / (len(a) * len(b))
    return mean_kernel_within(a) + within_b - 2 * across


def mean_kernel_within(features: Tensor) -> float:
    """Mean of the kernel over the pairs of different rows of `[N, F]`.

    Raises:
        ValueError: for fewer than two rows.
    """
    if features.dim() != 2 or len(features) < 2:
        raise ValueError(f"expected two or more rows of features, got {tuple(features.shape)}")
    count, width = features.shape
    with_itself = (features.detach().cpu().double().square().sum(dim=1) / width + 1).pow(3).sum()
    return (_kernel_sum(features, features) - float(with_itself)) / (count * (count - 1))


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    """Sum over all pairs, one block of at most 1024 x 1024 pairs in memory at a time."""
    width = a.shape[1]
    total = 0.0
    for rows in a.detach().cpu().split(_BLOCK):
        for columns in b.detach().cpu().split(_BLOCK):
            kernel = (rows.double() @ columns.double().mT / width + 1).pow(3)
            total += float(kernel.sum())
    return total
