"""Bias, activation, gain and clamp in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F

SQRT2 = 2.0**0.5


class Activation(NamedTuple):
    """An activation with its default gain, which keeps the variance of a normal input."""

    function: Callable[[torch.Tensor, float], torch.Tensor]
    gain: float
    alpha: float = 0.0


ACTIVATIONS = {
    "linear": Activation(lambda x, alpha: x, 1.0),
    "relu": Activation(lambda x, alpha: F.relu(x), SQRT2),
    "lrelu": Activation(lambda x, alpha: F.leaky_relu(x, alpha), SQRT2, alpha=0.2),
    "tanh": Activation(lambda x, alpha: torch.tanh(x), 1.0),
    "sigmoid": Activation(lambda x, alpha: torch.sigmoid(x), 1.0),
    "elu": Activation(lambda x, alpha: F.elu(x), 1.0),
    "selu": Activation(lambda x, alpha: F.selu(x), 1.0),
    "softplus": Activation(lambda x, alpha: F.softplus(x), 1.0),
    "swish": Activation(lambda x, alpha: torch.sigmoid(x) * x, SQRT2),
}


def bias_act(
    x: torch.Tensor,
    b: torch.Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> torch.Tensor:
    """Compute `clamp(act(x + b) * gain)`.

    Args:
        x: any shape and floating dtype.
        b: bias of shape `[x.shape[dim]]`, or None.
        dim: the dimension of `x` that the bias belongs to.
        act: one of `ACTIVATIONS`.
        alpha: slope of the negative side, used by `lrelu` only (default 0.2).
        gain: factor after the activation; default sqrt(2) for relu, lrelu and swish, else 1.
        clamp: limit of the absolute value after the gain, or None.

    Returns:
        A tensor of the shape and dtype of `x`.

    Raises:
        ValueError: for an unknown activation.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"act is {act!r}, expected one of {', '.join(ACTIVATIONS)}")
    activation = ACTIVATIONS[act]
    if b is not None:
        shape = [1] * x.ndim
        shape[dim] = -1
        x = x + b.to(x.dtype).view(shape)
    x = activation.function(x, activation.alpha if alpha is None else alpha)
    gain = activation.gain if gain is None else gain
    if gain != 1:
        x = x * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return x
