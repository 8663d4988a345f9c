"""Images as lines of memory, so that one piece of code is fast for both memory orders.

A plain image is three planes of H lines of W numbers; a channels_last image is one plane of H lines
of 3 W numbers. Shapes: N images, C channels, H W size, P planes, L numbers in a line.
"""

from __future__ import annotations

from torch import Tensor

from stylegan_ops.bias_act import is_channels_last


def as_lines(x: Tensor) -> tuple[Tensor, int]:
    """View images as lines.

    Args:
        x: `[N, C, H, W]`; copied only if it is neither plain nor channels_last.

    Returns:
        `[N, P, H, L]`, contiguous, and the numbers that belong to one pixel of a line: C for
        channels_last (P = 1, L = C W), 1 for plain images (P = C, L = W).
    """
    if is_channels_last(x):
        return x.permute(0, 2, 3, 1).flatten(2)[:, None], x.shape[1]
    return x.contiguous(), 1


def from_lines(lines: Tensor, unit: int) -> Tensor:
    """Undo `as_lines`: images `[N, C, H, W]` in the memory order that the lines have."""
    if unit == 1:
        return lines
    return lines.squeeze(1).unflatten(2, (-1, unit)).permute(0, 3, 1, 2)
