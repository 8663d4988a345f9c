"""FastGAN's networks as public PyTorch ports write them: what our training step is measured with.

Modules of torch alone, one after the other, all tensors contiguous NCHW: pixels are repeated before
the convolution, gates are `nn.GLU`, and spectral norm does a power iteration in every forward pass
in training. Written from the paper (Liu et al., ICLR 2021) under the key names of our networks, so
that their weights can be taken over.

Shapes: N images, D latent width, C I O channels, R resolution, r feature resolution, s small side.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn as nn
from torch import Tensor
from torch.nn.utils import spectral_norm

from pulse_sr.priors.fastgan import NOISY_SIDES, FastGANConfig
from pulse_sr.training.gan import fastgan_discriminator as shapes


def _conv(
    in_channels: int, out_channels: int, size: int, stride: int = 1, pad: int = 0
) -> nn.Module:
    return spectral_norm(nn.Conv2d(in_channels, out_channels, size, stride, pad, bias=False))


def _leaky() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


class _Noise(nn.Module):
    """Add a noise map times a learned scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + self.weight * noise


class _Up(nn.Sequential):
    """Repeat pixels, convolution, batch norm, GLU; with noise a second convolution."""

    def __init__(self, in_channels: int, out_channels: int, noisy: bool = False) -> None:
        wide = 2 * out_channels
        layers: list[nn.Module] = [nn.Upsample(scale_factor=2, mode="nearest")]
        for channels in (in_channels, out_channels) if noisy else (in_channels,):
            layers += [_conv(channels, wide, 3, pad=1), *([_Noise()] if noisy else [])]
            layers += [nn.BatchNorm2d(wide), nn.GLU(dim=1)]
        super().__init__(*layers)

    def forward(self, x: Tensor, noise: Sequence[Tensor] = ()) -> Tensor:
        maps = iter(noise)
        for layer in self:
            x = layer(x, next(maps)) if isinstance(layer, _Noise) else layer(x)
        return x


class _Gate(nn.Module):
    """Skip-layer excitation: factors `[N, O, 1, 1]` from a small map."""

    def __init__(self, low_channels: int, high_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.AdaptiveAvgPool2d(4),
            _conv(low_channels, high_channels, 4),
            nn.SiLU(),
            _conv(high_channels, high_channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, low: Tensor) -> Tensor:
        y: Tensor = self.main(low)
        return y


class _Start(nn.Module):
    """Latent `[N, D]` to the map of 4 px."""

    def __init__(self, z_dim: int, out_channels: int) -> None:
        super().__init__()
        first = spectral_norm(nn.ConvTranspose2d(z_dim, out_channels, 4, bias=False))
        self.init = nn.Sequential(first, nn.BatchNorm2d(out_channels), nn.GLU(dim=1))

    def forward(self, z: Tensor) -> Tensor:
        y: Tensor = self.init(z[:, :, None, None])
        return y


class PlainGenerator(nn.Module):
    """Latents and noise maps to two images."""

    def __init__(self, config: FastGANConfig) -> None:
        """Random weights of the shapes of `FastGANGenerator(config)`."""
        super().__init__()
        self.config, widths = config, config.channels
        self.init = _Start(config.z_dim, 2 * widths[4])
        for low, high in pairwise(widths):
            self.add_module(f"feat_{high}", _Up(widths[low], widths[high], high in NOISY_SIDES))
        for high, low in config.gates.items():
            self.add_module(f"se_{high}", _Gate(widths[low], widths[high]))
        self.add_module(f"to_{config.small_side}", _conv(widths[config.small_side], 3, 1))
        self.to_big = _conv(widths[config.resolution], 3, 3, pad=1)

    def forward(self, z: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`[N, D]` and a map per entry of `config.noise_shapes` to `[N, 3, R, R]` and small."""
        maps, noises = {4: self.init(z)}, iter(noise)
        for low, high in pairwise(self.config.channels):
            block = getattr(self, f"feat_{high}")
            x = block(maps[low], [next(noises) for each in block if isinstance(each, _Noise)])
            if high in self.config.gates:
                x = x * getattr(self, f"se_{high}")(maps[self.config.gates[high]])
            maps[high] = x
        side = self.config.small_side
        small = getattr(self, f"to_{side}")(maps[side])
        big = self.to_big(maps[self.config.resolution])
        return (torch.tanh(big), torch.tanh(small)) if self.config.bounded else (big, small)


class _Halve(nn.Module):
    """Convolution of stride 2, batch norm, leaky ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        conv = _conv(in_channels, out_channels, 4, 2, 1)
        self.main = nn.Sequential(conv, nn.BatchNorm2d(out_channels), _leaky())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return y


class _HalveTwoWays(nn.Module):
    """The mean of two convolutions and of a pooled 1x1 one."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            _conv(in_channels, out_channels, 4, 2, 1),
            nn.BatchNorm2d(out_channels),
            _leaky(),
            _conv(out_channels, out_channels, 3, pad=1),
            nn.BatchNorm2d(out_channels),
            _leaky(),
        )
        self.direct = nn.Sequential(
            nn.AvgPool2d(2),
            _conv(in_channels, out_channels, 1),
            nn.BatchNorm2d(out_channels),
            _leaky(),
        )

    def forward(self, x: Tensor) -> Tensor:
        mean: Tensor = (self.main(x) + self.direct(x)) / 2
        return mean


class _Decoder(nn.Module):
    """A map of 8 px to an image of side s in [-1, 1]."""

    def __init__(self, in_channels: int, side: int) -> None:
        super().__init__()
        widths = [in_channels, *shapes.DECODER_WIDTHS[: (side // 8).bit_length() - 1]]
        blocks = [_Up(low, high) for low, high in pairwise(widths)]
        last = _conv(widths[-1], 3, 3, pad=1)
        self.main = nn.Sequential(nn.AdaptiveAvgPool2d(8), *blocks, last, nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.main(x)
        return y


class PlainJudgement(NamedTuple):
    """Logits `[N, 50]`, and what the decoders made of whole, small image and quarter, if asked."""

    logits: Tensor
    decoded: tuple[Tensor, ...]


class PlainDiscriminator(nn.Module):
    """Two images to logits, and to reconstructions."""

    def __init__(self, config: FastGANConfig) -> None:
        """Random weights of the shapes of `FastGANDiscriminator(config)`."""
        super().__init__()
        width = {level: int(w * config.ngf) for level, w in shapes.WIDTHS.items()}
        self.first = max(2, 512 // config.resolution)
        self.down_from_big = _from_big(config.resolution, width, self.first)
        self.levels = [level for level in (4, 8, 16, 32, 64) if level > self.first]
        for level in self.levels:
            self.add_module(f"down_{level}", _HalveTwoWays(width[level // 2], width[level]))
        self.gates = {high: low for high, low in shapes.GATES.items() if low >= self.first}
        for high, low in self.gates.items():
            self.add_module(f"se_{low}_{high}", _Gate(width[low], width[high]))
        wide = 2 * width[64]
        head = (_conv(width[64], wide, 1), nn.BatchNorm2d(wide), _leaky(), _conv(wide, 1, 4))
        self.rf_big = nn.Sequential(*head)
        start = 512 // config.small_side
        small = [_conv(3, width[start], 4, 2, 1), _leaky()]
        small += [
            _Halve(width[level], 2 * width[level]) for level in shapes.WIDTHS if start <= level < 32
        ]
        self.down_from_small = nn.Sequential(*small)
        self.rf_small = _conv(width[32], 1, 4)
        self.decoder_big = _Decoder(width[64], config.small_side)
        self.decoder_part = _Decoder(width[32], config.small_side)
        self.decoder_small = _Decoder(width[32], config.small_side)

    def forward(self, big: Tensor, small: Tensor, part: int | None = None) -> PlainJudgement:
        """Judge `[N, 3, R, R]` and `[N, 3, s, s]`; with `part` decode them and that quarter too."""
        maps = {self.first: self.down_from_big(big)}
        for level in self.levels:
            x = getattr(self, f"down_{level}")(maps[level // 2])
            if level in self.gates:
                low = self.gates[level]
                x = x * getattr(self, f"se_{low}_{level}")(maps[low])
            maps[level] = x
        low_res = self.down_from_small(small)
        judged = [self.rf_big(maps[64]).flatten(1), self.rf_small(low_res).flatten(1)]
        logits = torch.cat(judged, dim=1)
        if part is None:
            return PlainJudgement(logits, ())
        quarter = self.decoder_part(quarter_of(maps[32], part))
        return PlainJudgement(
            logits, (self.decoder_big(maps[64]), self.decoder_small(low_res), quarter)
        )


def _from_big(resolution: int, width: dict[int, int], first: int) -> nn.Module:
    if resolution == 1024:
        halve = (_conv(width[1], width[2], 4, 2, 1), nn.BatchNorm2d(width[2]), _leaky())
        return nn.Sequential(_conv(3, width[1], 4, 2, 1), _leaky(), *halve)
    if resolution == 512:
        return nn.Sequential(_conv(3, width[first], 4, 2, 1), _leaky())
    return nn.Sequential(_conv(3, width[first], 3, pad=1), _leaky())


def quarter_of(x: Tensor, part: int) -> Tensor:
    """A quarter of maps `[N, C, r, r]`: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
    half = x.shape[2] // 2
    top, left = half * (part // 2), half * (part % 2)
    return x[:, :, top : top + half, left : left + half]
