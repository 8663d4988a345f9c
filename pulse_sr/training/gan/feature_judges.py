"""Small discriminators on randomly mixed feature maps of a frozen network.

Sauer et al., "Projected GANs Converge Faster", NeurIPS 2021, sections 3.2 and 3.3: fixed random 1x1
convolutions mix the channels of each map, fixed random 3x3 convolutions carry what the deeper maps
saw into the larger ones, and one discriminator with spectral norm looks at each mixed map.

Shapes: n images, C channels, r feature resolution.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.priors.fastgan_layers import SpectralConv2d

#: Channels of the mixed maps, the largest map first, and of the maps inside a head.
WIDTHS = (32, 64, 128, 128)
HEAD_WIDTH = 64
#: The side from which on a head gives its logits.
LOGIT_SIDE = 4
SLOPE = 0.2


class FeatureMixing(nn.Module):
    """Fixed random mixing across channels and across scales.

    A map is divided by its usual size, mixed by a 1x1 convolution to `WIDTHS` channels, and gets
    the next deeper mixed map added: through a 3x3 convolution, enlarged. Weights keep the variance,
    are drawn from torch's global generator, and are buffers: a state holds them.
    """

    def __init__(self, channels: Sequence[int], scales: Sequence[float]) -> None:
        """Random mixing of four maps, the largest first.

        Args:
            channels: C of each map.
            scales: root mean square of each map.
        """
        super().__init__()
        for i, (inputs, scale) in enumerate(zip(channels, scales, strict=True)):
            mixing = torch.randn(WIDTHS[i], inputs, 1, 1) / (math.sqrt(inputs) * scale)
            self.register_buffer(f"across_channels{i}", mixing)
            if i:
                mixing = torch.randn(WIDTHS[i - 1], WIDTHS[i], 3, 3) / math.sqrt(9 * WIDTHS[i])
                self.register_buffer(f"across_scales{i}", mixing)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps `[n, C, r, r]` to as many of `WIDTHS` channels and the same sizes."""
        mixed: list[Tensor] = []
        for i in reversed(range(len(maps))):
            x = F.conv2d(maps[i], getattr(self, f"across_channels{i}"))
            if mixed:
                deeper = F.conv2d(mixed[0], getattr(self, f"across_scales{i + 1}"), padding=1)
                x = x + F.interpolate(deeper, x.shape[2:], mode="bilinear", align_corners=False)
            mixed.insert(0, x)
        return mixed


class BiasedSpectralConv2d(SpectralConv2d):
    """A convolution whose weight is divided by its spectral norm, plus a bias."""

    def __init__(
        self, in_channels: int, out_channels: int, size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__(in_channels, out_channels, size, stride, padding)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:  # [n, I, r, r] -> [n, O, r', r']
        return F.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class Head(nn.Module):
    """Convolutions of stride 2 down to `LOGIT_SIDE`, one of stride 1, a logit for each place."""

    def __init__(self, channels: int, halvings: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(halvings):
            layers += [BiasedSpectralConv2d(channels, HEAD_WIDTH, 4, 2, 1), nn.LeakyReLU(SLOPE)]
            channels = HEAD_WIDTH
        layers += [BiasedSpectralConv2d(channels, HEAD_WIDTH, 3, 1, 1), nn.LeakyReLU(SLOPE)]
        layers.append(BiasedSpectralConv2d(HEAD_WIDTH, 1, 1))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:  # [n, C, r, r] -> [n, places]
        logits: Tensor = self.layers(x)
        return logits.flatten(1)


class FeatureJudges(nn.Module):
    """The mixing and one head for each mixed map."""

    def __init__(
        self, channels: Sequence[int], scales: Sequence[float], sides: Sequence[int]
    ) -> None:
        """Random networks, drawn from torch's global generator.

        Args:
            channels: C of each map, the largest map first.
            scales: root mean square of each map.
            sides: r of each map.
        """
        super().__init__()
        self.mixing = FeatureMixing(channels, scales)
        halvings = [max(0, (side // LOGIT_SIDE).bit_length() - 1) for side in sides]
        self.heads = nn.ModuleList(
            Head(width, count) for width, count in zip(WIDTHS, halvings, strict=True)
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps of the frozen network to the logits of each head, `[n, places]`."""
        return [head(x) for head, x in zip(self.heads, self.mixing(maps), strict=True)]
