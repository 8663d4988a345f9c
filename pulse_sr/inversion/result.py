"""What a search returns: the samples of one input, in memory.

Shape legend: S samples, R high-res side (the prior's resolution), h w low-res.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_sr.config import SearchConfig
from pulse_sr.inversion.observation import OK_DB, Observation
from pulse_sr.metrics.covering import Covering, covering_order, feature_distances
from pulse_sr.metrics.interval import DEFAULT_LEVEL, sample_interval


def sample_status(lr_psnr: float, ok_db: float = OK_DB) -> str:
    """Returns "ok" for a sample of `ok_db` or more, else "below_target"."""
    return "ok" if lr_psnr >= ok_db else "below_target"


@dataclass(frozen=True, eq=False)
class Sample:
    """One face that was found.

    Attributes:
        index: its place among the samples of the input, from 0.
        seed: the number that its generator started from (a hash of seed, input and index).
        status: "ok" when `lr_psnr >= Observation.ok_db`, else "below_target". Also a sample that
            missed PULSE's eps in strict mode is kept and written; only this status says how well
            it fits.
        steps: optimiser steps it took.
        lr_psnr_search: LR-PSNR in dB before the projection.
        lr_psnr: LR-PSNR in dB of `pixels`, after the projection and the rounding to 8 bits.
        hr_rms_change: RMS change of the high-res image by the projection, images in [0, 1].
        pixels: uint8 [3, R, R].
        sigma: with "langevin": the noise, in units of [0, 1], that it is a posterior sample for; at
            least that of the input, and more where the chain could not come closer.
    """

    index: int
    seed: int
    status: str
    steps: int
    lr_psnr_search: float
    lr_psnr: float
    hr_rms_change: float
    pixels: NDArray[np.uint8]
    sigma: float | None = None


@dataclass(frozen=True, eq=False)
class Result:
    """All samples of one input, with everything that is needed to write or to repeat them.

    Attributes:
        observation: the input, and what the search knew of it.
        prior_name, prior_sha256, prior_licence, resolution: the prior.
        config: the settings of the search.
        samples_list: the samples, in the order of their indices.
        timing: seconds by name, such as `search_s`.
        device, torch_version, ops: where and with what it was computed; `ops` is "compiled" or
            "PyTorch", which round differently.
        notes: what was changed on reading and fitting the input, and which samples were started
            again.
        slots: how many samples were searched at once; another number may round differently.
        diagnostics: with "langevin": whether the chains have mixed (`search.diagnostics`), and the
            `samples` whose chains they are.
    """

    observation: Observation
    prior_name: str
    prior_sha256: str
    resolution: int
    config: SearchConfig
    samples_list: tuple[Sample, ...]
    timing: dict[str, float] = field(default_factory=dict)
    device: str = "cpu"
    torch_version: str = ""
    ops: str = ""
    notes: tuple[str, ...] = ()
    slots: int = 0
    diagnostics: dict[str, Any] | None = None
    prior_licence: str = "unknown"

    @property
    def scale(self) -> int:
        """R / side of the low-res grid."""
        return self.resolution // self.observation.side

    @cached_property
    def samples(self) -> Tensor:
        """The faces, float32 [S, 3, R, R] in [0, 1], on the CPU."""
        stacked = np.stack([sample.pixels for sample in self.samples_list])
        return torch.from_numpy(stacked).float() / 255.0

    @property
    def mean(self) -> Tensor:
        """Pixel mean over the samples, float32 [3, R, R]."""
        return self.samples.mean(dim=0)

    @property
    def std(self) -> Tensor:
        """Pixel standard deviation over the samples (population), float32 [3, R, R]."""
        return self.samples.std(dim=0, correction=0)

    def interval(self, level: float = DEFAULT_LEVEL) -> tuple[Tensor, Tensor]:
        """The interval of every pixel value over the samples (`metrics.interval`).

        Its ends are the quantiles (1 - level) / 2 and (1 + level) / 2 at the places q (S + 1) of
        the sorted samples. Of S samples it holds the truth with a probability of (S - 1) / (S + 1)
        at most, 78 % for 8: 90 % can be promised from 19 samples on.

        Args:
            level: between 0 and 1.

        Returns:
            (low, high), each float32 [3, R, R] in [0, 1].

        Raises:
            ValueError: the level is not between 0 and 1.
        """
        return sample_interval(self.samples, level)

    @property
    def covering(self) -> Covering:
        """The order in which the samples soonest show all that is possible, the typical one first.

        Places in `samples`, by SqueezeNet feature distance (`metrics.covering`).
        """
        return covering_order(feature_distances(self.samples))

    @property
    def lr_psnr(self) -> list[float]:
        """LR-PSNR in dB of each sample as it is written."""
        return [sample.lr_psnr for sample in self.samples_list]
