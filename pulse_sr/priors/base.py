"""What the search needs to know of a prior, whatever network stands behind it.

Shapes: S samples, L style rows, D latent width, R resolution, r feature resolution.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch

#: Slope of the leaky ReLU that a StyleGAN2 mapping ends in.
STYLEGAN2_SLOPE = 0.2


@dataclass(frozen=True)
class LatentStatistics:
    """A Gaussian fitted to the styles before the mapping's last activation, a leaky ReLU.

    PULSE (Menon et al., CVPR 2020, section 3.3) keeps the deviations alone; the Cholesky factor of
    the whole covariance stands beside them.

    Attributes:
        mean: `[D]` float32.
        std: `[D]` float32, deviation of each dimension.
        cholesky: `[D, D]` float32, lower triangular, `cholesky @ cholesky.T` is the covariance.
        count: how many samples it was fitted to; 0 where it is exact.
        slope: of the last activation; 1 for none.
    """

    mean: torch.Tensor
    std: torch.Tensor
    cholesky: torch.Tensor
    count: int
    slope: float = STYLEGAN2_SLOPE


@dataclass(frozen=True, eq=False)
class SeedBank:
    """Thumbnails of the samples of a range of seeds.

    Attributes:
        first_seed: the samples are those of `first_seed`, `first_seed + 1`, ...
        thumbnails: uint8 `[N, 3, s, s]` on the CPU, area means of the samples in [0, 1], times 255.
    """

    first_seed: int
    thumbnails: torch.Tensor

    def latents(self, indices: torch.Tensor, z_dim: int) -> torch.Tensor:
        """The inputs of `Prior.map` of the samples `indices` `[K]`, `[K, z_dim]` on the CPU."""
        seeds = [self.first_seed + index for index in indices.tolist()]
        return torch.stack([standard_normal(seed, (z_dim,)) for seed in seeds])


@dataclass
class Prior(ABC):
    """A generator of natural images with its latent statistics.

    Attributes:
        name: short name, part of every report.
        resolution: R, the side of the images.
        num_ws: L, how many style rows the generator takes.
        latent_dim: D, the width of a row.
        noise_shapes: `(r, r)` of every noise map, in the order of the layers.
        statistics: the Gaussian of the latent space.
        card: architecture, licence, data, training log: what `prior info` prints.
        sha256: of the file that the prior was read from; empty for one that lives in memory.
        bf16: synthesize in bfloat16 autocast; the image is float32 all the same.
        file: that the prior was read from; None for one that lives in memory.
        bank: its seed bank once it was asked for (`pulse_sr.priors.bank.bank_of`).
    """

    name: str
    resolution: int
    num_ws: int
    latent_dim: int
    noise_shapes: tuple[tuple[int, int], ...]
    statistics: LatentStatistics
    card: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    bf16: bool = False
    file: Path | None = None
    bank: SeedBank | None = field(default=None, repr=False, compare=False)

    @property
    @abstractmethod
    def device(self) -> torch.device:
        """The device of the weights."""

    @property
    def z_dim(self) -> int:
        """Width of the input of `map`."""
        return self.latent_dim

    @abstractmethod
    def map(self, z: torch.Tensor) -> torch.Tensor:
        """Map `z` `[S, z_dim]`, standard normal, to styles `[S, D]`."""

    @abstractmethod
    def synthesize(
        self,
        w: torch.Tensor,
        noise: Sequence[torch.Tensor] | None = None,
        feature_deltas: Mapping[int, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Generate images from styles.

        Args:
            w: styles `[S, L, D]`.
            noise: one map `[S or 1, 1, r, r]` per entry of `noise_shapes`; None: the fixed maps
                that belong to the prior.
            feature_deltas: added to the feature map of side r, `{r: [S, C, r, r]}`
                (`feature_shape`).

        Returns:
            `[S, 3, R, R]` float32; the natural range is [0, 1], values may overshoot.
        """

    @abstractmethod
    def feature_shape(self, side: int) -> tuple[int, int, int]:
        """`(C, r, r)` of the feature map that `synthesize(feature_deltas={side: ...})` adds to.

        Raises:
            ValueError: when the generator has no feature map of that side.
        """

    def in_precision(self, *, bf16: bool) -> Self:
        """This prior where `bf16` is so already, else a view of it that has the same weights."""
        if bf16 == self.bf16:
            return self
        view = copy.copy(self)
        view.bf16 = bf16
        return view

    def sample(self, seeds: Sequence[int]) -> torch.Tensor:
        """Uncurated images `[S, 3, R, R]` in [0, 1], each of its own seed alone."""
        z = torch.stack([standard_normal(seed, (self.z_dim,)) for seed in seeds])
        with torch.no_grad():
            w = self.map(z.to(self.device))
            return self.synthesize(w[:, None].expand(-1, self.num_ws, -1)).clamp(0, 1)


def standard_normal(seed: int, shape: Sequence[int]) -> torch.Tensor:
    """Standard normal float32 of `shape`, drawn on the CPU by a generator of its own."""
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed))
