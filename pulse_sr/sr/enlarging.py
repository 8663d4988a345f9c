"""Whole pictures enlarged: by a network, or by bicubic interpolation.

Shapes: h w low-res, s scale; pixels are uint8 RGB [3, h, w].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from pulse_sr.images.pixels import Pixels, to_uint8
from pulse_sr.operators.resampling import matlab_matrix
from pulse_sr.sr.files import SrModel
from pulse_sr.sr.tiling import choose_tiling, enlarge

#: uint8 `[3, h, w]` to uint8 `[3, s h, s w]`.
Enlarge = Callable[[Pixels], Pixels]


def bicubic(scale: int) -> Enlarge:
    """MATLAB's `imresize(..., scale, 'bicubic')`, rounded once at the end."""

    def large(pixels: Pixels) -> Pixels:
        vertical, horizontal = (
            torch.from_numpy(matlab_matrix(size * scale, size)) for size in pixels.shape[-2:]
        )
        return to_uint8((vertical @ torch.from_numpy(pixels / 255.0) @ horizontal.mT).numpy())

    return large


def by_network(model: SrModel) -> Enlarge:
    """The network, in tiles that fit into memory."""
    tiling = choose_tiling(model.network)

    def large(pixels: Pixels) -> Pixels:
        return np.concatenate(list(enlarge(model.network, pixels, tiling)), axis=1)

    return large
