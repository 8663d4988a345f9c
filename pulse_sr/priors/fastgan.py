"""The FastGAN generator: gated up-sampling blocks and skip-layer excitation, without a mapping.

Liu et al., "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis",
ICLR 2021, with the layer widths and the key names of the public checkpoints. Those end at 256 px
downwards; here 128 and 64 px leave out the blocks above, with the gates that end there.

Shapes: N images, K latents an image, D latent width, C channels, r feature resolution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from pulse_sr.files.documents import check_description
from pulse_sr.priors.batch_norm import BatchNorm
from pulse_sr.priors.fastgan_layers import (
    SkipExcitation,
    SpectralConv2d,
    SpectralStart,
    Stage,
    UpBlock,
    glu,
)

#: Width of the feature map of each side, in units of `ngf`.
WIDTHS = {4: 16, 8: 8, 16: 4, 32: 2, 64: 2, 128: 1, 256: 0.5, 512: 0.25, 1024: 0.125}
#: Sides whose block has two convolutions and noise.
NOISY_SIDES = (8, 32, 128, 512)
VARIANTS = ("published", "projected", "projected-lite")
#: A gate for the map of a side, and the side it is computed from.
GATES = {64: 4, 128: 8, 256: 16, 512: 32}


@dataclass(frozen=True)
class FastGANConfig:
    """Shape of a FastGAN generator.

    Attributes:
        resolution: side of the images, a power of two from 64 to 1024.
        ngf: width of the feature map of 128 px; the others follow from it (`WIDTHS`).
        z_dim: width of the latent.
        variant: "published", or those of Sauer et al., "Projected GANs Converge Faster", NeurIPS
            2021: "projected" has two convolutions and noise at all sides, "projected-lite" nowhere;
            both bring the latent to unit second moment first and have a bias in the last layer.
    """

    resolution: int
    ngf: int = 64
    z_dim: int = 256
    variant: str = "published"

    def __post_init__(self) -> None:
        check_description(asdict(self))
        if self.resolution not in (64, 128, 256, 512, 1024):
            raise ValueError(f"resolution is {self.resolution}, expected 64, 128, 256, 512 or 1024")
        if self.variant not in VARIANTS:
            raise ValueError(f"variant is {self.variant!r}, expected one of {', '.join(VARIANTS)}")
        if min(self.channels.values()) < 1 or self.z_dim < 1:
            raise ValueError(f"a width below 1 in {self}")

    @property
    def channels(self) -> dict[int, int]:
        """Width of the feature maps of sides 4, 8, ..., resolution."""
        return {r: int(w * self.ngf) for r, w in WIDTHS.items() if r <= self.resolution}

    @property
    def noisy_sides(self) -> tuple[int, ...]:
        """The sides of this resolution whose block has two convolutions and noise."""
        sides = {"published": NOISY_SIDES, "projected": [*WIDTHS][1:], "projected-lite": ()}
        return tuple(r for r in sides[self.variant] if r <= self.resolution)

    @property
    def projected(self) -> bool:
        """Whether the latent is normalised and the last layer has a bias."""
        return self.variant != "published"

    @property
    def gates(self) -> dict[int, int]:
        """The gates of this resolution, as `GATES` has them."""
        return {high: low for high, low in GATES.items() if high <= self.resolution}

    @property
    def num_ws(self) -> int:
        """How many style rows a search has: one for the trunk and one per gate."""
        return 1 + len(self.gates)

    @property
    def noise_shapes(self) -> tuple[tuple[int, int], ...]:
        """`(r, r)` of every noise map in the order of the layers, two per noisy block."""
        return tuple((r, r) for r in self.noisy_sides for _ in range(2))

    @property
    def small_side(self) -> int:
        """Side of the second image, which the discriminator sees too.

        128 px as published, but half of the resolution where that is less.
        """
        return min(128, self.resolution // 2)

    @property
    def bounded(self) -> bool:
        """Whether images end in a hyperbolic tangent; in the published networks at 1024 px only."""
        return self.resolution == 1024 and not self.projected

    def to_json(self) -> dict[str, object]:
        """The fields as plain JSON values."""
        plain = asdict(self)
        if not self.projected:  # as files have it from before there were variants
            del plain["variant"]
        return plain


class FastGANNetwork(nn.Module):
    """How the blocks are wired, for the training network and for the folded one.

    Attributes:
        start: makes the layer from latents `[N, D]` to a map of 4 px.
        block: makes a block from a map of side r and noise maps to a map of side 2r.
        gate: makes a gate from a map to factors `[N, C, 1, 1]`.
        recompute: keep no activations inside the blocks, compute them again going back.
    """

    start: Callable[[int, int], nn.Module]
    block: Callable[[int, int, bool], nn.Module]
    gate: Callable[[int, int], nn.Module]

    def __init__(self, config: FastGANConfig) -> None:
        super().__init__()
        self.config = config
        self.recompute = False
        widths = config.channels
        self.init = self.start(config.z_dim, 2 * widths[4])
        for low, high in zip(widths, [*widths][1:], strict=False):
            block = self.block(widths[low], widths[high], high in config.noisy_sides)
            self.add_module(f"feat_{high}", block)
        for high, low in config.gates.items():
            self.add_module(f"se_{high}", self.gate(widths[low], widths[high]))

    def features(
        self,
        latents: Tensor,
        noise: Sequence[Tensor],
        feature_deltas: Mapping[int, Tensor] | None = None,
    ) -> Iterator[tuple[int, Tensor]]:
        """The feature maps of the trunk from 4 px up, `(r, [N, C, r, r])` each.

        Args:
            latents: `[1, N, D]`, one latent an image; or `[K, N, D]` with the latent of the trunk
                first and then one per gate, the gate of the largest side first. Each gate is then
                computed by a trunk of its own, which runs only as far up as the gate begins.
            noise: one map `[N or 1, 1, r, r]` per entry of `noise_shapes`, for all latents.
            feature_deltas: added to the maps of side r, of every trunk, `{r: [N or 1, C, r, r]}`.
                They come after the gate of that side and before the gates that begin there.
        """
        count, n = latents.shape[:2]
        z = latents.flatten(0, 1)
        if self.config.projected:
            z = z * (z.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        x = self.init(z)
        starts = {low: high for high, low in self.config.gates.items()}
        gates: dict[int, Tensor] = {}
        maps = iter(noise)
        for side in self.config.channels:
            if side > 4:
                count_here = 2 if side in self.config.noisy_sides else 0
                own = [_repeat(next(maps), len(x) // n) for _ in range(count_here)]
                x = self._run(getattr(self, f"feat_{side}"), x, own)
            if side in gates:
                x = x * gates[side]
            if feature_deltas is not None and side in feature_deltas:
                x = x + _repeat(feature_deltas[side], len(x) // n)
            if side in starts:
                high = starts[side]
                gates[high] = getattr(self, f"se_{high}")(x if count == 1 else x[-n:])
                x = x if count == 1 else x[:-n]
            yield side, x

    def _run(self, block: nn.Module, *inputs: Any) -> Tensor:
        if self.recompute:
            return checkpoint(block, *inputs, use_reentrant=False)  # type: ignore[no-any-return]
        return block(*inputs)  # type: ignore[no-any-return]


def _repeat(x: Tensor, times: int) -> Tensor:
    """The images of a batch again for each of the latents; one for all stays as it is."""
    return x if times == 1 or len(x) == 1 else x.repeat(times, 1, 1, 1)


class Start(nn.Module):
    """Latent, batch norm and GLU to the map of 4 px."""

    def __init__(self, z_dim: int, out_channels: int) -> None:
        super().__init__()
        self.init = nn.Sequential(SpectralStart(z_dim, out_channels), BatchNorm(out_channels))

    @property
    def stage(self) -> Stage:
        """Convolution, noise (none) and batch norm."""
        conv, norm = self.init
        return conv, None, norm  # type: ignore[return-value]

    def forward(self, z: Tensor) -> Tensor:
        return glu(self.init(z))


class FastGANGenerator(FastGANNetwork):
    """The training network: spectral norm, batch norm, and two images."""

    start, block, gate = Start, UpBlock, SkipExcitation
    init: Start

    def __init__(self, config: FastGANConfig) -> None:
        super().__init__(config)
        widths, small = config.channels, config.small_side
        self.add_module(f"to_{small}", SpectralConv2d(widths[small], 3, 1))
        self.to_big = SpectralConv2d(widths[config.resolution], 3, 3, padding=1)

    def forward(self, z: Tensor, noise: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Latents to images.

        Args:
            z: `[N, D]`, standard normal.
            noise: one map `[N or 1, 1, r, r]` per entry of `config.noise_shapes`.

        Returns:
            The image `[N, 3, R, R]` and a small one of `config.small_side`, around [-1, 1].

        Raises:
            ValueError: for another number of noise maps.
        """
        if len(noise) != len(self.config.noise_shapes):
            raise ValueError(f"{len(noise)} noise maps, expected {len(self.config.noise_shapes)}")
        side = self.config.small_side
        small = x = z
        for reached, x in self.features(z[None], noise):
            if reached == side:
                small = getattr(self, f"to_{side}")(x)
        big: Tensor = self.to_big(x)
        return (torch.tanh(big), torch.tanh(small)) if self.config.bounded else (big, small)
