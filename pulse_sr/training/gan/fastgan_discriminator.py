"""The FastGAN discriminator: two branches, and decoders that make it keep what it saw.

Liu et al., ICLR 2021, section 3.2, with the key names of the public checkpoints. Those end at
256 px; below, the blocks that halve 256 and 128 px are left out with the gates that begin there.

Shapes: N images, C channels, R resolution, r feature resolution, s side of the small image.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pulse_sr.priors.batch_norm import BatchNorm
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.fastgan_layers import SkipExcitation, SpectralConv2d, UpBlock

#: Width of the feature map of each level, in units of `ndf`. Level l has 512 / l px, but the
#: levels of 1024 px images are named as those of 512 px ones.
WIDTHS = {1: 0.125, 2: 0.25, 4: 0.5, 8: 1, 16: 2, 32: 4, 64: 8}
#: A gate for the map of a level, and the level it is computed from.
GATES = {16: 2, 32: 4, 64: 8}
#: Both branches end at 8 px and give a logit to each of 5x5 windows of 4 px.
LOGITS = 50
#: Widths of the decoders at 8, 16, 32, 64 and 128 px; the first is that of the input.
DECODER_WIDTHS = (128, 64, 64, 32)


def _conv(in_channels: int, out_channels: int, size: int = 4) -> SpectralConv2d:
    """4x4 halves the side, 3x3 keeps it."""
    stride = 2 if size == 4 else 1
    return SpectralConv2d(in_channels, out_channels, size, stride, padding=1)


class Leaky(nn.LeakyReLU):
    """Leaky ReLU of slope 0.2."""

    def __init__(self) -> None:
        super().__init__(0.2)


class Halve(nn.Module):
    """Halve the side: one convolution, batch norm, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            _conv(in_channels, out_channels), BatchNorm(out_channels), Leaky()
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return y


class HalveTwoWays(nn.Module):
    """Halve the side: the mean of two convolutions and of a pooled 1x1 one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            _conv(in_channels, out_channels),
            BatchNorm(out_channels),
            Leaky(),
            _conv(out_channels, out_channels, 3),
            BatchNorm(out_channels),
            Leaky(),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2),
            SpectralConv2d(in_channels, out_channels, 1),
            BatchNorm(out_channels),
            Leaky(),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = (self.main(x) + self.direct(x)) / 2
        return mean


class Decoder(nn.Module):
    """A map of 8 px to an image of side s in [-1, 1]."""

    def __init__(self, in_channels: int, side: int) -> None:
        super().__init__()
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range((side // 8).bit_length() - 1):
            layers[str(i + 1)] = UpBlock(in_channels, DECODER_WIDTHS[i])
            in_channels = DECODER_WIDTHS[i]
        layers[str(len(layers) + 1)] = _conv(in_channels, 3, 3)
        self.main = nn.Sequential(layers)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.main(x))


class Reconstructions(NamedTuple):
    """What the decoders make of an image, `[N, 3, s, s]` in [-1, 1] each."""

    whole: Tensor
    small: Tensor
    quarter: Tensor


def quarter_of(x: Tensor, index: Tensor) -> Tensor:
    """A quarter of each map: `[N, C, r, r]` and `[N]` to `[N, C, r/2, r/2]`.

    Index 0 is the top left quarter, 1 the top right, 2 the bottom left, 3 the bottom right.
    """
    half = x.shape[2] // 2
    parts = x.unflatten(3, (2, half)).unflatten(2, (2, half))  # [N, C, 2, r/2, 2, r/2]
    images = torch.arange(len(x), device=x.device)
    quarters = parts[images, :, index // 2, :, index % 2]
    return quarters.contiguous(memory_format=torch.channels_last)


class FastGANDiscriminator(nn.Module):
    """Images in [-1, 1] to logits, positive for real ones, and to reconstructions.

    Attributes:
        recompute: keep no activations inside the blocks, compute them again going back.
    """

    def __init__(self, config: FastGANConfig, ndf: int | None = None) -> None:
        """Random weights, drawn from torch's global generator.

        Args:
            config: of the generator: resolution and side of the small image.
            ndf: width of the feature map of 64 px; None: `config.ngf`.

        Raises:
            ValueError: when a feature map would have no channel.
        """
        super().__init__()
        self.config, self.recompute = config, False
        unit = config.ngf if ndf is None else ndf
        width = {level: int(w * unit) for level, w in WIDTHS.items()}
        self.first = max(2, 512 // config.resolution)
        first = 1 if config.resolution == 1024 else self.first
        if width[first] < 1:
            raise ValueError(f"ndf is {unit}, too small for {config.resolution} px")
        self.down_from_big = self._from_big(width)
        self.levels = [level for level in (4, 8, 16, 32, 64) if level > self.first]
        for level in self.levels:
            self.add_module(f"down_{level}", HalveTwoWays(width[level // 2], width[level]))
        self.gates = {high: low for high, low in GATES.items() if low >= self.first}
        for high, low in self.gates.items():
            self.add_module(f"se_{low}_{high}", SkipExcitation(width[low], width[high]))
        self.rf_big = nn.Sequential(
            SpectralConv2d(width[64], width[64] * 2, 1),
            BatchNorm(width[64] * 2),
            Leaky(),
            SpectralConv2d(width[64] * 2, 1, 4),
        )
        self.down_from_small = self._from_small(width)
        self.rf_small = SpectralConv2d(width[32], 1, 4)
        self.decoder_big = Decoder(width[64], config.small_side)
        self.decoder_part = Decoder(width[32], config.small_side)
        self.decoder_small = Decoder(width[32], config.small_side)

    def _from_big(self, width: dict[int, int]) -> nn.Sequential:
        start = width[self.first]
        if self.config.resolution == 1024:
            halve = (_conv(width[1], start), BatchNorm(start), Leaky())
            return nn.Sequential(_conv(3, width[1]), Leaky(), *halve)
        return nn.Sequential(_conv(3, start, 4 if self.config.resolution == 512 else 3), Leaky())

    def _from_small(self, width: dict[int, int]) -> nn.Sequential:
        """From s px to 8; the map of r px is as wide as that of the other branch at 2r px."""
        level = 256 // (self.config.small_side // 2)
        layers: list[nn.Module] = [_conv(3, width[level]), Leaky()]
        while level < 32:
            layers.append(Halve(width[level], width[2 * level]))
            level *= 2
        return nn.Sequential(*layers)

    def stages(self) -> list[nn.Module]:
        """Parts from the images inwards, those of both branches together."""
        small = [self.down_from_small[:2], *self.down_from_small[2:]]
        big = [self.down_from_big, *(getattr(self, f"down_{level}") for level in self.levels)]
        pairs = [nn.ModuleList([part]) for part in big]
        for pair, part in zip(pairs, small, strict=False):
            pair.append(part)
        return [*pairs]

    def shrink(self, big: Tensor) -> Tensor:
        """The small image of a real one, every so many pixels, as published: `[N, 3, s, s]`."""
        return F.interpolate(big, size=(self.config.small_side, self.config.small_side))

    def forward(
        self, big: Tensor, small: Tensor | None = None, quarter: Tensor | None = None
    ) -> tuple[Tensor, Reconstructions | None]:
        """Judge images, and decode them where `quarter` says which part.

        Args:
            big: `[N, 3, R, R]`.
            small: `[N, 3, s, s]`; None: `shrink` of the big ones.
            quarter: `[N]` integers as `quarter_of` takes them; None: no reconstruction.

        Returns:
            logits `[N, 50]`, at least float32: 5x5 of the big branch and 5x5 of the small one,
            row by row; the reconstructions, or None.
        """
        maps = {self.first: self._run(self.down_from_big, big)}
        for level in self.levels:
            x = self._run(getattr(self, f"down_{level}"), maps[level // 2])
            if level in self.gates:
                low = self.gates[level]
                x = x * getattr(self, f"se_{low}_{level}")(maps[low])
            maps[level] = x
        low_res = self._run(self.down_from_small, self.shrink(big) if small is None else small)
        judged = (self.rf_big(maps[64]), self.rf_small(low_res))
        logits = torch.cat([each.flatten(1) for each in judged], dim=1)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        if quarter is None:
            return logits, None
        return logits, Reconstructions(
            self._run(self.decoder_big, maps[64]),
            self._run(self.decoder_small, low_res),
            self._run(self.decoder_part, quarter_of(maps[32], quarter)),
        )

    def _run(self, block: nn.Module, x: Tensor) -> Tensor:
        if self.recompute:
            return checkpoint(block, x, use_reentrant=False)  # type: ignore[no-any-return]
        return block(x)  # type: ignore[no-any-return]
