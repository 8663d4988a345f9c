"""SRResNet, and its variant without batch normalisation.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial
Network", CVPR 2017, section 2.1.1 and figure 4. The variant is the MSRResNet of BasicSR: no batch
normalisation (Lim et al., EDSR, CVPRW 2017), and it adds to a bilinear enlargement of its input.

Shapes: N images, C channels, h w low-res, scale s.
"""

from __future__ import annotations

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

SCALES = (2, 4, 8)


def stages_of(scale: int) -> int:
    """How many doublings make `scale`.

    Raises:
        ValueError: for a scale other than 2, 4 or 8.
    """
    if scale not in SCALES:
        raise ValueError(f"scale is {scale}, expected one of {', '.join(map(str, SCALES))}")
    return scale.bit_length() - 1


def conv3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(in_channels, out_channels, 3, padding=1)


def he_initialisation(module: nn.Module, slope: float = 0.0, gain: float = 1.0) -> None:
    """Start all convolutions of a module at `gain` times He's normal initialisation, biases at 0.

    At a gain of 0.1 a residual network without normalisation begins near the identity (Wang et al.,
    ESRGAN, ECCVW 2018, section 3.1). `slope` is that of the rectifiers.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, slope)
            layer.weight.data.mul_(gain)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class ResidualBlock(nn.Module):
    """Convolution, batch norm, PReLU, convolution, batch norm; added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            conv3(width, width),
            nn.BatchNorm2d(width),
            nn.PReLU(),
            conv3(width, width),
            nn.BatchNorm2d(width),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.main(x)
        return y


class SRResNet(nn.Module):
    """The generator of the SRGAN paper; 1,549,462 parameters by default.

    Args:
        scale: 2, 4 or 8.
        channels: 3 for RGB, 1 for grey.
        width: feature channels.
        blocks: residual blocks.

    Raises:
        ValueError: for another scale.
    """

    def __init__(
        self, scale: int = 4, channels: int = 3, width: int = 64, blocks: int = 16
    ) -> None:
        super().__init__()
        stages = stages_of(scale)
        self.config = {"scale": scale, "channels": channels, "width": width, "blocks": blocks}
        self.conv_first = nn.Sequential(nn.Conv2d(channels, width, 9, padding=4), nn.PReLU())
        self.body = nn.Sequential(*(ResidualBlock(width) for _ in range(blocks)))
        self.conv_body = nn.Sequential(conv3(width, width), nn.BatchNorm2d(width))
        self.upsample = nn.Sequential(
            *(
                nn.Sequential(conv3(width, 4 * width), nn.PixelShuffle(2), nn.PReLU())
                for _ in range(stages)
            )
        )
        self.conv_last = nn.Conv2d(width, channels, 9, padding=4)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge `[N, C, h, w]` in [0, 1] to `[N, C, s h, s w]`, about [0, 1], not clamped."""
        first = self.conv_first(x)
        y: Tensor = self.conv_last(self.upsample(first + self.conv_body(self.body(first))))
        return y


class PlainResidualBlock(nn.Module):
    """Convolution, ReLU, convolution; added to the input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv3(width, width), conv3(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.conv2(F.relu(self.conv1(x), inplace=True))
        return y


class MSRResNet(nn.Module):
    """SRResNet without batch normalisation; 1,517,571 parameters by default.

    Key names are those of BasicSR's checkpoints.

    Args:
        scale: 2, 4 or 8.
        channels: 3 for RGB, 1 for grey.
        width: feature channels.
        blocks: residual blocks.

    Raises:
        ValueError: for another scale.
    """

    def __init__(
        self, scale: int = 4, channels: int = 3, width: int = 64, blocks: int = 16
    ) -> None:
        super().__init__()
        self.stages, self.scale = stages_of(scale), scale
        self.config = {"scale": scale, "channels": channels, "width": width, "blocks": blocks}
        self.conv_first = conv3(channels, width)
        self.body = nn.Sequential(*(PlainResidualBlock(width) for _ in range(blocks)))
        for stage in range(1, self.stages + 1):
            self.add_module(f"upconv{stage}", conv3(width, 4 * width))
        self.conv_hr, self.conv_last = conv3(width, width), conv3(width, channels)
        he_initialisation(self, gain=0.1)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge `[N, C, h, w]` in [0, 1] to `[N, C, s h, s w]`, about [0, 1], not clamped."""
        y = self.body(F.leaky_relu(self.conv_first(x), 0.1))
        for stage in range(1, self.stages + 1):
            y = F.pixel_shuffle(self.get_submodule(f"upconv{stage}")(y), 2)
            y = F.leaky_relu(y, 0.1, inplace=True)
        y = self.conv_last(F.leaky_relu(self.conv_hr(y), 0.1, inplace=True))
        y += F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return y
