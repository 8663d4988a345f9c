"""Products of matrices whose bits do not depend on a sample's place in its batch.

A BLAS adds up in an order that it chooses by the shape of the whole product, and may treat the last
rows in another way, or those that do not begin at a cache line: rows of one product round
differently by where they stand, on one CPU more than on another. Here every sample is a product of
its own, of the same shape as the others, in memory that begins at a multiple of 64 bytes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

#: Numbers of 4 bytes in 64 bytes; PyTorch's memory begins at such a multiple on a CPU.
LINE = 16


def whole_lines(size: int) -> int:
    """The next multiple of a line."""
    return -(-size // LINE) * LINE


def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """`a @ b`, each sample's product for itself; differentiable to every order.

    Args:
        a: `[..., M, K]`, or `[M, K]` for all samples.
        b: `[..., K, O]`, or `[K, O]` for all samples. Other sizes in front are equal.

    Returns:
        `[..., M, O]`; of two matrices their plain product.
    """
    if a.ndim == b.ndim == 2:
        return a @ b
    shape = (a if a.ndim > b.ndim else b).shape[:-2]
    rows, columns = a.shape[-2], b.shape[-1]
    alike = a.is_cuda or _lie_alike(a, b)
    a, b = (each.expand(*shape, *each.shape[-2:]).flatten(0, -3) for each in (a, b))
    if alike:
        return torch.bmm(a, b).unflatten(0, shape)
    return torch.bmm(_padded(a), _padded(b))[:, :rows, :columns].unflatten(0, shape)


def rows_times(x: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    """`x @ matrix` for `x` `[N, K]`, a sample a row, and `matrix` `[K, O]`: `[N, O]`."""
    return product(x[:, None], matrix)[:, 0]


def sandwich(left: torch.Tensor, x: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """`left @ x @ right` for every plane of `x` `[..., H, W]`: `[..., h, w]`."""
    return product(product(left, x), right)


def _lie_alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether all samples begin at the same place in a cache line, in both and in the product.

    What is for all samples is in one place.
    """
    own = [each.shape[-2] * each.shape[-1] for each in (a, b) if each.ndim > 2]
    return not any(size % LINE for size in (*own, a.shape[-2] * b.shape[-1]))


def _padded(x: torch.Tensor) -> torch.Tensor:
    """Zeros up to whole lines in both directions."""
    rows, columns = x.shape[1:]
    return F.pad(x, (0, whole_lines(columns) - columns, 0, whole_lines(rows) - rows))
