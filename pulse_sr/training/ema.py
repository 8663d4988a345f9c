"""Averages of a network's weights over the images shown, of one half-life or several.

Karras et al., ICLR 2018, appendix A (the exponential average that is shown and kept), with the
ramp-up of the StyleGAN2-ADA code: early weights are forgotten early. Which half-life is best shows
only at the end of a run, so a state can keep several.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable

import torch
import torch.nn as nn

from pulse_sr.training.task import TaskConfig


def average_name(network: str, half_life: float | None = None) -> str:
    """What a state calls an average.

    Args:
        network: whose weights are averaged, as a state calls it.
        half_life: in thousands of images; None: the first average.
    """
    return f"{network}_ema" if half_life is None else f"{network}_ema_{half_life:g}"


class Averages:
    """The averages of one network, all in step with it.

    Attributes:
        first: the one that users get.
        bank: those of other half-lives, by these in thousands of images.
    """

    def __init__(self, name: str, network: nn.Module, config: TaskConfig) -> None:
        """All begin with the weights as they are.

        Args:
            name: what a state calls the network.
            network: whose weights are averaged.
            config: the half-lives, and the batch.
        """
        self._name, self._network, self._config = name, network, config
        self.first = copy.deepcopy(network).eval().requires_grad_(False)
        self.bank = {half_life: copy.deepcopy(self.first) for half_life in config.ema_bank}

    def modules(self) -> dict[str, nn.Module]:
        """The averages by the names that a state gives them."""
        bank = {average_name(self._name, half_life): each for half_life, each in self.bank.items()}
        return {average_name(self._name): self.first} | bank

    def update(self, images_shown: int) -> None:
        """Follow one step; `images_shown` before it."""
        for half_life, average in [(self._config.ema_kimg, self.first), *self.bank.items()]:
            follow(average, self._network, share_kept(self._config, half_life, images_shown))

    def restart(self, names: Iterable[str]) -> None:
        """Let averages, by their names in a state, begin with the first one."""
        found = self.modules()
        for name in names:
            found[name].load_state_dict(self.first.state_dict())


def share_kept(config: TaskConfig, half_life: float, images_shown: int) -> float:
    """How much of an average stays in one step.

    Args:
        config: of the run; its first average is at its full half-life after `ema_kimg / ema_rampup`
            thousand images, and every other one then too.
        half_life: of the average, in thousands of images.
        images_shown: before the step.
    """
    images = half_life * 1000
    if config.ema_rampup is not None:
        shown = images_shown * config.ema_rampup
        images = min(images, shown * (half_life / config.ema_kimg))
    return float(0.5 ** (config.batch / max(images, 1e-8)))


@torch.no_grad()
def follow(average: nn.Module, current: nn.Module, kept: float) -> None:
    """Move the weights of an average towards the current ones; buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(current.parameters()), 1 - kept)
    for before, buffer in zip(average.buffers(), current.buffers(), strict=True):
        before.copy_(buffer)
