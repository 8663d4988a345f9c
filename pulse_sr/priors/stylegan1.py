"""The StyleGAN generator that the original PULSE searches: adaptive instance normalisation.

Karras et al., "A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR
2019; for searching alone, so that all gains stand inside the weights. To double the side is one
transposed convolution with a 4x4 kernel at all sides, as the release has it from 128 px up.

Shapes: N images, L style rows, D latent width, I O C channels, r feature resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.priors.style import StyleGenerator, StylePrior, Synthesis
from pulse_sr.priors.stylegan2 import (
    FullyConnected,
    MappingNetwork,
    StyleGAN2Config,
)
from stylegan_ops import setup_filter, upfirdn2d

SLOPE, EPS = 0.2, 1e-5


class Epilogue(nn.Module):
    """What follows a convolution: noise, leaky ReLU, normalisation of each map, style.

    `x = (x - mean) / std * (s_0 + 1) + s_1` with the mean and deviation of each map of each image
    (section 2, equation 1).
    """

    noise_const: Tensor

    def __init__(self, channels: int, w_dim: int, side: int) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, 2 * channels)
        self.noise_strength = nn.Parameter(torch.zeros(channels))
        self.register_buffer("noise_const", torch.randn(side, side))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """`x` `[N, C, r, r]`, style row `w` `[N, D]`, noise `[N or 1, 1, r, r]` or None."""
        if noise is not None:
            # The product alone would lose the memory format of x where N is 1.
            x = torch.addcmul(x, self.noise_strength[:, None, None].to(x.dtype), noise.to(x.dtype))
        x = F.leaky_relu(x, SLOPE).to(torch.promote_types(x.dtype, torch.float32))
        var, mean = torch.var_mean(x, dim=[2, 3], correction=0, keepdim=True)
        scale, shift = self.affine(w)[:, :, None, None].to(x.dtype).chunk(2, dim=1)
        return (x - mean) * ((var + EPS).rsqrt() * (scale + 1)) + shift


class Block(nn.Module):
    """One resolution: two convolutions, each with its epilogue; the first one doubles the side."""

    blur: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        if in_channels:
            self.kernel = nn.Parameter(torch.zeros(in_channels, out_channels, 4, 4))
            self.bias0 = nn.Parameter(torch.zeros(out_channels))
            self.register_buffer("blur", setup_filter([1.0, 2.0, 1.0]), persistent=False)
        else:
            self.const = nn.Parameter(torch.zeros(out_channels, side, side))
        self.epilogue0 = Epilogue(out_channels, w_dim, side)
        self.weight = nn.Parameter(torch.zeros(out_channels, out_channels, 3, 3))
        self.bias1 = nn.Parameter(torch.zeros(out_channels))
        self.epilogue1 = Epilogue(out_channels, w_dim, side)

    @property
    def layers(self) -> list[Epilogue]:
        """The epilogues in the order in which they take style rows and noise maps."""
        return [self.epilogue0, self.epilogue1]

    def forward(
        self, x: Tensor | None, rows: Sequence[Tensor], noise: Sequence[Tensor | None]
    ) -> Tensor:
        """`[N, I, r/2, r/2]`, two style rows and two noise maps to `[N, O, r, r]`."""
        if x is None:
            x = self.const.expand(len(rows[0]), -1, -1, -1)
            x = x.contiguous(memory_format=torch.channels_last)
        else:
            x = F.conv_transpose2d(x, self.kernel, stride=2, padding=1)
            x = upfirdn2d(x, self.blur, padding=1) + self.bias0[:, None, None]
        x = self.epilogue0(x, rows[0], noise[0])
        x = F.conv2d(x, self.weight, self.bias1, padding=1)
        return self.epilogue1(x, rows[1], noise[1])


class SynthesisNetwork(Synthesis):
    """w to image."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.sides = config.sides
        in_channels = 0
        for side, out_channels in zip(self.sides, config.channels, strict=True):
            self.add_module(f"b{side}", Block(in_channels, out_channels, config.w_dim, side))
            in_channels = out_channels
        self.torgb = nn.Conv2d(in_channels, 3, 1)

    def forward(
        self,
        ws: Tensor,
        noise: Sequence[Tensor | None],
        feature_deltas: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Styles `[N, L, D]` and one noise map per style row to `[N, 3, R, R]` around [-1, 1].

        Raises:
            ValueError: for another number of style rows or noise maps.
        """
        rows, count = ws.unbind(dim=1), 2 * len(self.sides)
        if (len(rows), len(noise)) != (count, count):
            raise ValueError(f"{len(rows)} rows and {len(noise)} noise maps, expected {count} each")
        x: Tensor | None = None
        for i, block in enumerate(self.blocks):
            pair = slice(2 * i, 2 * i + 2)
            x = block(x, rows[pair], noise[pair])
            if feature_deltas is not None and block.side in feature_deltas:
                x = x + feature_deltas[block.side]
        image: Tensor = self.torgb(x)
        return image


class Generator(StyleGenerator):
    """StyleGAN: mapping network and synthesis network. Its shape is described as StyleGAN2's is."""

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__(config, MappingNetwork(config), SynthesisNetwork(config))


class StyleGAN1Prior(StylePrior):
    """A frozen StyleGAN generator as a prior."""

    generator: Generator
