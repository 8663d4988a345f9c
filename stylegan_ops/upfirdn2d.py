"""Zero-insert up-sampling, FIR filtering and decimation in one call.

Shapes: N images, C channels, H W size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_ops import library
from stylegan_ops.bias_act import is_channels_last

Padding = int | Sequence[int]

#: Up to this many taps one pass with the outer product is faster than two passes with a line.
SHORT_FILTER = 8


def setup_filter(
    taps: Sequence[float] | Tensor, gain: float = 1.0, normalize: bool = True
) -> Tensor:
    """Make a 2-D FIR filter from taps, float32 `[kh, kw]`, sum `gain` when normalised.

    One-dimensional taps give their outer product.
    """
    f = torch.as_tensor(taps, dtype=torch.float32)
    if f.ndim == 1:
        f = torch.outer(f, f)
    if normalize:
        f = f / f.sum()
    return f * gain


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    if isinstance(value, int):
        return value, value
    x, y = value
    return int(x), int(y)


def _four(padding: Padding) -> tuple[int, int, int, int]:
    """Padding as (x0, x1, y0, y1)."""
    if isinstance(padding, int):
        return padding, padding, padding, padding
    values = [int(p) for p in padding]
    if len(values) == 2:
        return values[0], values[0], values[1], values[1]
    x0, x1, y0, y1 = values
    return x0, x1, y0, y1


def _zero_insert(x: Tensor, up_x: int, up_y: int) -> Tensor:
    n, c, h, w = x.shape
    x = x.reshape(n, c, h, 1, w, 1)
    x = F.pad(x, [0, up_x - 1, 0, 0, 0, up_y - 1])
    return x.reshape(n, c, h * up_y, w * up_x)


def _depthwise(
    x: Tensor, f: Tensor, stride: tuple[int, int], padding: tuple[int, int] = (0, 0)
) -> Tensor:
    c = x.shape[1]
    weight = f[None, None].expand(c, 1, -1, -1)
    if x.device.type != "cpu" or stride == (1, 1):
        return F.conv2d(x, weight, stride=stride, padding=padding, groups=c)
    # oneDNN's gradient of this in bfloat16 takes 20 to 120 times as long as in float32.
    dtype = torch.promote_types(x.dtype, torch.float32)
    with torch.autocast("cpu", enabled=False):
        out = F.conv2d(x.to(dtype), weight.to(dtype), stride=stride, padding=padding, groups=c)
    return out.to(x.dtype)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: Padding = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    impl: str = "auto",
) -> Tensor:
    """Up-sample by zero insertion, pad or crop, filter, and keep every `down`-th sample.

    Args:
        x: `[N, C, H, W]`, floating dtype.
        f: FIR filter `[kh, kw]`, or `[k]` for a separable one, or None for the identity.
        up: factor, or `[x, y]`.
        down: factor, or `[x, y]`.
        padding: one number, `[x, y]` or `[x0, x1, y0, y1]` in up-sampled pixels; negative crops.
        flip_filter: False convolves, True correlates.
        gain: factor of the whole operation.
        impl: `auto`, `cuda`, `cpp` or `ref` (see `library.use_compiled`). The compiled op has no
            gradient for the filter: where one is needed, `ref` takes its place.

    Returns:
        `[N, C, H', W']` with `H' = (H * up + y0 + y1 - kh) // down + 1`, in the memory order of
        `x` (plain or channels_last) where the compiled op is used.

    Example:
        >>> upfirdn2d(torch.ones(1, 1, 2, 2), torch.ones(2, 2), up=2, padding=[1, 0]).shape
        torch.Size([1, 1, 4, 4])
    """
    up_x, up_y = _pair(up)
    down_x, down_y = _pair(down)
    x0, x1, y0, y1 = _four(padding)
    fixed = f is None or (f.dtype == torch.float32 and not f.requires_grad)
    if fixed and library.use_compiled("upfirdn2d", x, impl):
        taps = torch.ones(1, device=x.device) if f is None else f.to(x.device)
        geometry = up_x, up_y, down_x, down_y, x0, x1, y0, y1
        out: Tensor = torch.ops.stylegan_ops.upfirdn2d(x, taps, *geometry, flip_filter, gain)
        return out
    if (up_x, up_y) != (1, 1):
        x = _zero_insert(x, up_x, up_y)
    if f is None:
        f = torch.ones(1, 1, device=x.device)
    f = f.to(device=x.device, dtype=x.dtype)
    if f.ndim == 1 and len(f) < SHORT_FILTER:
        f = torch.outer(f, f)
    # Padding inside the convolution spares a copy of the input.
    symmetric = x0 == x1 >= 0 and y0 == y1 >= 0
    pad_y, pad_x = (y0, x0) if symmetric else (0, 0)
    if not symmetric:
        x = F.pad(x, [x0, x1, y0, y1])
    if not flip_filter:
        f = f.flip(list(range(f.ndim)))
    if f.ndim == 2:
        return _depthwise(x, f * gain, (down_y, down_x), (pad_y, pad_x))
    f = f * gain**0.5
    x = _depthwise(x, f[None, :], (1, down_x), (0, pad_x))
    return _depthwise(x, f[:, None], (down_y, 1), (pad_y, 0))


def upsample_matrix(side: int, f: Tensor) -> Tensor:
    """The rows of `upsample2d` by two along one axis: `upsample2d(x, f) = U @ x @ U.T`.

    Two small matrix products replace zero insertion and a convolution; for images of few channels
    that measures many times faster.

    Args:
        side: r, the side of the input.
        f: separable FIR filter `[k, k]`.

    Returns:
        U, float32 `[2 r, r]`.
    """
    taps = f.sum(dim=1)
    identity = torch.eye(side, device=f.device)[:, None, :, None]  # columns of one pixel each
    line = [0, 0, (len(taps) + 1) // 2, (len(taps) - 2) // 2]
    columns = upfirdn2d(identity, taps[:, None], up=[1, 2], padding=line, gain=2.0)
    return columns[:, 0, :, 0].t().contiguous()


def upsample2d(x: Tensor, f: Tensor, up: int = 2) -> Tensor:
    """Up-sample `[N, C, H, W]` by `up`, keeping the mean and the alignment of the picture."""
    size = f.shape[-1]
    padding = [(size + up - 1) // 2, (size - up) // 2] * 2
    return upfirdn2d(x, f, up=up, padding=padding, gain=up**2)


# The rest gives shapes and gradients to the compiled operator.


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, *ctx.geometry = inputs
    ctx.in_shape, ctx.out_shape = x.shape[2:], output.shape[2:]
    ctx.save_for_backward(f)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    """The adjoint is the same operation with up and down exchanged and the filter flipped."""
    (f,) = ctx.saved_tensors
    up_x, up_y, down_x, down_y, x0, _, y0, _, flip, gain = ctx.geometry
    (in_h, in_w), (out_h, out_w) = ctx.in_shape, ctx.out_shape
    before_x, before_y = f.shape[-1] - x0 - 1, f.shape[0] - y0 - 1
    padding = (
        before_x,
        in_w * up_x - out_w * down_x + x0 - up_x + 1,
        before_y,
        in_h * up_y - out_h * down_y + y0 - up_y + 1,
    )
    geometry = (down_x, down_y, up_x, up_y, *padding, not flip, gain)
    return torch.ops.stylegan_ops.upfirdn2d(dy, f, *geometry), *[None] * 11


def _shape(x: Tensor, f: Tensor, *geometry: Any) -> Tensor:
    up_x, up_y, down_x, down_y, x0, x1, y0, y1, _, _ = geometry
    n, c, h, w = x.shape
    h = (h * up_y + y0 + y1 - f.shape[0]) // down_y + 1
    w = (w * up_x + x0 + x1 - f.shape[-1]) // down_x + 1
    order = torch.channels_last if is_channels_last(x) else torch.contiguous_format
    return torch.empty(n, c, h, w, dtype=x.dtype, device=x.device, memory_format=order)


@library.on_load
def _register() -> None:
    torch.library.register_fake("stylegan_ops::upfirdn2d", _shape)
    torch.library.register_autograd("stylegan_ops::upfirdn2d", _backward, setup_context=_save)
