"""Everything between two modulated convolutions, in one pass over memory.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, figure 2c, moves
modulation and demodulation out of the convolution: what lies between two convolutions is then the
resampling filter, demodulation, noise, bias, leaky ReLU, gain, clamp and the next layer's style.

Shapes: N images, C channels, H W size.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_ops import library
from stylegan_ops.bias_act import SQRT2, is_channels_last
from stylegan_ops.upfirdn2d import upfirdn2d

TAPS = 4


def style_epilogue(
    x: Tensor,
    d: Tensor,
    b: Tensor,
    noise: Tensor | None = None,
    strength: Tensor | None = None,
    style: Tensor | None = None,
    taps: Tensor | None = None,
    alpha: float = 0.2,
    gain: float = SQRT2,
    clamp: float | None = None,
    keep: bool = True,
    impl: str = "auto",
) -> tuple[Tensor | None, Tensor | None]:
    """Compute `y = clamp(gain * leaky_relu(d * fir(x) + strength * noise + b))` and `style * y`.

    Args:
        x: output of a convolution, `[N, C, H, W]`; with `taps` `[N, C, H + 1, W + 1]`.
        d: demodulation factors `[N, C]`.
        b: bias `[C]`.
        noise: `[N or 1, 1, H, W]`, or None.
        strength: factor of the noise, a tensor of one number, or None for 1.
        style: factors that the next convolution asks of its input, `[N, C]`, or None.
        taps: four taps, float32 `[4]`, of a FIR filter along both axes, applied first (padding 1,
            a true convolution): the second half of an up-sampling convolution. None for no filter.
        alpha: slope of the negative side.
        gain: positive factor after the leaky ReLU.
        clamp: limit of the absolute value of y, 0 or more, or None.
        keep: whether y itself is wanted.
        impl: `auto`, `cuda`, `cpp` or `ref` (see `library.use_compiled`).

    Returns:
        `(y, style * y)`, `[N, C, H, W]` in the dtype of `x`; None in place of what was not asked
        for. Small factors and arithmetic are float32 (float64 for float64), whatever `x` is.

    Raises:
        ValueError: neither of the two is asked for, or taps of another length.
    """
    if style is None and not keep:
        raise ValueError("keep is False and there is no style: nothing to compute")
    if taps is not None and taps.shape != (TAPS,):
        raise ValueError(f"taps have the shape {list(taps.shape)}, expected [{TAPS}]")
    frozen = taps is None or not taps.requires_grad
    if frozen and library.use_compiled("style_epilogue", x, impl):
        taps = None if taps is None else taps.flip(0)  # the kernels correlate
        small = [_small(each, x) for each in (d, b, noise, strength, style)]
        y, ys = torch.ops.stylegan_ops.style_epilogue(x, *small, taps, alpha, gain, clamp, keep)
        return y if keep else None, None if style is None else ys
    return _reference(x, d, b, noise, strength, style, taps, alpha, gain, clamp, keep)


def _small(operand: Tensor | None, x: Tensor) -> Tensor | None:
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    return None if operand is None else operand.to(wide)


def _reference(
    x: Tensor,
    d: Tensor,
    b: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    style: Tensor | None,
    taps: Tensor | None,
    alpha: float,
    gain: float,
    clamp: float | None,
    keep: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """The definition, arranged for PyTorch.

    The gain is positive, so it commutes with the leaky ReLU and is folded into the small factors:
    that saves one pass over memory, and in-place steps save two more.
    """
    if taps is not None:
        x = upfirdn2d(x, torch.outer(taps, taps), padding=1, impl="ref")
    d = (d * gain)[:, :, None, None]
    b = (b * gain)[None, :, None, None]
    if noise is not None and strength is not None:
        noise = noise * strength
    # Noise and bias added up first would lose the memory format of x where N is 1: what follows
    # then mixes two formats, ten times as slow.
    y = torch.addcmul(b, x, d) if noise is None else torch.addcmul(noise * gain, x, d).add_(b)
    y = F.leaky_relu_(y, alpha)
    y = y if clamp is None else y.clamp(-clamp, clamp)
    y = y.to(x.dtype)
    ys = None if style is None else (y * style[:, :, None, None]).to(x.dtype)
    return y if keep else None, ys


# The rest gives shapes and gradients to the compiled operators.


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.alpha, ctx.gain, ctx.clamp, ctx.keep = inputs
    ctx.set_materialize_grads(False)
    # The input is kept and not the output: it needs no inversion of the leaky ReLU, which would
    # lose bits in bfloat16 and fail where the clamp or a style of zero has hidden the value.
    ctx.save_for_backward(*tensors)


def _backward(ctx: Any, dy: Tensor | None, dys: Tensor | None) -> tuple[Tensor | None, ...]:
    noise, strength, style, taps = ctx.saved_tensors[3:]
    dy = dy if ctx.keep else None
    dys = None if style is None else dys
    if dy is None and dys is None:
        return (None,) * 11
    wants_noise = ctx.needs_input_grad[3] or ctx.needs_input_grad[4]
    dc, dd, db, ds, du = torch.ops.stylegan_ops.style_epilogue_backward(
        dy, dys, *ctx.saved_tensors, ctx.alpha, ctx.gain, ctx.clamp, wants_noise
    )
    if taps is not None:
        dc = torch.ops.stylegan_ops.upfirdn2d(
            dc, taps, 1, 1, 1, 1, 2, 2, 2, 2, False, 1.0
        )  # the adjoint of a correlation of padding 1 with one row and column less
    dnoise = dstrength = None
    if noise is not None and wants_noise:
        du = du if noise.shape[0] == du.shape[0] else du.sum(0, keepdim=True)
        dnoise = du if strength is None else du * strength
        dstrength = None if strength is None else (du * noise).sum()
    ds = None if dys is None else ds
    return dc, dd, db.sum(0), dnoise, dstrength, ds, None, None, None, None, None


def _formulas(
    dy: Tensor | None,
    dys: Tensor | None,
    x: Tensor,
    d: Tensor,
    b: Tensor,
    noise: Tensor | None,
    strength: Tensor | None,
    style: Tensor | None,
    taps: Tensor | None,
    alpha: float,
    gain: float,
    clamp: float | None,
    want_du: bool,
) -> tuple[Tensor, ...]:
    """What the operator `style_epilogue_backward` computes, in differentiable PyTorch."""
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    c = x.to(wide)
    if taps is not None:
        square = torch.outer(taps, taps)
        c = upfirdn2d(c, square, padding=1, flip_filter=True, impl="ref")
    column = (slice(None), slice(None), None, None)
    u = d[column] * c + b[None, :, None, None]
    if noise is not None:
        u = u + (noise if strength is None else noise * strength)
    value = F.leaky_relu(u, alpha) * gain
    slope = torch.where(u > 0, torch.ones_like(u), alpha) * gain
    if clamp is not None:
        slope = slope * (value.abs() <= clamp)
        value = value.clamp(-clamp, clamp)
    g = torch.zeros_like(u) if dy is None else dy.to(wide)
    ds = torch.zeros(0, dtype=wide, device=x.device)
    if dys is not None:
        assert style is not None  # the operator checks it
        g = g + style[column] * dys
        ds = (dys * value).sum([2, 3])
    du = g * slope
    pixels = du.sum(1, keepdim=True) if want_du else torch.zeros(0, dtype=wide, device=x.device)
    return (du * d[column]).to(x.dtype), (du * c).sum([2, 3]), du.sum([2, 3]), ds, pixels


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.alpha, ctx.gain, ctx.clamp, ctx.want_du = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors)


def _second_order(ctx: Any, *cotangents: Tensor | None) -> tuple[Tensor | None, ...]:
    """Differentiates the formulas: only path-length regularisation comes here, every few steps."""
    options: tuple[Any, ...] = ctx.alpha, ctx.gain, ctx.clamp, ctx.want_du
    needed = ctx.needs_input_grad[:9]
    with torch.enable_grad():
        # A view joins the graph of the saved tensor, so that higher orders stay right.
        views = [None if t is None else t.view_as(t) for t in ctx.saved_tensors]
        inputs: list[Any] = [
            view if view is None or view.requires_grad or not wanted else view.requires_grad_()
            for view, wanted in zip(views, needed, strict=True)
        ]
        outputs = _formulas(*inputs, *options)
        pairs = [
            (output, cotangent)
            for output, cotangent in zip(outputs, cotangents, strict=True)
            if cotangent is not None and output.requires_grad and output.numel() > 0
        ]
        wanted = [i for i, view in enumerate(inputs) if view is not None and needed[i]]
        found = torch.autograd.grad(
            [output for output, _ in pairs],
            [inputs[i] for i in wanted],
            [cotangent for _, cotangent in pairs],
            create_graph=True,
            allow_unused=True,
        )
    gradients: list[Tensor | None] = [None] * 13
    for i, gradient in zip(wanted, found, strict=True):
        gradients[i] = gradient
    return tuple(gradients)


def _order(x: Tensor, taps: Tensor | None) -> torch.memory_format:
    if taps is not None or is_channels_last(x):
        return torch.channels_last
    return torch.contiguous_format


def _shapes(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    style, taps, keep = rest[4], rest[5], rest[9]
    n, c, h, w = x.shape
    size = (n, c, h, w) if taps is None else (n, c, h - 1, w - 1)

    def output(wanted: bool) -> Tensor:
        if not wanted:
            return x.new_empty([0])
        order = _order(x, taps)
        return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=order)

    return output(keep), output(style is not None)


def _shapes_backward(dy: Any, dys: Any, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    taps, want_du = rest[5], rest[9]
    wide = torch.float64 if x.dtype == torch.float64 else torch.float32
    n, c, h, w = dy.shape if dy is not None else dys.shape
    order = _order(x, taps)
    dc = torch.empty(n, c, h, w, dtype=x.dtype, device=x.device, memory_format=order)

    def sums(wanted: bool, *size: int) -> Tensor:
        return x.new_empty(size if wanted else [0], dtype=wide)

    return (
        dc,
        sums(True, n, c),
        sums(True, n, c),
        sums(dys is not None, n, c),
        sums(want_du, n, 1, h, w),
    )


@library.on_load
def _register() -> None:
    lib = torch.library
    lib.register_fake("stylegan_ops::style_epilogue", _shapes)
    lib.register_fake("stylegan_ops::style_epilogue_backward", _shapes_backward)
    lib.register_autograd("stylegan_ops::style_epilogue", _backward, setup_context=_save)
    lib.register_autograd(
        "stylegan_ops::style_epilogue_backward", _second_order, setup_context=_save_backward
    )
