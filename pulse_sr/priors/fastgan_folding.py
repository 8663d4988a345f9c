"""FastGAN for a search: batch norm and spectral norm as part of plain convolutions.

Shapes: N images, D latent width, I O channels, r feature resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.priors.batch_norm import BatchNorm
from pulse_sr.priors.fastgan import FastGANConfig, FastGANGenerator, FastGANNetwork
from pulse_sr.priors.fastgan_layers import SpectralConv2d, glu, start_map, up_kernel
from stylegan_ops.products import rows_times


class FoldedStart(nn.Module):
    """Latent to the map of 4 px, batch norm inside."""

    def __init__(self, z_dim: int, out_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(z_dim, out_channels, 4, 4))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, z: Tensor) -> Tensor:
        return glu(start_map(z, self.weight, rows_times) + self.bias[:, None, None])


class FoldedConv2d(nn.Module):
    """3x3 convolution, bias, noise and GLU, with `up` after doubling the side."""

    kernel: Tensor | None

    def __init__(self, in_channels: int, out_channels: int, up: bool, noisy: bool) -> None:
        super().__init__()
        self.up = up
        self.weight = nn.Parameter(torch.zeros(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        # Folding scales the noise of each channel as it scales the channel.
        self.strength = nn.Parameter(torch.zeros(out_channels)) if noisy else None
        self.register_buffer("kernel", None, persistent=False)

    def forward(self, x: Tensor, noise: Tensor | None = None) -> Tensor:
        if self.up:
            kernel = up_kernel(self.weight) if self.kernel is None else self.kernel
            x = F.conv_transpose2d(x, kernel, self.bias, stride=2, padding=1)
        else:
            x = F.conv2d(x, self.weight, self.bias, padding=1)
        if self.strength is not None and noise is not None:
            x = x + (self.strength[:, None, None] * noise).to(x.dtype)
        return glu(x)

    def freeze(self) -> None:
        """Compute once what depends on the weight alone: from now on it must not change."""
        if self.up:
            kernel = up_kernel(self.weight.detach())
            self.kernel = kernel.contiguous(memory_format=torch.channels_last)


class FoldedBlock(nn.Module):
    """Double the side: one convolution, or two with noise."""

    def __init__(self, in_channels: int, out_channels: int, noisy: bool) -> None:
        super().__init__()
        self.conv0 = FoldedConv2d(in_channels, 2 * out_channels, True, noisy)
        if noisy:
            self.conv1 = FoldedConv2d(out_channels, 2 * out_channels, False, noisy)

    @property
    def layers(self) -> list[FoldedConv2d]:
        """The convolutions in their order."""
        return [self.conv0, self.conv1] if hasattr(self, "conv1") else [self.conv0]

    def forward(self, x: Tensor, noise: Sequence[Tensor | None]) -> Tensor:
        maps = noise or [None]
        for layer, each in zip(self.layers, maps, strict=True):
            x = layer(x, each)
        return x


class FoldedGate(nn.Module):
    """Skip-layer excitation with plain convolutions."""

    def __init__(self, low_channels: int, high_channels: int) -> None:
        super().__init__()
        self.weight0 = nn.Parameter(torch.zeros(high_channels, low_channels, 4, 4))
        self.weight1 = nn.Parameter(torch.zeros(high_channels, high_channels, 1, 1))

    def forward(self, low: Tensor) -> Tensor:
        x = F.conv2d(F.adaptive_avg_pool2d(low, 4), self.weight0)
        return torch.sigmoid(F.conv2d(F.silu(x), self.weight1))


class FoldedGenerator(FastGANNetwork):
    """FastGAN with every normalisation inside its convolutions, and noise maps of its own."""

    start, block, gate = FoldedStart, FoldedBlock, FoldedGate
    init: FoldedStart

    def __init__(self, config: FastGANConfig) -> None:
        super().__init__(config)
        width = config.channels[config.resolution]
        self.to_big = nn.Conv2d(width, 3, 3, padding=1, bias=config.projected)
        for i, shape in enumerate(config.noise_shapes):
            self.register_buffer(f"noise_{i}", torch.zeros(shape))

    def fixed_noise(self) -> list[Tensor]:
        """The noise maps that belong to the generator, `[1, 1, r, r]` each."""
        return [
            getattr(self, f"noise_{i}")[None, None] for i in range(len(self.config.noise_shapes))
        ]

    def freeze(self) -> None:
        """Compute once what depends on the weights alone: from now on they must not change."""
        for module in self.modules():
            if isinstance(module, FoldedConv2d):
                module.freeze()


@torch.no_grad()
def fold(generator: FastGANGenerator, seed: int = 0) -> FoldedGenerator:
    """The generator in evaluation mode as plain convolutions.

    Args:
        generator: its running statistics and spectral norms are taken as they stand.
        seed: of the fixed noise maps, which the training network does not have.

    Returns:
        A network of its own with weights of the same dtype, on the same device.
    """
    weight = generator.to_big.weight_orig
    folded = FoldedGenerator(generator.config).to(weight)
    conv, _, norm = generator.init.stage
    _fold_into(folded.init, conv, norm, transposed=True)
    for side in [*generator.config.channels][1:]:
        stages = getattr(generator, f"feat_{side}").stages
        layers = getattr(folded, f"feat_{side}").layers
        for (conv, noise, norm), layer in zip(stages, layers, strict=True):
            scale = _fold_into(layer, conv, norm)
            if noise is not None:
                layer.strength.copy_(noise.weight.double() * scale)
    for side in generator.config.gates:
        main, gate = getattr(generator, f"se_{side}").main, getattr(folded, f"se_{side}")
        gate.weight0.copy_(_normalised(main["1"]))
        gate.weight1.copy_(_normalised(main["3"]))
    folded.to_big.weight.copy_(_normalised(generator.to_big))
    rng = torch.Generator().manual_seed(seed)
    for each in folded.fixed_noise():
        each.copy_(torch.randn(each.shape, generator=rng))
    return folded


def _normalised(conv: SpectralConv2d) -> Tensor:
    """The weight over its spectral norm, float64."""
    u, v = conv.weight_u.double(), conv.columns().flatten().double()
    norm = torch.dot(u, conv.matrix().double() @ v)
    return conv.weight_orig.double() / norm


def _fold_into(
    target: FoldedStart | FoldedConv2d,
    conv: SpectralConv2d,
    norm: BatchNorm,
    transposed: bool = False,
) -> Tensor:
    """Weight and bias of a convolution followed by batch norm; returns the scale of each channel.

    Computed in float64: a channel that hardly varies is multiplied by a large number.
    """
    assert norm.running_mean is not None  # they are only None without tracking
    assert norm.running_var is not None
    scale = norm.weight.double() * (norm.running_var.double() + norm.eps).rsqrt()
    shape = (1, -1, 1, 1) if transposed else (-1, 1, 1, 1)
    target.weight.copy_(_normalised(conv) * scale.view(shape))
    target.bias.copy_(norm.bias.double() - norm.running_mean.double() * scale)
    return scale
