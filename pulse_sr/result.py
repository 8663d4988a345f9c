"""What a search returns: the samples of one input, in memory.

Shape legend: S samples, R high-res side (the prior's resolution), h w low-res.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_sr.config import SearchConfig
from pulse_sr.images import LowResImage

#: A written sample at or above this LR-PSNR in dB is "ok", else "below_target".
OK_DB = 45.0


def sample_status(lr_psnr: float) -> str:
    """Returns "ok" for a sample of `OK_DB` or more, else "below_target"."""
    return "ok" if lr_psnr >= OK_DB else "below_target"


@dataclass(frozen=True, eq=False)
class Sample:
    """One face that was found.

    Attributes:
        index: its place among the samples of the input, from 0.
        seed: the number that its generator started from (a hash of seed, input and index).
        status: "ok" when `lr_psnr >= OK_DB`, else "below_target". Also a sample that missed PULSE's
            eps in strict mode is kept and written; only this status says how well it fits.
        steps: optimiser steps it took.
        lr_psnr_search: LR-PSNR in dB before the projection.
        lr_psnr: LR-PSNR in dB of `pixels`, after the projection and the rounding to 8 bits.
        hr_rms_change: RMS change of the high-res image by the projection, images in [0, 1].
        pixels: uint8 [3, R, R].
    """

    index: int
    seed: int
    status: str
    steps: int
    lr_psnr_search: float
    lr_psnr: float
    hr_rms_change: float
    pixels: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Result:
    """All samples of one input, with everything that is needed to write or to repeat them.

    Attributes:
        image: the input as read from its file.
        low_res: uint8 [3, h, w], the pixels that the search saw (after `fit_to_prior`, no padding).
        side: side of the square low-res grid.
        rows, columns: half-open ranges of the grid that `low_res` covers; the rest is padding.
        operator_spec, scale: how the high-res image becomes the low-res one.
        prior_name, prior_sha256, resolution: the prior.
        config: the settings of the search.
        samples_list: the samples, in the order of their indices.
        timing: seconds by name, such as `search_s`.
        device, torch_version, ops: where and with what it was computed; `ops` is "compiled" or
            "PyTorch", which round differently.
        notes: what was changed on reading and fitting the input (`FittedInput.notes`).
    """

    image: LowResImage
    low_res: NDArray[np.uint8]
    side: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    operator_spec: str
    scale: int
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

    @property
    def lr_psnr(self) -> list[float]:
        """LR-PSNR in dB of each sample as it is written."""
        return [sample.lr_psnr for sample in self.samples_list]

    def save(self, out_dir: str | Path) -> Path:
        """Writes the samples, pictures and `result.json`, as `pulse-sr run -o out_dir` does.

        Returns:
            the folder of this input inside `out_dir`.

        Raises:
            SetupError: the disk is full or the place can not be written.
        """
        from pulse_sr.jobs.store import save_result

        return save_result(Path(out_dir), self)
