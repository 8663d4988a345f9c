"""The ImageNet networks whose features judge images, or teach a prior: one entry each.

A network that took part in a training never judges its prior: the prior learned to please it.

Shapes: N images, C channels, h w feature map.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_sr.errors import UsageError
from pulse_sr.metrics import efficientnet_lite, squeezenet


@dataclass(frozen=True)
class FeatureNetwork:
    """A frozen network.

    Attributes:
        name: as options and cards name it.
        title: as scores name it.
        features: RGB `[N, 3, H, W]` in [0, 1], and the side that smaller images are enlarged to, to
            four float32 maps `[N, C, h, w]`, the largest first; differentiable in the images.
        pooled: RGB `[N, 3, H, W]` in [0, 1] to one float32 row an image.
        weights: its tensors on a device.
        channels: C of the four maps.
        scales: root mean squares of the four maps, on 500 face crops of 128 px.
    """

    name: str
    title: str
    features: Callable[[Tensor, int], list[Tensor]]
    pooled: Callable[[Tensor], Tensor]
    weights: Callable[[torch.device], dict[str, Tensor]]
    channels: tuple[int, ...]
    scales: tuple[float, ...]


NETWORKS = {
    network.name: network
    for network in (
        FeatureNetwork(
            "squeezenet",
            "SqueezeNet",
            squeezenet.squeezenet_features,
            squeezenet.pooled_features,
            squeezenet.squeezenet_weights,
            squeezenet.CHANNELS,
            (43.3, 249.0, 80.6, 40.3),
        ),
        FeatureNetwork(
            "efficientnet-lite0",
            "EfficientNet-Lite0",
            efficientnet_lite.efficientnet_lite0_features,
            efficientnet_lite.pooled_efficientnet_features,
            efficientnet_lite.efficientnet_lite0_weights,
            efficientnet_lite.CHANNELS,
            (8.31, 7.57, 7.65, 2.63),
        ),
    )
}


def judge_of(trained_with: Collection[str], wanted: str | None = None) -> FeatureNetwork:
    """A network that may judge a prior: `wanted`, or the first that took no part in its training.

    Args:
        trained_with: names of the networks whose features the prior learned from.
        wanted: name of a network; None: any.

    Raises:
        UsageError: when the wanted network took part, or all did.
    """
    independent = [name for name in NETWORKS if name not in trained_with]
    if wanted in trained_with or not independent:
        raise UsageError(
            f"the prior was trained with {', '.join(trained_with)}, which can not judge it",
            f"judge it by {' or '.join(independent)}" if independent else "",
        )
    return NETWORKS[wanted or independent[0]]
