"""By what the reconstructions of FastGAN's discriminator are judged.

Liu et al. (ICLR 2021) use LPIPS on VGG features, whose weights can not be had offline. The content
loss here takes the one ImageNet network that comes with the package.

Shapes: N images, s side; images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.metrics.squeezenet import feature_distance

#: Smaller images are enlarged to this side before the features are taken.
LEAST_SIDE = 64
#: How often `multiscale_l1` halves the images.
SCALES = 4


def squeezenet_content(a: Tensor, b: Tensor) -> Tensor:
    """Distance of SqueezeNet features (`feature_distance`), `[N]`, from 0 to 2.

    Images are taken at their size, from `LEAST_SIDE` on: enlarged to the network's own 224 px they
    would cost up to a quarter of a training step.
    """
    return feature_distance(a * 0.5 + 0.5, b * 0.5 + 0.5, LEAST_SIDE)


def multiscale_l1(a: Tensor, b: Tensor) -> Tensor:
    """Mean absolute difference at full size and at a half, a quarter and an eighth, `[N]`.

    Edges that are shifted by a pixel count less at the smaller sizes: colours and layout come
    before details.
    """
    difference = a - b
    means = []
    for _ in range(SCALES):
        means.append(difference.abs().mean(dim=[1, 2, 3]))
        difference = F.avg_pool2d(difference, 2)
    return torch.stack(means).mean(dim=0)


RECONSTRUCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "squeezenet": squeezenet_content,
    "l1": multiscale_l1,
}
