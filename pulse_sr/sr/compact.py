"""A compact network for processors without a GPU: all convolutions at low resolution.

The SRVGGNetCompact of Real-ESRGAN (`realesr-animevideov3`, `realesr-general-x4v3`), in the manner
of Shi et al., "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
Convolutional Neural Network", CVPR 2016. Key names are those of the published files.

Shapes: N images, C channels, h w low-res, scale s.
"""

from __future__ import annotations

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.sr.srresnet import conv3, he_initialisation

#: How the input is enlarged that the network adds to.
BASES = ("nearest", "bilinear")
#: Of the PReLUs at the beginning.
_SLOPE = 0.25


class CompactNet(nn.Module):
    """Convolutions with PReLU, one pixel shuffle; 621,424 parameters by default.

    It begins with He's initialisation (ICCV 2015, section 2.2), the last layer at a tenth of it:
    near the enlargement that it adds to, and yet with features in every layer. With that of PyTorch
    a layer halves what goes through it, and L1 learns nothing in the first hundreds of steps.

    Args:
        scale: 1 or more.
        channels: 3 for RGB, 1 for grey.
        width: feature channels.
        convolutions: between the first and the last one; 16 or 32 in the published networks.
        base: out of `BASES`; "nearest" in the published networks.

    Raises:
        ValueError: for another base or a scale below 1.
    """

    def __init__(
        self,
        scale: int = 4,
        channels: int = 3,
        width: int = 64,
        convolutions: int = 16,
        base: str = "nearest",
    ) -> None:
        super().__init__()
        if base not in BASES or scale < 1:
            raise ValueError(f"scale {scale} with base {base!r}, expected one of {BASES}")
        self.scale, self.base = scale, base
        self.config = {
            "scale": scale,
            "channels": channels,
            "width": width,
            "convolutions": convolutions,
            "base": base,
        }
        layers: list[nn.Module] = []
        for i in range(convolutions + 1):
            layers += [conv3(width if i else channels, width), nn.PReLU(width, _SLOPE)]
        last = conv3(width, channels * scale**2)
        self.body = nn.Sequential(*layers, last)
        he_initialisation(self.body, _SLOPE)
        last.weight.data.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge `[N, C, h, w]` in [0, 1] to `[N, C, s h, s w]`, about [0, 1], not clamped."""
        corners = {} if self.base == "nearest" else {"align_corners": False}
        base = F.interpolate(x, scale_factor=self.scale, mode=self.base, **corners)
        return F.pixel_shuffle(self.body(x), self.scale) + base
