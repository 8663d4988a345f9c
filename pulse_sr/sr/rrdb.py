"""RRDBNet, the generator of ESRGAN and Real-ESRGAN.

Wang et al., "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks", ECCVW 2018,
section 3.1; Wang et al., "Real-ESRGAN", ICCVW 2021, section 3.3 (pixel unshuffle). Key names are
those of Real-ESRGAN's files; `key_names.py` reads the older ones.

Shapes: N images, C channels, h w low-res, scale s.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.sr.srresnet import conv3, he_initialisation

#: What the residuals are multiplied by before they are added, within a block and around three.
RESIDUAL_SCALE = 0.2
#: By how much the published networks of a scale fold their input into channels.
UNSHUFFLE = {1: 4, 2: 2}


def _leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2, inplace=True)


class DenseBlock(nn.Module):
    """Five convolutions; each sees the input and what all before it made."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for i in range(1, 6):
            out_channels = growth if i < 5 else width
            self.add_module(f"conv{i}", conv3(width + (i - 1) * growth, out_channels))
        he_initialisation(self, gain=0.1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for i in range(1, 5):
            maps.append(_leaky(self.get_submodule(f"conv{i}")(torch.cat(maps, dim=1))))
        y: Tensor = self.get_submodule("conv5")(torch.cat(maps, dim=1))
        return y * RESIDUAL_SCALE + x


class RRDB(nn.Module):
    """Residual in residual dense block: three dense blocks in a row."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.rdb3(self.rdb2(self.rdb1(x)))
        return y * RESIDUAL_SCALE + x


class RRDBNet(nn.Module):
    """Residual in residual dense blocks, then enlargements by nearest neighbour and convolution.

    16,697,987 parameters by default.

    Args:
        scale: 1, 2, 4, 8 or 16.
        channels: 3 for RGB, 1 for grey.
        width: feature channels.
        blocks: RRDBs; 23, or 6 in the small published network.
        growth: channels that a convolution in a dense block adds.
        unshuffle: side of the squares of pixels that become channels first (1: none); None: as
            published, 4 for scale 1 and 2 for scale 2, else 1.

    Raises:
        ValueError: when scale times unshuffle is no power of two.
    """

    def __init__(
        self,
        scale: int = 4,
        channels: int = 3,
        width: int = 64,
        blocks: int = 23,
        growth: int = 32,
        unshuffle: int | None = None,
    ) -> None:
        super().__init__()
        self.unshuffle = UNSHUFFLE.get(scale, 1) if unshuffle is None else unshuffle
        enlargement = scale * self.unshuffle
        if scale < 1 or self.unshuffle < 1 or enlargement & (enlargement - 1):
            raise ValueError(f"scale {scale} with unshuffle {self.unshuffle} is no power of two")
        self.scale, self.stages = scale, enlargement.bit_length() - 1
        self.config = {
            "scale": scale,
            "channels": channels,
            "width": width,
            "blocks": blocks,
            "growth": growth,
            "unshuffle": self.unshuffle,
        }
        self.conv_first = conv3(channels * self.unshuffle**2, width)
        self.body = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.conv_body = conv3(width, width)
        for stage in range(1, self.stages + 1):
            self.add_module(f"conv_up{stage}", conv3(width, width))
        self.conv_hr, self.conv_last = conv3(width, width), conv3(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Enlarge `[N, C, h, w]` in [0, 1] to `[N, C, s h, s w]`, about [0, 1], not clamped.

        A side that `unshuffle` does not divide is continued by its last row for the time being.
        """
        height, width = x.shape[-2:]
        if self.unshuffle > 1:
            padding = (0, -width % self.unshuffle, 0, -height % self.unshuffle)
            x = F.pixel_unshuffle(F.pad(x, padding, mode="replicate"), self.unshuffle)
        y = self.conv_first(x)
        y = y + self.conv_body(self.body(y))
        for stage in range(1, self.stages + 1):
            y = F.interpolate(y, scale_factor=2, mode="nearest")
            y = _leaky(self.get_submodule(f"conv_up{stage}")(y))
        y = self.conv_last(_leaky(self.conv_hr(y)))
        return y[..., : height * self.scale, : width * self.scale]
