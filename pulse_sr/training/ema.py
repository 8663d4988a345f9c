"""Averages of the generator's weights over the images shown, of one half-life or several.

Karras et al., ICLR 2018, appendix A (the exponential average that is shown and kept), with the
ramp-up of the StyleGAN2-ADA code: early weights are forgotten early. Which half-life is best shows
only at the end of a run, so a state can keep several.
"""

from __future__ import annotations

import torch
import torch.nn as nn

from pulse_sr.training.gan.config import TrainConfig


def bank_name(half_life: float) -> str:
    """What a state calls the average of a half-life, in thousands of images."""
    return f"G_ema_{half_life:g}"


def share_kept(config: TrainConfig, half_life: float, images_shown: int) -> float:
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
