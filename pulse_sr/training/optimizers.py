"""Optimizers by the names that a configuration has for them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

OPTIMIZERS = ("adam", "adabelief")


def make_optimizer(
    name: str,
    parameters: Iterable[nn.Parameter],
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float | None = None,
) -> torch.optim.Optimizer:
    """An optimizer without weight decay.

    Args:
        name: "adam" (Kingma and Ba, ICLR 2015), or "adabelief" (Zhuang et al., NeurIPS 2020) in
            the form of its algorithm 2, without rectification.
        parameters: what it updates.
        lr: learning rate.
        betas: decays of the first and the second moment.
        eps: added to the denominator; None: 1e-8 for Adam, 1e-12 for AdaBelief, its authors' value
            for small GANs (with 1e-16, which they take for large ones, they rectify).

    Raises:
        ValueError: for another name; for AdaBelief without a first decay, since it divides by how
            far gradients are from their mean, which is then nothing.
    """
    if name == "adam":
        return torch.optim.Adam(parameters, lr, betas, 1e-8 if eps is None else eps, fused=True)
    if name == "adabelief":
        if betas[0] == 0:
            raise ValueError("adabelief with a first decay of 0, expected one above")
        from pytorch_optimizer import AdaBelief  # more than a second that Adam need not wait for

        return AdaBelief(
            list(parameters), lr, betas, eps=1e-12 if eps is None else eps, rectify=False
        )
    raise ValueError(f"optimizer is {name!r}, expected one of {', '.join(OPTIMIZERS)}")
