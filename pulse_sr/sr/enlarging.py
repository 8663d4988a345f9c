"""Whole pictures enlarged: by a network, or by bicubic interpolation.

Shapes: h w low-res, s scale; pixels are uint8 RGB [3, h, w].
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pulse_sr.images.pixels import Pixels, to_uint8
from pulse_sr.operators.resampling import matlab_matrix
from pulse_sr.sr.files import SrModel

#: uint8 `[3, h, w]` to uint8 `[3, s h, s w]`.
Enlarge = Callable[[Pixels], Pixels]


def bicubic(scale: int) -> Enlarge:
    """MATLAB's `imresize(..., scale, 'bicubic')`, rounded once at the end."""

    def enlarge(pixels: Pixels) -> Pixels:
        vertical, horizontal = (
            torch.from_numpy(matlab_matrix(size * scale, size)) for size in pixels.shape[-2:]
        )
        return to_uint8((vertical @ torch.from_numpy(pixels / 255.0) @ horizontal.mT).numpy())

    return enlarge


def by_network(model: SrModel) -> Enlarge:
    """The network on the whole picture at once."""

    def enlarge(pixels: Pixels) -> Pixels:
        x: Tensor = torch.from_numpy(pixels).to(model.device)[None] / 255.0
        with torch.inference_mode():
            return to_uint8(model.network(x)[0].float().cpu().numpy())

    return enlarge
