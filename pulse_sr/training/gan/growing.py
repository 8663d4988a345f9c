"""Growing a discriminator: new stages that begin by seeing what the old network saw.

The old discriminator reads its smaller images through one 1x1 convolution (`fromrgb`). The stages
that a larger one has in front of it are fitted to give the same features, before any adversarial
training: the old stages then go on with inputs that they know. Progressive growing (Karras et al.,
ICLR 2018, section 2) fades a new stage in for the same reason.

Shapes: N images, R new and r old resolution, C channels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.training.gan.discriminator import Conv, Discriminator

STEPS, RATE = 300, 0.01


def fit_new_stages(
    discriminator: Discriminator,
    source: dict[str, Tensor],
    batch: Callable[[int], Tensor],
    steps: int = STEPS,
) -> float | None:
    """Fit the stages above the source's resolution to the source's view of the same images.

    Args:
        discriminator: the larger network, with the source's weights where names agree.
        source: tensors of the smaller discriminator by name.
        batch: images `[N, 3, R, R]` in [-1, 1] for step i.
        steps: of Adam, at a rate of 0.01 that falls to zero.

    Returns:
        what of the features' variance is not explained at the end; None when the source is not
        smaller, or wider, and nothing was done.
    """
    side = _resolution(source)
    if side is None or side >= discriminator.sides[0]:
        return None
    stages = [getattr(discriminator, f"b{s}") for s in discriminator.sides if s > side]
    old = _old_view(source, side)
    width = len(old.weight)
    if width > stages[-1].skip.weight.shape[0]:
        return None
    parameters = [parameter for stage in stages for parameter in stage.parameters()]
    adam = torch.optim.Adam(parameters, lr=RATE)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(adam, steps)
    unexplained = 1.0
    for i in range(steps):
        images = batch(i)
        with torch.no_grad():
            goal = old(F.interpolate(images, size=(side, side), mode="area"))
        features = images
        for stage in stages:
            features = stage(features)
        loss = F.mse_loss(features[:, :width], goal)
        unexplained = loss.item() / goal.var().item()
        adam.zero_grad(set_to_none=True)
        loss.backward()
        adam.step()
        schedule.step()
    return unexplained


def _resolution(source: dict[str, Tensor]) -> int | None:
    """Resolution of the discriminator that some tensors belong to."""
    tops = [name for name in source if name.endswith(".fromrgb.weight")]
    return int(tops[0].removeprefix("b").split(".")[0]) if len(tops) == 1 else None


def _old_view(source: dict[str, Tensor], side: int) -> Conv:
    """The layer by which the old discriminator read its images."""
    prefix = f"b{side}.fromrgb."
    tensors = {k.removeprefix(prefix): v for k, v in source.items() if k.startswith(prefix)}
    layer = Conv(3, len(tensors["bias"]), 1)
    layer.load_state_dict(tensors, strict=False)
    return layer.requires_grad_(False).to(memory_format=torch.channels_last)
