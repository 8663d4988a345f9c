"""FastGAN's networks as public PyTorch ports compute them: what our training step is measured with.

Functions of torch alone, one after the other, all tensors contiguous NCHW: pixels are repeated
before the convolution, and spectral norm does a power iteration in every forward pass. Written from
the paper (Liu et al., ICLR 2021) under the key names of our networks, whose weights are taken over.

Shapes: N images, D latent width, C I O channels, R resolution, r feature resolution, s small side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.priors.fastgan import FastGANConfig, FastGANGenerator
from pulse_sr.training.gan import fastgan_discriminator as shapes


class PlainNetwork:
    """The layers; batch norm takes the statistics of the batch.

    Attributes:
        config: shape of the generator.
        parameters: by name, leaves that take gradients, apart from those of ours.
        buffers: by name.
        advance: whether a forward pass does a power iteration.
    """

    def __init__(self, config: FastGANConfig, network: nn.Module) -> None:
        """Take over the weights of `network`."""
        self.config = config
        self.parameters = {
            name: value.detach().clone(memory_format=torch.contiguous_format).requires_grad_()
            for name, value in network.named_parameters()
        }
        self.buffers = {name: value.clone() for name, value in network.named_buffers()}
        self.advance = True

    def weight(self, name: str, transposed: bool = False) -> Tensor:
        """The weight over its spectral norm u' W v (Miyato et al., ICLR 2018, algorithm 1)."""
        weight, u, v = (
            self.parameters[f"{name}.weight_orig"],
            f"{name}.weight_u",
            f"{name}.weight_v",
        )
        matrix = (weight.transpose(0, 1) if transposed else weight).flatten(1)
        if self.advance:
            with torch.no_grad():
                self.buffers[v] = F.normalize(matrix.mT @ self.buffers[u], dim=0)
                self.buffers[u] = F.normalize(matrix @ self.buffers[v], dim=0)
        return weight / torch.dot(self.buffers[u], matrix @ self.buffers[v])

    def conv(self, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
        return F.conv2d(x, self.weight(name), stride=stride, padding=padding)

    def norm(self, name: str, x: Tensor) -> Tensor:
        mean, var = (self.buffers[f"{name}.running_{what}"] for what in ("mean", "var"))
        weight, bias = (self.parameters[f"{name}.{what}"] for what in ("weight", "bias"))
        return F.batch_norm(x, mean, var, weight, bias, training=True)

    def leaky(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2, inplace=True)

    def up(self, name: str, x: Tensor, noise: Sequence[Tensor] = ()) -> Tensor:
        """Repeat pixels, convolution, batch norm, GLU; with noise a second convolution."""
        x = self.conv(f"{name}.1", F.interpolate(x, scale_factor=2), padding=1)
        if not noise:
            return F.glu(self.norm(f"{name}.2", x), dim=1)
        x = x + self.parameters[f"{name}.2.weight"] * noise[0]
        x = self.conv(f"{name}.5", F.glu(self.norm(f"{name}.3", x), dim=1), padding=1)
        x = x + self.parameters[f"{name}.6.weight"] * noise[1]
        return F.glu(self.norm(f"{name}.7", x), dim=1)

    def gate(self, name: str, low: Tensor) -> Tensor:
        """Skip-layer excitation: factors `[N, O, 1, 1]` from a small map."""
        x = F.silu(self.conv(f"{name}.main.1", F.adaptive_avg_pool2d(low, 4)))
        return torch.sigmoid(self.conv(f"{name}.main.3", x))

    def halve(self, name: str, x: Tensor) -> Tensor:
        """Convolution of stride 2, batch norm, leaky ReLU."""
        x = self.conv(f"{name}.0", x, stride=2, padding=1)
        return self.leaky(self.norm(f"{name}.1", x))

    def halve_two_ways(self, name: str, x: Tensor) -> Tensor:
        """The mean of two convolutions and of a pooled 1x1 one."""
        main = self.conv(f"{name}.main.3", self.halve(f"{name}.main", x), padding=1)
        direct = self.conv(f"{name}.direct.1", F.avg_pool2d(x, 2))
        main = self.leaky(self.norm(f"{name}.main.4", main))
        return (main + self.leaky(self.norm(f"{name}.direct.2", direct))) / 2


class PlainGenerator(PlainNetwork):
    """Latents and noise maps to two images."""

    def __init__(self, network: FastGANGenerator) -> None:
        super().__init__(network.config, network)

    def __call__(self, z: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """`[N, D]` and a map per entry of `config.noise_shapes` to `[N, 3, R, R]` and small."""
        start = self.weight("init.init.0", transposed=True)
        x = F.conv_transpose2d(z[:, :, None, None], start)
        x = F.glu(self.norm("init.init.1", x), dim=1)
        maps, noises = {4: x}, iter(noise)
        for side in [*self.config.channels][1:]:
            name = f"feat_{side}"
            noisy = f"{name}.7.weight" in self.parameters
            x = self.up(name, x, [next(noises), next(noises)] if noisy else ())
            if side in self.config.gates:
                x = x * self.gate(f"se_{side}", maps[self.config.gates[side]])
            maps[side] = x
        side = self.config.small_side
        small, big = self.conv(f"to_{side}", maps[side]), self.conv("to_big", x, padding=1)
        return (torch.tanh(big), torch.tanh(small)) if self.config.bounded else (big, small)


class PlainJudgement(NamedTuple):
    """Logits `[N, 50]`, and what the decoders made of whole, small image and quarter, if asked."""

    logits: Tensor
    decoded: tuple[Tensor, ...]


class PlainDiscriminator(PlainNetwork):
    """Two images to logits, and to reconstructions."""

    def __call__(self, big: Tensor, small: Tensor, part: int | None = None) -> PlainJudgement:
        """Judge `[N, 3, R, R]` and `[N, 3, s, s]`; with `part` decode them and that quarter too."""
        first = max(2, 512 // self.config.resolution)
        maps = {first: self._from_big(big)}
        for level in (level for level in (4, 8, 16, 32, 64) if level > first):
            x = self.halve_two_ways(f"down_{level}", maps[level // 2])
            low = shapes.GATES.get(level, 0)
            maps[level] = x * self.gate(f"se_{low}_{level}", maps[low]) if low in maps else x
        x = self.leaky(self.norm("rf_big.1", self.conv("rf_big.0", maps[64])))
        on_big = self.conv("rf_big.3", x).flatten(1)
        low_res = self.leaky(self.conv("down_from_small.0", small, stride=2, padding=1))
        for place in range((self.config.small_side // 16).bit_length() - 1):
            low_res = self.halve(f"down_from_small.{2 + place}.main", low_res)
        logits = torch.cat([on_big, self.conv("rf_small", low_res).flatten(1)], dim=1)
        if part is None:
            return PlainJudgement(logits, ())
        quarter = self._decode("decoder_part", quarter_of(maps[32], part))
        whole, small = self._decode("decoder_big", maps[64]), self._decode("decoder_small", low_res)
        return PlainJudgement(logits, (whole, small, quarter))

    def _from_big(self, big: Tensor) -> Tensor:
        if self.config.resolution < 512:
            return self.leaky(self.conv("down_from_big.0", big, padding=1))
        x = self.leaky(self.conv("down_from_big.0", big, stride=2, padding=1))
        if self.config.resolution == 512:
            return x
        x = self.conv("down_from_big.2", x, stride=2, padding=1)
        return self.leaky(self.norm("down_from_big.3", x))

    def _decode(self, name: str, x: Tensor) -> Tensor:
        """A map of 8 px to an image of side s in [-1, 1]."""
        x, blocks = F.adaptive_avg_pool2d(x, 8), (self.config.small_side // 8).bit_length() - 1
        for place in range(blocks):
            x = self.up(f"{name}.main.{place + 1}", x)
        return torch.tanh(self.conv(f"{name}.main.{blocks + 1}", x, padding=1))


def quarter_of(x: Tensor, part: int) -> Tensor:
    """A quarter of maps `[N, C, r, r]`: 0 top left, 1 top right, 2 bottom left, 3 bottom right."""
    half = x.shape[2] // 2
    top, left = half * (part // 2), half * (part % 2)
    return x[:, :, top : top + half, left : left + half]
