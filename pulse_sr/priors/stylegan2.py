"""The StyleGAN2 generator: skip architecture, modulated convolutions in the input-scaled form.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020, with the layer
widths and the key names of the official PyTorch release, so that its weights load unchanged.

Shapes: N images, L style rows, D latent width, C channels, r feature resolution.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pulse_sr.files.documents import check_description
from pulse_sr.priors.style import StyleGenerator, StylePrior, Synthesis
from stylegan_ops import (
    bias_act,
    demodulation,
    setup_filter,
    squared_norms,
    style_epilogue,
    upsample_matrix,
)
from stylegan_ops.products import product, rows_times, sandwich

RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)


@dataclass(frozen=True)
class StyleGAN2Config:
    """Shape of a StyleGAN2 generator.

    Attributes:
        resolution: side of the images, a power of two from 8 up.
        z_dim, w_dim: widths of the two latent spaces.
        mapping_layers: depth of the mapping network.
        channels: width of the feature maps of sides 4, 8, ..., resolution.
        mapping_lr_multiplier: learning-rate multiplier of the mapping network.
    """

    resolution: int
    z_dim: int
    w_dim: int
    mapping_layers: int
    channels: tuple[int, ...]
    mapping_lr_multiplier: float = 0.01

    def __post_init__(self) -> None:
        check_description(self.to_json())
        levels = self.resolution.bit_length() - 2
        if self.resolution < 8 or 2 ** (levels + 1) != self.resolution:
            raise ValueError(f"resolution is {self.resolution}, expected a power of two from 8 up")
        if len(self.channels) != levels:
            raise ValueError(f"{len(self.channels)} widths for {levels} feature maps")
        if min(*self.channels, self.z_dim, self.w_dim, self.mapping_layers) < 1:
            raise ValueError(f"a width or a number of layers below 1 in {self}")

    @classmethod
    def from_base(
        cls,
        resolution: int,
        channel_base: int = 32768,
        channel_max: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
    ) -> StyleGAN2Config:
        """The official width rule, `min(channel_base / r, channel_max)`."""
        sides = [2**k for k in range(2, resolution.bit_length())]
        channels = tuple(min(channel_base // r, channel_max) for r in sides)
        return cls(resolution, w_dim, w_dim, mapping_layers, channels)

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the feature maps, 4 to the resolution."""
        return tuple(4 * 2**k for k in range(len(self.channels)))

    @property
    def num_ws(self) -> int:
        """How many style rows the generator takes: one per convolution and one for the last RGB."""
        return 2 * len(self.channels)

    def to_json(self) -> dict[str, object]:
        """The fields as plain JSON values."""
        return asdict(self) | {"channels": list(self.channels)}


class FullyConnected(nn.Module):
    """A linear layer with equalised learning rate, bias and activation."""

    matrix: Tensor | None
    shift: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full([out_features], float(bias_init)))
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.register_buffer("matrix", None, persistent=False)
        self.register_buffer("shift", None, persistent=False)

    def freeze(self) -> None:
        """Compute once what depends on the weight alone: from now on it must not change.

        From now on, also, the bits of a row do not depend on its place in the batch.
        """
        self.matrix = (self.weight.detach() * self.weight_gain).t().contiguous()
        self.shift = self.bias.detach() * self.bias_gain

    def forward(self, x: Tensor) -> Tensor:  # [N, in] -> [N, out]
        if self.matrix is not None:
            return bias_act(rows_times(x, self.matrix), self.shift, act=self.activation)
        weight, bias = self.weight * self.weight_gain, self.bias * self.bias_gain
        if self.activation == "linear":
            return torch.addmm(bias, x, weight.t())
        return bias_act(x @ weight.t(), bias, act=self.activation)


class MappingNetwork(nn.Module):
    """z to w: second-moment normalisation, then fully connected layers."""

    w_avg: Tensor

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.num_layers = config.mapping_layers
        width = config.z_dim
        for i in range(self.num_layers):
            layer = FullyConnected(width, config.w_dim, "lrelu", config.mapping_lr_multiplier)
            self.add_module(f"fc{i}", layer)
            width = config.w_dim
        self.register_buffer("w_avg", torch.zeros(config.w_dim))

    def forward(self, z: Tensor) -> Tensor:  # [N, z_dim] -> [N, D]
        x = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x

    def truncate(
        self, w: Tensor, num_ws: int, psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """Copy `w` `[N, D]` to all rows and pull the first `cutoff` of them towards the mean."""
        ws = w[:, None].expand(-1, num_ws, -1)
        if psi == 1:
            return ws
        pulled = self.w_avg.lerp(ws, psi)
        if cutoff is None:
            return pulled
        return torch.cat([pulled[:, :cutoff], ws[:, cutoff:]], dim=1)


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias and leaky ReLU.

    The input comes scaled by the styles of this layer, and the output can leave scaled by those of
    the next: modulation then costs no pass over memory of its own.
    """

    noise_const: Tensor
    taps: Tensor
    norms: Tensor | None

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, side: int, up: int = 1
    ) -> None:
        super().__init__()
        self.up = up
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(side, side))
        taps = torch.tensor(RESAMPLE_TAPS)
        # Zero insertion takes away a factor of two along each axis.
        self.register_buffer("taps", 2 * taps / taps.sum(), persistent=False)
        self.register_buffer("norms", None, persistent=False)

    def forward(
        self,
        scaled: Tensor,
        styles: Tensor,
        noise: Tensor | None,
        next_styles: Tensor | None,
        keep: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        """One layer.

        Args:
            scaled: the input times `styles`, `[N, I, r, r]`.
            styles: `affine` of the style row, `[N, I]`.
            noise: `[N or 1, 1, r', r']`, or None.
            next_styles: styles of the layer that follows, `[N, O]`, or None.
            keep: whether the unscaled output is wanted.

        Returns:
            The output `[N, O, r', r']` and the output times `next_styles`; None for what was not
            asked for.
        """
        if self.up == 1:
            x, taps = F.conv2d(scaled, self.weight, padding=1), None
        else:
            x = F.conv_transpose2d(scaled, self.weight.transpose(0, 1), stride=2)
            taps = self.taps
        strength = None if noise is None else self.noise_strength
        if self.norms is None:
            d = demodulation(squared_norms(self.weight), styles)
        else:
            d = demodulation(self.norms, styles, rows_times)
        return style_epilogue(x, d, self.bias, noise, strength, next_styles, taps, keep=keep)

    def freeze(self) -> None:
        """Compute once what depends on the weight alone: from now on it must not change."""
        self.norms = squared_norms(self.weight.detach()).contiguous()


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three channels, without demodulation."""

    def __init__(self, in_channels: int, w_dim: int) -> None:
        super().__init__()
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1)
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """`x` `[N, I, r, r]`, style row `w` `[N, D]` -> `[N, 3, r, r]`."""
        n, _, height, width = x.shape
        weight = (self.affine(w) * self.weight_gain)[:, None] * self.weight.flatten(1)  # [N, 3, I]
        # Per-sample weights are tiny here: one batched product instead of scaling all of x. Pixels
        # come first, so that its gradient lies in memory as x does, in channels_last order.
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        rgb = product(pixels, weight.transpose(1, 2)) + self.bias  # [N, HW, 3]
        return rgb.transpose(1, 2).reshape(n, 3, height, width)


class SynthesisBlock(nn.Module):
    """One resolution: the up-sampling convolution (above 4 px), a convolution, RGB."""

    upsample: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, side: int) -> None:
        super().__init__()
        self.side = side
        if in_channels:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, side, up=2)
        else:
            self.const = nn.Parameter(torch.randn(out_channels, side, side))
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, side)
        self.torgb = ToRGB(out_channels, w_dim)
        if in_channels:
            matrix = upsample_matrix(side // 2, setup_filter(RESAMPLE_TAPS))
            self.register_buffer("upsample", matrix, persistent=False)

    @property
    def layers(self) -> list[SynthesisLayer]:
        """The convolutions in the order in which they take style rows."""
        return [self.conv1] if self.side == 4 else [self.conv0, self.conv1]

    def start(self, styles: Tensor) -> Tensor:
        """The constant that the first block begins with, scaled: `[N, C, 4, 4]`."""
        scaled = self.const * styles[:, :, None, None]
        return scaled.contiguous(memory_format=torch.channels_last)

    def forward(
        self,
        scaled: Tensor,
        styles: Sequence[Tensor],
        noise: Sequence[Tensor | None],
        next_styles: Tensor | None,
        feature_delta: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Features of this block, and the scaled ones that the next block begins with.

        `styles` are those of the convolutions; `feature_delta` is added to the features before they
        go on.
        """
        for i, layer in enumerate(self.layers[:-1]):
            _, each = layer(scaled, styles[i], noise[i], styles[i + 1], keep=False)
            assert each is not None  # its styles were given
            scaled = each
        following = None if feature_delta is not None else next_styles
        x, after = self.layers[-1](scaled, styles[-1], noise[-1], following, keep=True)
        assert x is not None  # it was asked to keep it
        if feature_delta is not None:
            x = x + feature_delta
            after = None if next_styles is None else x * next_styles[:, :, None, None]
        return x, after

    def add_rgb(self, image: Tensor | None, x: Tensor, w: Tensor) -> Tensor:
        """The running image of the block before, up-sampled, plus the RGB of the features `x`."""
        rgb = self.torgb(x, w)
        # The running image stays in full precision, whatever the features are in.
        with torch.autocast(x.device.type, enabled=False):
            rgb = rgb.to(torch.promote_types(rgb.dtype, torch.float32))
            return rgb if image is None else sandwich(self.upsample, image, self.upsample.t()) + rgb


class SynthesisNetwork(Synthesis):
    """w to image.

    Attributes:
        recompute: keep no activations inside the blocks, compute them again going back.
    """

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__()
        self.sides = config.sides
        self.recompute = False
        in_channels = 0
        for side, out_channels in zip(self.sides, config.channels, strict=True):
            block = SynthesisBlock(in_channels, out_channels, config.w_dim, side)
            self.add_module(f"b{side}", block)
            in_channels = out_channels

    def forward(
        self,
        ws: Tensor,
        noise: Sequence[Tensor | None],
        feature_deltas: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        """Styles `[N, L, D]` and one noise map per convolution to `[N, 3, R, R]` around [-1, 1].

        Raises:
            ValueError: for another number of style rows or noise maps.
        """
        blocks = self.blocks
        rows = ws.unbind(dim=1)
        layers = [layer for block in blocks for layer in block.layers]
        if len(rows) != len(layers) + 1 or len(noise) != len(layers):
            raise ValueError(
                f"{len(rows)} style rows and {len(noise)} noise maps, "
                f"expected {len(layers) + 1} and {len(layers)}"
            )
        styles = [layer.affine(row) for layer, row in zip(layers, rows[:-1], strict=True)]
        image: Tensor | None = None
        scaled: Tensor | None = blocks[0].start(styles[0])
        first = 0
        for block in blocks:
            assert scaled is not None  # only the last block leaves none
            last = first + len(block.layers)
            next_styles = styles[last] if last < len(styles) else None
            feature_delta = None if feature_deltas is None else feature_deltas.get(block.side)
            inputs = (scaled, styles[first:last], noise[first:last], next_styles, feature_delta)
            if self.recompute:
                x, scaled = checkpoint(block, *inputs, use_reentrant=False)
            else:
                x, scaled = block(*inputs)
            # The RGB layer reads the row that the next block's first convolution reads too.
            image = block.add_rgb(image, x, rows[last])
            first = last
        assert image is not None  # a generator has at least two blocks
        return image


class Generator(StyleGenerator):
    """StyleGAN2: mapping network and synthesis network."""

    config: StyleGAN2Config

    def __init__(self, config: StyleGAN2Config) -> None:
        super().__init__(config, MappingNetwork(config), SynthesisNetwork(config))

    def forward(self, z: Tensor) -> Tensor:
        """`[N, z_dim]` to `[N, 3, R, R]` around [-1, 1], with the fixed noise maps."""
        ws = self.mapping.truncate(self.mapping(z), self.config.num_ws)
        return self.synthesis(ws, self.synthesis.fixed_noise())


class StyleGAN2Prior(StylePrior):
    """A frozen StyleGAN2 generator as a prior."""

    generator: Generator
