"""Bias, activation, gain and clamp in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_ops import library

SQRT2 = 2.0**0.5


class Activation(NamedTuple):
    """An activation with its default gain, which keeps the variance of a normal input.

    `kernel` is its number in `psr::Act`; linear and ReLU are leaky ReLUs of slope 1 and 0 there.
    """

    function: Callable[[Tensor, float], Tensor]
    gain: float
    kernel: int
    alpha: float = 0.0


LEAKY = 0

ACTIVATIONS = {
    "linear": Activation(lambda x, alpha: x, 1.0, LEAKY, alpha=1.0),
    "relu": Activation(lambda x, alpha: F.relu(x), SQRT2, LEAKY),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), SQRT2, LEAKY, alpha=0.2),
    "tanh": Activation(lambda x, alpha: torch.tanh(x), 1.0, 1),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x), 1.0, 2),
    "elu": Activation(lambda x, alpha: F.elu(x), 1.0, 3),
    "selu": Activation(lambda x, alpha: F.selu(x), 1.0, 4),
    "softplus": Activation(lambda x, alpha: F.softplus(x), 1.0, 5),
    "swish": Activation(lambda x, alpha: torch.sigmoid(x) * x, SQRT2, 6),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """Compute `clamp(act(x + b) * gain)`.

    Args:
        x: any shape and floating dtype.
        b: bias of shape `[x.shape[dim]]`, or None.
        dim: the dimension of `x` that the bias belongs to.
        act: one of `ACTIVATIONS`.
        alpha: slope of the negative side, used by `lrelu` only (default 0.2).
        gain: factor after the activation; default sqrt(2) for relu, lrelu and swish, else 1.
        clamp: limit of the absolute value after the gain, 0 or more, or None.
        impl: `auto`, `cuda`, `cpp` or `ref` (see `library.use_compiled`).

    Returns:
        A tensor of the shape and dtype of `x`. The compiled op can be differentiated twice.

    Raises:
        ValueError: for an unknown activation, or a clamp below 0.

    Example:
        >>> bias_act(torch.tensor([[-1.0, 2.0]]), act="lrelu", gain=1.0)
        tensor([[-0.2000,  2.0000]])
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act is {act!r}, expected one of {', '.join(ACTIVATIONS)}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"clamp is {clamp}, expected 0 or more")
    activation = ACTIVATIONS[act]
    gain = activation.gain if gain is None else gain
    slope = activation.alpha if alpha is None or act != "lrelu" else alpha
    if library.use_compiled("bias_act", x, impl):
        b = None if b is None else b.to(x.dtype)
        options = activation.kernel, slope, gain, clamp
        out: Tensor = torch.ops.stylegan_ops.bias_act(x, b, dim % x.ndim, *options)
        return out
    if b is not None:
        shape = [1] * x.ndim
        shape[dim] = -1
        x = x + b.to(x.dtype).view(shape)
    x = activation.function(x, slope)
    if gain != 1:
        x = x * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return x


# The rest gives shapes and gradients to the compiled operators. `options` are the kernel's number
# of the activation, alpha, gain and clamp.


def _sum_to_bias(gradient: Tensor, dim: int) -> Tensor:
    return gradient.sum([i for i in range(gradient.ndim) if i != dim])


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, b, ctx.dim, *options = inputs
    kernel, alpha, gain, clamp = ctx.options = options
    # The sign of the output tells the slope, and the next layer keeps the output anyway.
    ctx.from_output = kernel == LEAKY and clamp is None and alpha >= 0 and gain > 0
    ctx.has_bias = b is not None
    ctx.save_for_backward(output if ctx.from_output else x, None if ctx.from_output else b)


def _backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
    x, b = ctx.saved_tensors
    dx = torch.ops.stylegan_ops.bias_act_backward(dy, x, b, ctx.dim, *ctx.options)
    db = _sum_to_bias(dx, ctx.dim) if ctx.has_bias and ctx.needs_input_grad[1] else None
    return dx, db, None, None, None, None, None


def _save_backward(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    dy, x, b, ctx.dim, *ctx.options = inputs
    ctx.save_for_backward(dy, x, b)


def _second_order(ctx: Any, ddx: Tensor) -> tuple[Tensor | None, ...]:
    dy, x, b = ctx.saved_tensors
    ops, options = torch.ops.stylegan_ops, (ctx.dim, *ctx.options)
    ddy = ops.bias_act_backward(ddx, x, b, *options) if ctx.needs_input_grad[0] else None
    dx = db = None
    if ctx.options[0] != LEAKY and (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
        dx = ops.bias_act_curvature(ddx, dy, x, b, *options)
        db = _sum_to_bias(dx, ctx.dim) if b is not None else None
    return ddy, dx, db, None, None, None, None, None


@library.on_load
def _register() -> None:
    lib = torch.library
    lib.register_fake("stylegan_ops::bias_act", lambda x, *rest: _like(x, rest[1]))
    lib.register_fake("stylegan_ops::bias_act_backward", lambda dy, x, *rest: _like(x, rest[1]))
    lib.register_fake(
        "stylegan_ops::bias_act_curvature", lambda ddx, dy, x, *rest: _like(x, rest[1])
    )
    lib.register_autograd("stylegan_ops::bias_act", _backward, setup_context=_save)
    lib.register_autograd(
        "stylegan_ops::bias_act_backward", _second_order, setup_context=_save_backward
    )


def _like(x: Tensor, dim: int) -> Tensor:
    """An output of the compiled ops: channels_last where `x` is, else plain."""
    if dim == 1 and is_channels_last(x):
        return torch.empty_like(x, memory_format=torch.channels_last)
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def is_channels_last(x: Tensor) -> bool:
    """Whether the compiled ops treat `x` as `[N, H, W, C]` in memory."""
    return x.ndim == 4 and x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)
