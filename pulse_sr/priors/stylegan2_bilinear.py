"""The StyleGAN2 of lucidrains' stylegan2-pytorch, for searching: bilinear, one style row a size.

Karras et al., CVPR 2020, with these differences: bilinear up-sampling before the convolution, the
same style for both convolutions and the RGB layer of a size, noise with a weight and a bias for
each channel, no gain behind activations, images around [0, 1]. Gains stand inside the weights.

Noise is uniform in [0, 1] there, one picture for all layers; here each layer has standard normal
noise as all priors do, which its distribution function makes uniform.

Shapes: N images, L style rows, D latent width, I O C channels, r feature resolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.priors.style import StyleGenerator, StylePrior, Synthesis
from pulse_sr.priors.stylegan2 import (
    FullyConnected,
    MappingNetwork,
    StyleGAN2Config,
    ToRGB,
)
from stylegan_ops import demodulation, setup_filter, squared_norms, upfirdn2d
from stylegan_ops.products import rows_times

SLOPE = 0.2


@dataclass(frozen=True)
class BilinearConfig(StyleGAN2Config):
    """Shape of the generator, in the terms of StyleGAN2's."""

    mapping_lr_multiplier: float = 1.0

    @property
    def num_ws(self) -> int:
        """How many style rows the generator takes: one for each size."""
        return len(self.channels)


class Layer(nn.Module):
    """Modulated 3x3 convolution, noise and leaky ReLU."""

    noise_const: Tensor
    norms: Tensor | None

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, side: int) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", torch.randn(side, side))
        self.register_buffer("norms", None, persistent=False)

    def freeze(self) -> None:
        """Compute once what depends on the weight alone: from now on it must not change."""
        self.norms = squared_norms(self.weight.detach()).contiguous()

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """`x` `[N, I, r, r]`, style row `w` `[N, D]`, noise `[N or 1, 1, r, r]` or None."""
        styles = self.affine(w)
        if self.norms is None:
            d = demodulation(squared_norms(self.weight), styles)
        else:
            d = demodulation(self.norms, styles, rows_times)
        x = F.conv2d(x * styles[:, :, None, None], self.weight, padding=1)
        x = x * d[:, :, None, None] + self.bias[:, None, None]
        if noise is not None:
            uniform = 0.5 + 0.5 * torch.erf(noise / math.sqrt(2))
            x = x + (self.noise_strength[:, None, None] * uniform).to(x.dtype)
        return F.leaky_relu(x, SLOPE)


class Block(nn.Module):
    """One resolution: up-sampling (above 4 px), two convolutions, RGB."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.conv0 = Layer(in_channels, out_channels, w_dim, side)
        self.conv1 = Layer(out_channels, out_channels, w_dim, side)
        self.torgb = ToRGB(out_channels, w_dim)

    @property
    def layers(self) -> list[Layer]:
        """The convolutions in the order in which they take noise maps."""
        return [self.conv0, self.conv1]


class SynthesisNetwork(Synthesis):
    """w to image."""

    blur: Tensor

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.sides = config.sides
        in_channels = config.channels[0]
        # What leaves the first convolution, which has no style, is the same for all images.
        self.const = nn.Parameter(torch.zeros(in_channels, 4, 4))
        for side, out_channels in zip(self.sides, config.channels, strict=True):
            self.add_module(f"b{side}", Block(in_channels, out_channels, config.w_dim, side))
            in_channels = out_channels
        self.register_buffer("blur", setup_filter([1.0, 2.0, 1.0]), persistent=False)

    def forward(
        self,
        ws: Tensor,
        noise: Sequence[Tensor | None],
        feature_deltas: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Styles `[N, L, D]` and two noise maps a size to `[N, 3, R, R]` around [-1, 1].

        Raises:
            ValueError: for another number of style rows or noise maps.
        """
        rows, count = ws.unbind(dim=1), len(self.sides)
        if (len(rows), len(noise)) != (count, 2 * count):
            raise ValueError(
                f"{len(rows)} rows and {len(noise)} maps, expected {count} and {2 * count}"
            )
        x = self.const.expand(len(ws), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        for i, (block, w) in enumerate(zip(self.blocks, rows, strict=True)):
            if i:
                x = _doubled(x)
            x = block.conv1(block.conv0(x, w, noise[2 * i]), w, noise[2 * i + 1])
            if feature_deltas is not None and block.side in feature_deltas:
                x = x + feature_deltas[block.side]
            rgb = block.torgb(x, w).float()
            image = rgb if image is None else rgb + self._doubled_image(image)
        assert image is not None  # there are at least two blocks
        return image * 2 - 1

    def _doubled_image(self, image: Tensor) -> Tensor:
        return upfirdn2d(F.pad(_doubled(image), (1, 1, 1, 1), mode="reflect"), self.blur)


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Generator(StyleGenerator):
    """Mapping network and synthesis network."""

    def __init__(self, config: BilinearConfig) -> None:
        super().__init__(config, MappingNetwork(config), SynthesisNetwork(config))


class BilinearPrior(StylePrior):
    """A frozen generator of this kind as a prior."""

    generator: Generator
