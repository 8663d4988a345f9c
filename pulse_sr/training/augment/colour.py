"""Changes of colour: ADA's as 4x4 matrices, and one fast way to apply an affine map of colours.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, appendix
B (color transformations). A matrix acts on homogeneous colours (r, g, b, 1) from the left.

Shapes: N images, C channels, H W size; colours around [-1, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def _identity(like: Tensor) -> Tensor:
    return torch.eye(3, dtype=like.dtype, device=like.device)


def _luma(like: Tensor) -> Tensor:
    """The projection on the axis of greys (1, 1, 1) / sqrt(3), `[3, 3]`."""
    return torch.full((3, 3), 1 / 3, dtype=like.dtype, device=like.device)


def _affine(linear: Tensor, offset: Tensor) -> Tensor:
    """`[N, 3, 3]` and `[N, 3]` as homogeneous matrices `[N, 4, 4]`."""
    last = F.pad(torch.zeros_like(offset), [0, 1], value=1)
    return torch.cat([torch.cat([linear, offset[..., None]], dim=2), last[:, None]], dim=1)


def _linear(linear: Tensor) -> Tensor:
    return _affine(linear, torch.zeros_like(linear[..., 0]))


def brightness(shift: Tensor) -> Tensor:
    """Add `shift` to all colours; `[N]` to `[N, 4, 4]`, like the functions below."""
    n = len(shift)
    return _affine(_identity(shift).expand(n, 3, 3), shift[:, None].expand(n, 3))


def contrast(factor: Tensor) -> Tensor:
    """Multiply all colours by `factor`: mid-grey, which is 0, stays."""
    return _linear(factor[:, None, None] * _identity(factor))


def luma_flip(flip: Tensor) -> Tensor:
    """Reverse lightness where `flip` is 1, keep the hue (a Householder reflection)."""
    return _linear(_identity(flip) - 2 * flip[:, None, None] * _luma(flip))


def hue(angle: Tensor) -> Tensor:
    """Rotate colours about the axis of greys by `angle`, in radians (Rodrigues' formula)."""
    # The cross product with (1, 1, 1) / sqrt(3) from the left.
    axis = angle.new_tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / 3**0.5
    across = _identity(angle) - _luma(angle)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return _linear(_luma(angle) + cosine * across + sine * axis)


def saturation(factor: Tensor) -> Tensor:
    """Multiply the distance of each colour to its grey by `factor`."""
    luma = _luma(factor)
    return _linear(luma + factor[:, None, None] * (_identity(factor) - luma))


def map_colours(x: Tensor, linear: Tensor, offset: Tensor, channels_last: bool) -> Tensor:
    """Apply an affine map to the colours of each image: `linear @ colour + offset`.

    Args:
        x: images `[N, C, H, W]`, plain or channels_last.
        linear: `[N, C, C]`.
        offset: `[N, C]`.
        channels_last: the memory order of the result.

    Returns:
        `[N, C, H, W]`.
    """
    n, c, h, w = x.shape
    colours = x.flatten(2)
    if not channels_last:
        return (torch.bmm(linear, colours) + offset[:, :, None]).view(n, c, h, w)
    pixels = torch.bmm(colours.mT, linear.mT)
    # Added line by line: a broadcast along three numbers at a time is many times slower.
    line = offset[:, None, :].expand(n, w, c).reshape(n, 1, w * c)
    return (pixels.view(n, h, w * c) + line).view(n, h, w, c).permute(0, 3, 1, 2)
