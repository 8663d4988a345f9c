"""FastGAN as a prior: latents are the style rows.

FastGAN has no mapping and so no style space: `map` is the identity on z. To give a search more
than one latent, each skip-layer-excitation gate can be computed from a latent of its own: row 0
drives the trunk, row k the gate of the k-th smallest side, by a low-res trunk of its own. Equal
rows give exactly the plain generator.

Shapes: S samples, L style rows, D latent width, R resolution, r feature resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pulse_sr.priors.base import LatentStatistics, Prior
from pulse_sr.priors.fastgan_folding import FoldedGenerator


class FastGANPrior(Prior):
    """A frozen FastGAN generator as a prior; weights lie in channels_last order."""

    def __init__(
        self,
        name: str,
        generator: FoldedGenerator,
        statistics: LatentStatistics,
        card: dict[str, object] | None = None,
        sha256: str = "",
    ) -> None:
        config = generator.config
        generator = generator.eval().requires_grad_(False)
        self.generator = generator.to(memory_format=torch.channels_last)
        self.generator.freeze()
        super().__init__(
            name=name,
            resolution=config.resolution,
            num_ws=config.num_ws,
            latent_dim=config.z_dim,
            noise_shapes=config.noise_shapes,
            statistics=statistics,
            card=card or {},
            sha256=sha256,
        )

    @property
    def device(self) -> torch.device:
        return self.generator.to_big.weight.device

    def map(self, z: Tensor) -> Tensor:
        return z

    def synthesize(
        self,
        w: Tensor,
        noise: Sequence[Tensor] | None = None,
        feature_deltas: Mapping[int, Tensor] | None = None,
    ) -> Tensor:
        if w.shape[1] != self.num_ws:
            raise ValueError(f"{w.shape[1]} style rows, expected {self.num_ws}")
        maps = self.generator.fixed_noise() if noise is None else noise
        if len(maps) != len(self.noise_shapes):
            raise ValueError(f"{len(maps)} noise maps, expected {len(self.noise_shapes)}")
        for side in feature_deltas or ():
            self.feature_shape(side)
        config = self.generator.config
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            for _, x in self.generator.features(_latents(w), maps, feature_deltas):
                image = x
            image = self.generator.to_big(image)
        image = torch.tanh(image.float()) if config.bounded else image.float()
        return image * 0.5 + 0.5

    def feature_shape(self, side: int) -> tuple[int, int, int]:
        channels = self.generator.config.channels
        if side not in channels:
            raise ValueError(f"no feature map of side {side}, expected one of {tuple(channels)}")
        return channels[side], side, side


def _latents(w: Tensor) -> Tensor:
    """Style rows `[S, L, D]` in the order of `FastGANNetwork.features`, `[K, S, D]`.

    Rows that are one row repeated by `expand` need but one trunk.
    """
    trunk, *gates = w.unbind(dim=1)
    if w.stride(1) == 0 or not gates:
        return trunk[None]
    return torch.stack([trunk, *reversed(gates)])
