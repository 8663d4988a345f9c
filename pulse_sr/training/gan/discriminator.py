"""The StyleGAN2 discriminator: residual blocks and the minibatch standard deviation.

Karras et al., CVPR 2020, section 4.1, with the key names of the official PyTorch release.

Shapes: N images, C channels, r feature resolution.
"""

from __future__ import annotations

import math

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from pulse_sr.priors.stylegan2 import RESAMPLE_TAPS, FullyConnected, StyleGAN2Config
from stylegan_ops import SQRT2, conv2d_resample

GROUP_SIZE = 4  # images over which the discriminator sees their deviation


def minibatch_std(x: torch.Tensor, group_size: int = GROUP_SIZE) -> torch.Tensor:
    """Append one channel with the deviation within groups of images, `[N, C + 1, r, r]`.

    Image i belongs to group `i mod (N / group_size)`.
    """
    n, _, h, w = x.shape
    group = min(group_size, n)
    y = x.reshape(group, n // group, -1)
    deviation = (y.var(dim=0, correction=0) + 1e-8).sqrt().mean(dim=1)
    deviation = deviation.repeat(group).view(n, 1, 1, 1).expand(n, 1, h, w)
    return torch.cat([x, deviation], dim=1)


class Conv(nn.Module):
    """Convolution with equalised learning rate, optional down-sampling, bias and activation."""

    resample_filter: torch.Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        size: int,
        activation: str = "lrelu",
        down: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.activation, self.down, self.padding = activation, down, size // 2
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, size, size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.weight_gain = 1 / math.sqrt(in_channels * size**2)
        # Separable: the compiled op then filters each axis for itself.
        taps = torch.tensor(RESAMPLE_TAPS)
        self.register_buffer("resample_filter", taps / taps.sum(), persistent=False)

    def forward(self, x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        # Both activations are positively homogeneous: gains go into the weights, not over the map.
        gain = gain if self.activation == "linear" else gain * SQRT2
        weight = self.weight * (self.weight_gain * gain)
        bias = None if self.bias is None else self.bias * gain
        f = self.resample_filter if self.down > 1 else None
        x = conv2d_resample(x, weight, f, down=self.down, padding=self.padding, bias=bias)
        return x if self.activation == "linear" else F.leaky_relu_(x, 0.2)


class ResidualBlock(nn.Module):
    """Two convolutions and a skip, halving the resolution."""

    def __init__(self, in_channels: int, out_channels: int, image_channels: int | None) -> None:
        super().__init__()
        if image_channels is not None:
            self.fromrgb = Conv(image_channels, in_channels, 1)
        self.conv0 = Conv(in_channels, in_channels, 3)
        self.conv1 = Conv(in_channels, out_channels, 3, down=2)
        self.skip = Conv(in_channels, out_channels, 1, activation="linear", down=2, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if hasattr(self, "fromrgb"):
            x = self.fromrgb(x)
        skip = self.skip(x, gain=math.sqrt(0.5))
        return skip + self.conv1(self.conv0(x), gain=math.sqrt(0.5))


class Epilogue(nn.Module):
    """Minibatch standard deviation, a convolution and two fully connected layers at 4 px."""

    def __init__(self, channels: int, group_size: int) -> None:
        super().__init__()
        self.group_size = group_size
        self.conv = Conv(channels + 1, channels, 3)
        self.fc = FullyConnected(channels * 16, channels, "lrelu")
        self.out = FullyConnected(channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(minibatch_std(x, self.group_size))
        return self.out(self.fc(x.flatten(1)))


class Discriminator(nn.Module):
    """Images `[N, 3, R, R]` in [-1, 1] to logits `[N, 1]`, positive for real ones.

    Attributes:
        recompute: keep no activations inside the blocks, compute them again going back.
    """

    def __init__(self, config: StyleGAN2Config, group_size: int = GROUP_SIZE) -> None:
        super().__init__()
        self.recompute = False
        widths = dict(zip(config.sides, config.channels, strict=True))
        self.sides = config.sides[:0:-1]
        for side in self.sides:
            image_channels = 3 if side == config.resolution else None
            self.add_module(
                f"b{side}", ResidualBlock(widths[side], widths[side // 2], image_channels)
            )
        self.b4 = Epilogue(widths[4], group_size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for side in self.sides:
            block = getattr(self, f"b{side}")
            x = checkpoint(block, x, use_reentrant=False) if self.recompute else block(x)
        return self.b4(x)
