"""What the StyleGAN family shares: a mapping, a synthesis by style rows, and the prior of both.

Shapes: N images, L style rows, D latent width, C channels, r feature resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.priors.base import LatentStatistics, Prior


class Synthesis(nn.Module):
    """What the synthesis networks of the StyleGAN family share.

    Attributes:
        sides: of the blocks in px; the block of side r is the module `b<r>`, with its `layers`.
    """

    sides: tuple[int, ...]

    @property
    def blocks(self) -> list[Any]:
        """The blocks from 4 px up."""
        return [getattr(self, f"b{side}") for side in self.sides]

    def fixed_noise(self) -> list[Tensor | None]:
        """The noise maps that belong to the generator, `[1, 1, r, r]` each."""
        return [layer.noise_const[None, None] for block in self.blocks for layer in block.layers]


class StyleGenerator(nn.Module):
    """A mapping network and a synthesis network."""

    config: Any
    mapping: Any
    synthesis: Any

    def __init__(self, config: Any, mapping: nn.Module, synthesis: Synthesis) -> None:
        super().__init__()
        self.config, self.mapping, self.synthesis = config, mapping, synthesis

    @property
    def noise_shapes(self) -> tuple[tuple[int, int], ...]:
        """Shapes of the noise maps in the order of the layers."""
        blocks = self.synthesis.blocks
        return tuple((block.side, block.side) for block in blocks for _ in block.layers)


class StylePrior(Prior):
    """A frozen generator of the StyleGAN family: a mapping, and a synthesis by style rows.

    Convolution weights lie in channels_last order, which measures 2 to 4 times faster on a CPU.
    """

    def __init__(
        self,
        name: str,
        generator: Any,
        statistics: LatentStatistics,
        card: dict[str, object] | None = None,
        sha256: str = "",
    ) -> None:
        config = generator.config
        generator = generator.eval().requires_grad_(False)
        self.generator = generator.to(memory_format=torch.channels_last)
        for module in self.generator.modules():
            freeze = getattr(module, "freeze", None)
            if freeze is not None:
                freeze()
        super().__init__(
            name=name,
            resolution=config.resolution,
            num_ws=config.num_ws,
            latent_dim=config.w_dim,
            noise_shapes=generator.noise_shapes,
            statistics=statistics,
            card=card or {},
            sha256=sha256,
        )

    @property
    def device(self) -> torch.device:
        device: torch.device = self.generator.mapping.w_avg.device
        return device

    @property
    def z_dim(self) -> int:
        return int(self.generator.config.z_dim)

    def map(self, z: Tensor) -> Tensor:
        w: Tensor = self.generator.mapping(z)
        return w

    def synthesize(
        self,
        w: Tensor,
        noise: Sequence[Tensor] | None = None,
        feature_deltas: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        synthesis = self.generator.synthesis
        maps = synthesis.fixed_noise() if noise is None else noise
        for side in feature_deltas or ():
            self.feature_shape(side)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            image: Tensor = synthesis(w, maps, feature_deltas)
        return image.float() * 0.5 + 0.5

    def feature_shape(self, side: int) -> tuple[int, int, int]:
        sides = self.generator.config.sides
        if side not in sides:
            raise ValueError(f"no feature map of side {side}, expected one of {sides}")
        return self.generator.config.channels[sides.index(side)], side, side
