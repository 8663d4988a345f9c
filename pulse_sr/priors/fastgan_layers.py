"""The layers of FastGAN's training networks: spectral norm, gated up-sampling, skip excitation.

Liu et al., "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis",
ICLR 2021; spectral norm: Miyato et al., ICLR 2018. The numbers in the names of modules are those of
the public checkpoints, so that importing one is renaming its keys.

Shapes: N images, C I O channels, r feature resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.priors.batch_norm import BatchNorm

#: Power iterations of a new layer; from then on one per update of the weights keeps up.
FIRST_ITERATIONS = 5
#: From how many input pixels in a batch on up-sampling is one convolution (measured on a CPU with
#: 64 to 1024 channels: twice as fast at 128 px, three times slower at 4 px, equal near 8 px).
FOLD_PIXELS = 1024


class SpectralConv2d(nn.Module):
    """Convolution without bias whose weight is divided by its spectral norm `sigma = u' W v`.

    `weight_u` and `weight_v` change in `advance` alone, never in `forward`: running the same
    features twice gives the same result.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(
        self, in_channels: int, out_channels: int, size: int, stride: int = 1, padding: int = 0
    ) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        self.weight_orig = nn.Parameter(self.new_weight(in_channels, out_channels, size))
        nn.init.normal_(self.weight_orig, 0.0, 0.02)
        rows, columns = self.matrix().shape
        self.register_buffer("weight_u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("weight_v", F.normalize(torch.randn(columns), dim=0))
        for _ in range(FIRST_ITERATIONS):
            self.advance()

    def new_weight(self, in_channels: int, out_channels: int, size: int) -> Tensor:
        """An empty weight; its layout differs for transposed convolutions."""
        return torch.empty(out_channels, in_channels, size, size)

    def matrix(self) -> Tensor:
        """The weight as the matrix `[O, size^2 * I]` whose norm is meant.

        Its columns are in channels_last order, in which the weight of a training network lies, so
        that nothing is copied; those of `weight_v` are not, as in the public checkpoints.
        """
        return self.weight_orig.permute(0, 2, 3, 1).flatten(1)

    def columns(self) -> Tensor:
        """A view of `weight_v` in the shape `[size, size, I]` of the columns of `matrix`."""
        size = self.weight_orig.shape[2:]
        return self.weight_v.view(-1, *size).permute(1, 2, 0)

    @torch.no_grad()
    def advance(self) -> None:
        """One power iteration: `v = W' u`, `u = W v`, each brought to unit length."""
        matrix, columns = self.matrix(), self.columns()
        v = F.normalize(matrix.t() @ self.weight_u, dim=0, eps=1e-12)
        columns.copy_(v.view(columns.shape))
        self.weight_u.copy_(F.normalize(matrix @ v, dim=0, eps=1e-12))

    @property
    def weight(self) -> Tensor:
        """`weight_orig / sigma`, in the precision of the parameters."""
        # The vectors are copied: the next power iteration may come before the backward pass.
        u, v = self.weight_u.clone(), self.columns().flatten().clone()
        with torch.autocast(u.device.type, enabled=False):
            return self.weight_orig / torch.dot(u, self.matrix() @ v)

    def forward(self, x: Tensor) -> Tensor:  # [N, I, r, r] -> [N, O, r', r']
        return F.conv2d(x, self.weight, stride=self.stride, padding=self.padding)


def advance_spectral_norm(network: nn.Module) -> None:
    """One power iteration in every spectral-normalised layer: once per update of its weights."""
    for module in network.modules():
        if isinstance(module, SpectralConv2d):
            module.advance()


def up_kernel(weight: Tensor) -> Tensor:
    """The 4x4 kernel of stride 2 that doubles by repeating pixels and then convolves by a 3x3 one.

    Repeating pixels is a 2x2 box after zero insertion, and two convolutions are one: 16 products
    per input pixel instead of 36, and no enlarged map in memory.

    Args:
        weight: `[O, I, 3, 3]`.

    Returns:
        `[I, O, 4, 4]`, for `conv_transpose2d` with stride 2 and padding 1.
    """
    outputs, inputs = weight.shape[:2]
    taps = weight.flip(2, 3).transpose(0, 1).reshape(inputs * outputs, 9)
    # Row i of the 4x4 kernel holds rows i - 1 and i of the 3x3 one; a product, since pooling and
    # its backward pass take several times as long on a CPU.
    pairs = taps.new_tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]])
    return (taps @ torch.kron(pairs, pairs).t()).view(inputs, outputs, 4, 4)


class SpectralUpConv2d(SpectralConv2d):
    """Repeat pixels to double the side, then a 3x3 convolution.

    In one convolution (`up_kernel`) where the maps are large enough to pay for making its kernel.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:  # [N, I, r, r] -> [N, O, 2r, 2r]
        if len(x) * x.shape[2] * x.shape[3] < FOLD_PIXELS:
            return F.conv2d(F.interpolate(x, scale_factor=2), self.weight, padding=1)
        return F.conv_transpose2d(x, up_kernel(self.weight), stride=2, padding=1)


class SpectralStart(SpectralConv2d):
    """A latent to the first feature map of 4 px: a transposed convolution of one pixel."""

    def __init__(self, z_dim: int, out_channels: int) -> None:
        super().__init__(z_dim, out_channels, 4)

    def new_weight(self, in_channels: int, out_channels: int, size: int) -> Tensor:
        return torch.empty(in_channels, out_channels, size, size)

    def matrix(self) -> Tensor:
        return self.weight_orig.permute(1, 2, 3, 0).flatten(1)

    def forward(self, x: Tensor) -> Tensor:  # [N, D] -> [N, O, 4, 4]
        return start_map(x, self.weight)


def start_map(
    z: Tensor, weight: Tensor, multiply: Callable[[Tensor, Tensor], Tensor] = torch.matmul
) -> Tensor:
    """Latents `[N, D]` by `weight` `[D, O, 4, 4]` to `[N, O, 4, 4]` in channels_last order."""
    x = multiply(z, weight.flatten(1)).unflatten(1, weight.shape[1:])
    return x.contiguous(memory_format=torch.channels_last)


def glu(x: Tensor) -> Tensor:
    """Gated linear unit, `[N, 2C, r, r]` to `[N, C, r, r]`: values times sigmoid of the gates."""
    # The halves multiplied by hand: F.glu takes twice as long on a CPU in channels_last order.
    values, gates = x.chunk(2, dim=1)
    return values * torch.sigmoid(gates)


class Noise(nn.Module):
    """Add a given noise map times a learned scalar that starts at zero."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        return x + (self.weight * noise).to(x.dtype)


Stage = tuple[SpectralConv2d, Noise | None, BatchNorm]


class UpBlock(nn.Module):
    """Double the side: convolution, noise where `noisy`, batch norm, GLU.

    With noise a second convolution, noise, batch norm and GLU follow.
    """

    def __init__(self, in_channels: int, out_channels: int, noisy: bool = False) -> None:
        super().__init__()
        self.noisy = noisy
        self.add_module("1", SpectralUpConv2d(in_channels, 2 * out_channels))
        if not noisy:
            self.add_module("2", BatchNorm(2 * out_channels))
            return
        self.add_module("2", Noise())
        self.add_module("3", BatchNorm(2 * out_channels))
        self.add_module("5", SpectralConv2d(out_channels, 2 * out_channels, 3, padding=1))
        self.add_module("6", Noise())
        self.add_module("7", BatchNorm(2 * out_channels))

    @property
    def stages(self) -> list[Stage]:
        """Convolution, noise and batch norm of each half."""
        each = self._modules
        if not self.noisy:
            return [(each["1"], None, each["2"])]  # type: ignore[list-item]
        return [(each["1"], each["2"], each["3"]), (each["5"], each["6"], each["7"])]  # type: ignore[list-item]

    def forward(self, x: Tensor, noise: Sequence[Tensor] = ()) -> Tensor:
        """`[N, I, r, r]` and one map `[N or 1, 1, 2r, 2r]` per stage with noise, to 2r."""
        maps = iter(noise)
        for conv, inject, norm in self.stages:
            x = conv(x)
            if inject is not None:
                x = inject(x, next(maps))
            x = glu(norm(x))
        return x


class SkipExcitation(nn.Module):
    """Skip-layer excitation: a gate for the channels of a large map, from a small one.

    Liu et al., section 3.1, equation 2.
    """

    def __init__(self, low_channels: int, high_channels: int) -> None:
        super().__init__()
        self.main = nn.ModuleDict(
            {
                "1": SpectralConv2d(low_channels, high_channels, 4),
                "3": SpectralConv2d(high_channels, high_channels, 1),
            }
        )

    def forward(self, low: Tensor) -> Tensor:
        """The small map `[N, I, r, r]` to factors `[N, O, 1, 1]` in (0, 1)."""
        pooled = F.adaptive_avg_pool2d(low, 4)
        return torch.sigmoid(self.main["3"](F.silu(self.main["1"](pooled))))
