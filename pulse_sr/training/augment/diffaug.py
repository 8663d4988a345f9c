"""DiffAugment: the same small random changes for real and generated images.

Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020.

Each transform is a pure function of the images and of its draws, so that a test can give the draws.
Shapes: N images, C channels, H W size; P planes of H lines of L numbers (`layout.py`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pulse_sr.errors import UsageError
from pulse_sr.training.augment.base import Augmentation, Draws
from pulse_sr.training.augment.colour import map_colours
from pulse_sr.training.augment.layout import as_lines, from_lines
from stylegan_ops.bias_act import is_channels_last

#: The transforms and the names of their draws, one uniform number in [0, 1) an image each.
POLICIES: dict[str, tuple[str, ...]] = {
    "color": ("brightness", "saturation", "contrast"),
    "translation": ("translation_rows", "translation_columns"),
    "cutout": ("cutout_rows", "cutout_columns"),
}


class DiffAugment(Augmentation):
    """Random colour, translation by up to an eighth of the side, and a hole of half the side.

    Args:
        policy: names out of `POLICIES`, each at most once, applied in this order.

    Raises:
        UsageError: for a name that is not in `POLICIES`, or one that comes twice.
    """

    def __init__(self, policy: tuple[str, ...]) -> None:
        if len(set(policy)) < len(policy) or not set(policy) <= set(POLICIES):
            raise UsageError(
                f"DiffAugment can not apply {','.join(policy)}",
                f"give each of {', '.join(POLICIES)} at most once",
            )
        self.policy = policy

    def draw(self, count: int, rng: torch.Generator) -> Draws:
        """Uniform numbers in [0, 1), `[count]` for each name that `POLICIES` gives."""
        names = [name for transform in self.policy for name in POLICIES[transform]]
        return {name: torch.rand(count, generator=rng, device=rng.device) for name in names}

    def _transform(self, x: Tensor, draws: Draws) -> Tensor:
        height, width = x.shape[2:]
        for transform in self.policy:
            u, v, *rest = (draws[name] for name in POLICIES[transform])
            if transform == "color":
                x = color(x, u, v, *rest)
            elif transform == "translation":
                x = translation(x, shift_of(u, height), shift_of(v, width))
            else:
                x = cutout(x, centre_of(u, height), centre_of(v, width))
        return x


def color(x: Tensor, brightness: Tensor, saturation: Tensor, contrast: Tensor) -> Tensor:
    """Change brightness, then saturation, then contrast.

    Brightness adds `u - 0.5`. Saturation scales the distance to the grey value of the pixel by
    `2 u`. Contrast scales the distance to the mean of the image by `u + 0.5`. Saturation leaves
    that mean where it is, so the three together are one affine map of the colours.

    Args:
        x: images `[N, C, H, W]`.
        brightness: u in [0, 1), `[N]`.
        saturation: u in [0, 1), `[N]`.
        contrast: u in [0, 1), `[N]`.
    """
    channels = x.shape[1]
    shift = (brightness - 0.5).to(x.dtype)
    purity = (saturation * 2).to(x.dtype)[:, None, None]
    spread = (contrast + 0.5).to(x.dtype)[:, None]
    identity = torch.eye(channels, dtype=x.dtype, device=x.device)
    linear = spread[..., None] * (purity * identity + (1 - purity) / channels)
    # Not `mean`: going back, it would write its constant gradient into an image of its own.
    mean = x.sum(dim=[1, 2, 3])[:, None] / x.shape[1:].numel()
    offset = torch.addcmul(shift[:, None], 1 - spread, mean)
    return map_colours(x, linear, offset.expand(-1, channels), is_channels_last(x))


def translation_limit(side: int) -> int:
    """The largest shift of `translation`, in pixels: an eighth of the side."""
    return int(side / 8 + 0.5)


def shift_of(u: Tensor, side: int) -> Tensor:
    """The shift from -limit to limit, in pixels, that a uniform number in [0, 1) stands for."""
    limit = translation_limit(side)
    return (u * (2 * limit + 1)).long() - limit


def translation(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read pixel (h + rows, w + columns), zero outside.

    Args:
        x: images `[N, C, H, W]`.
        rows: shift of each image, integers `[N]` of at most `translation_limit(H)`.
        columns: likewise, at most `translation_limit(W)`.
    """
    lines, unit = as_lines(x)
    limits = (translation_limit(x.shape[2]), translation_limit(x.shape[3]) * unit)
    return from_lines(_Shift.apply(lines, rows, columns * unit, limits), unit)


class _Shift(torch.autograd.Function):
    """Lines moved by whole numbers; the adjoint is the shift back.

    The moved lines are windows into a zero-padded copy, each a run of memory: they are fetched with
    one `index_select` out of the view of all windows.
    """

    @staticmethod
    def forward(
        ctx: Any, lines: Tensor, down: Tensor, right: Tensor, limits: tuple[int, int]
    ) -> Tensor:
        ctx.save_for_backward(down, right)
        ctx.limits = limits
        n, planes, height, length = lines.shape
        pad_h, pad_l = limits
        padded = _pad(lines, pad_h, pad_l)
        windows = padded.as_strided([padded.numel() - length + 1, length], [1, 1])
        line = torch.arange(height, device=lines.device) + pad_h
        plane = torch.arange(n * planes, device=lines.device).view(n, planes, 1)
        number = plane * padded.shape[2] + line + down.view(n, 1, 1)
        start = number * padded.shape[3] + pad_l + right.view(n, 1, 1)
        return windows.index_select(0, start.flatten()).view(lines.shape)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        down, right = ctx.saved_tensors
        return _Shift.apply(dy.contiguous(), -down, -right, ctx.limits), None, None, None


def _pad(lines: Tensor, pad_h: int, pad_l: int) -> Tensor:
    """Zeros around the lines; `F.pad` would write the zeros below the lines too."""
    n, planes, height, length = lines.shape
    padded = lines.new_empty(n, planes, height + 2 * pad_h, length + 2 * pad_l)
    middle = padded[:, :, pad_h : pad_h + height]
    padded[:, :, :pad_h] = 0
    padded[:, :, pad_h + height :] = 0
    middle[..., :pad_l] = 0
    middle[..., pad_l + length :] = 0
    middle[..., pad_l : pad_l + length] = lines
    return padded


def cutout_size(side: int) -> int:
    """The side of the hole of `cutout`: half the side of the image."""
    return int(side * 0.5 + 0.5)


def centre_of(u: Tensor, side: int) -> Tensor:
    """The centre of a hole, in pixels, that a uniform number in [0, 1) stands for.

    From 0 to the side for a hole of even size, to the side less one for an odd size.
    """
    return (u * (side + 1 - cutout_size(side) % 2)).long()


def cutout(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Set a square hole of half the side to zero, cut off at the border.

    Args:
        x: images `[N, C, H, W]`.
        rows: centre of each hole, integers `[N]`.
        columns: likewise.
    """
    lines, unit = as_lines(x)
    in_rows = _inside(rows, x.shape[2], 1).to(x.dtype)[:, None, :, None]
    in_columns = _inside(columns, x.shape[3], unit).to(x.dtype)[:, None, None, :]
    keep = 1 - in_rows * in_columns
    return from_lines(lines * keep, unit)


def _inside(centres: Tensor, side: int, unit: int) -> Tensor:
    """Which of the `side` pixels lie in the hole, `[N, side * unit]`, each pixel `unit` times."""
    size = cutout_size(side)
    first = (centres - size // 2)[:, None]
    # The official code clamps the indices of the hole, so that one which lies wholly outside
    # still takes the border.
    low, high = first.clamp(0, side - 1), (first + size - 1).clamp(0, side - 1)
    pixel = torch.arange(side * unit, device=centres.device) // unit
    return (pixel >= low) & (pixel <= high)
