"""A few numbers of a small picture: the power in bands of frequency, of luma and of chroma.

Shape legend: N pictures, C channels (3 or 1), h w their size, F numbers of a picture.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pulse_sr.operators.separable import LUMA

_BANDS = 5
_LOG_FLOOR = 1e-5  # about the power of 8-bit rounding
# Rows: Y', Cb, Cr of BT.601.
_COLOURS = (LUMA, (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def band_power(y: Tensor, in_colour: bool) -> Tensor:
    """Returns logarithms of the power in bands of frequency, luma and chroma apart: [N, F].

    Bands are rings of the cosine transform, equally wide from just above zero to the corner. Rings
    that a picture this small has no frequency in are left out.

    Args:
        y: [N, C, h, w] in [0, 1].
        in_colour: whether to look at chroma, C = 3.
    """
    planes = y[:, :1]
    if y.shape[1] == 3:
        planes = torch.einsum("dc,nchw->ndhw", y.new_tensor(_COLOURS), y)
    vertical, horizontal = _cosines(y.shape[-2]).to(y), _cosines(y.shape[-1]).to(y)
    power = (vertical @ planes @ horizontal.mT).square()
    places = [torch.arange(length) / length for length in y.shape[-2:]]
    radius = torch.hypot(places[0][:, None], places[1])
    ring = ((radius * _BANDS / 1.2).long()).clamp_max(_BANDS - 1)
    ring[0, 0] = -1
    numbers = []
    for band in ring.unique()[1:].tolist():  # the first is -1, the mean of the picture
        inside = power[..., ring == band].mean(dim=-1)
        numbers.append(torch.log(inside[:, 0] + _LOG_FLOOR))
        if in_colour:
            numbers.append(torch.log(inside[:, 1:].mean(dim=1) + _LOG_FLOOR))
    return torch.stack(numbers, dim=1)


def _cosines(length: int) -> Tensor:
    """The orthonormal cosine transform, float64 [frequency, place]."""
    place = torch.arange(length, dtype=torch.float64)
    rows = torch.cos(math.pi / length * place[:, None] * (place + 0.5)) * math.sqrt(2 / length)
    rows[0] /= math.sqrt(2)
    return rows
