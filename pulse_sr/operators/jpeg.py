"""What a JPEG file does to a picture, exactly on the way forward and straight through backward.

The forward pass follows the baseline codec of the Independent JPEG Group as Pillow calls it: 8-bit
rounding, Y'CbCr, chroma at half the resolution, 8x8 cosine transform, quantisation, and the way
back with its triangle filter for chroma. Every rounding and clipping passes the gradient as if it
were not there (Bengio et al., "Estimating or Propagating Gradients Through Stochastic Neurons",
2013), so the backward pass is that of a chroma low-pass: the quantisation is a step function
whose own gradient is zero.

Shape legend: C channels (1 or 3), H W picture, a b blocks of 8x8. Inside, values are 0..255.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from pulse_sr.images.jpeg import quantisation_table
from stylegan_ops.products import product

_BLOCK = 8
#: sqrt(2) cos(pi / 8 * frequency * (place + 1/2)) in 1/8192, as the codec's constants add up.
_COSINES = (
    (8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363),
    (10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703),
    (9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633),
    (8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437),
    (4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433),
    (2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260),
)
# A coefficient this close below a half step is rounded up, as exact arithmetic would.
_TIE = 1e-4


def jpeg_round_trip(x: Tensor, quality: int) -> Tensor:
    """Writes a picture as JPEG and reads it again.

    Args:
        x: [..., C, H, W] in [0, 1], C = 3 (4:2:0 chroma) or 1 (grey).
        quality: 1 to 100.

    Returns:
        the decoded picture, multiples of 1/255, same shape and dtype. At most 2 grey levels from
        Pillow's, and under 0.01 on average over a picture (docs/operators.md).
    """
    pixels = _through(x.mul(255.0).round().clamp(0.0, 255.0), x * 255.0)
    if x.shape[-3] == 1:
        return _code(pixels, quality, chroma=False) / 255.0
    luma, blue, red = _to_ycc(pixels)
    height, width = x.shape[-2:]
    half = (height + 1) // 2, (width + 1) // 2
    luma = _code(luma, quality, chroma=False)
    blue, red = (
        _enlarge(_code(_halve(each), quality, chroma=True, size=half)) for each in (blue, red)
    )
    crop = (..., slice(height), slice(width))
    return _to_rgb(luma, blue[crop], red[crop]) / 255.0


def _through(forward: Tensor, backward: Tensor) -> Tensor:
    """The value of one tensor with the gradient of another."""
    return forward.detach() + (backward - backward.detach())


def _to_ycc(rgb: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Y'CbCr of BT.601 with full range (JFIF) in 16-bit fixed point; each [..., H, W]."""
    red, green, blue = rgb.unbind(dim=-3)
    luma = (19595 * red + 38470 * green + 7471 * blue) / 65536
    from_blue = (32768 * blue - 11059 * red - 21709 * green) / 65536 + 128
    from_red = (32768 * red - 27439 * green - 5329 * blue) / 65536 + 128
    below_half = 32767 / 65536  # halves of luma are rounded up, those of chroma down
    return (
        _through((luma + 0.5).floor(), luma),
        _through((from_blue + below_half).floor(), from_blue),
        _through((from_red + below_half).floor(), from_red),
    )


def _to_rgb(luma: Tensor, blue: Tensor, red: Tensor) -> Tensor:
    blue, red = blue - 128, red - 128
    parts = (91881 * red, -22554 * blue - 46802 * red, 116130 * blue)
    exact = torch.stack([luma + _rounded(part / 65536) for part in parts], dim=-3)
    return _through(exact.clamp(0.0, 255.0), exact)


def _code(
    plane: Tensor, quality: int, *, chroma: bool, size: tuple[int, int] | None = None
) -> Tensor:
    """Quantises the cosine transform of [..., H, W]; `size` is the part that is decoded."""
    height, width = size or (plane.shape[-2], plane.shape[-1])
    padded = _extend(_extend(plane, -2), -1)
    blocks = (padded - 128).unflatten(-2, (-1, _BLOCK)).unflatten(-1, (-1, _BLOCK))
    steps = _steps(quality, chroma, plane.dtype, plane.device)
    levels = _transform(blocks.transpose(-3, -2)) / steps  # [..., a, b, 8, 8]
    rounded = levels.detach().sign() * (levels.detach().abs() + (0.5 + _TIE)).floor()
    decoded = _transform_back(_through(rounded, levels) * steps) + 128
    decoded = decoded.transpose(-3, -2).flatten(-2).flatten(-3, -2)
    decoded = _through(decoded.clamp(0.0, 255.0), decoded)
    return decoded[..., :height, :width]


def _transform(blocks: Tensor) -> Tensor:
    """The cosine transform of [..., 8, 8] in whole eighths, as the codec's integers give it.

    Rows first, in steps of 1/4 of their scale, then columns: which side of a half step a
    coefficient falls on depends on these roundings.
    """
    cosines = _cosines(blocks.dtype, blocks.device)
    rows = _rounded(product(4 * blocks, cosines.mT))
    return _rounded(product(cosines, rows) / 4) / 8


def _transform_back(coefficients: Tensor) -> Tensor:
    """The inverse: columns first, in steps of 1/4 of their scale, then rows, whole numbers."""
    cosines = _cosines(coefficients.dtype, coefficients.device)
    columns = _rounded(product(4 * cosines.mT, coefficients))
    return _rounded(product(columns, cosines) / 32)


def _rounded(x: Tensor) -> Tensor:
    return _through((x + 0.5).floor(), x)


# Constants come from the host, which a CUDA graph can not wait for, so they are made once. Made
# inside inference mode they could never take part in a gradient afterwards.


@functools.cache
def _cosines(dtype: torch.dtype, device: torch.device) -> Tensor:
    """The cosine transform of 8 values, [frequency, place], sqrt(8) times orthonormal."""
    with torch.inference_mode(False):
        return (torch.tensor(_COSINES, dtype=dtype) / 8192).to(device)


@functools.cache
def _steps(quality: int, chroma: bool, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The steps of the quantisation, [8, 8], rows are vertical frequencies."""
    with torch.inference_mode(False):
        return torch.from_numpy(quantisation_table(quality, chroma=chroma)).to(dtype).to(device)


def _halve(plane: Tensor) -> Tensor:
    """Means of 2x2 pixels; on the right enough of them to fill blocks, edges repeated before."""
    plane = _extend(_extend(plane, -1, 2 * _BLOCK), -2, 2)
    sums = plane.unflatten(-1, (-1, 2)).sum(-1).unflatten(-2, (-1, 2)).sum(-2)
    # Halves and quarters are rounded down and up in turn, so that no drift remains.
    bias = 1.0 + torch.arange(sums.shape[-1], device=sums.device) % 2
    return _through(((sums + bias) / 4).floor(), sums / 4)


def _enlarge(plane: Tensor) -> Tensor:
    """Twice the size by the triangle filter (3/4 the nearer, 1/4 the farther), edges repeated."""
    if plane.shape[-1] <= 2:  # the codec has no filter for pictures this narrow
        return plane.repeat_interleave(2, -2).repeat_interleave(2, -1)
    rows = 3 * plane.repeat_interleave(2, -2) + _farther(plane, -2)
    exact = 3 * rows.repeat_interleave(2, -1) + _farther(rows, -1)
    bias = 8.0 - torch.arange(exact.shape[-1], device=exact.device) % 2
    return _through(((exact + bias) / 16).floor(), exact / 16)


def _farther(plane: Tensor, dim: int) -> Tensor:
    """For each half of each value: the neighbour on that side, the value itself at the edge."""
    length = plane.shape[dim]
    place = torch.arange(2 * length, device=plane.device)
    neighbour = (place // 2 + 2 * (place % 2) - 1).clamp(0, length - 1)
    return plane.index_select(dim, neighbour)


def _extend(plane: Tensor, dim: int, multiple: int = _BLOCK) -> Tensor:
    """Repeats the last row or column until the length is a multiple."""
    length = plane.shape[dim]
    wanted = -(-length // multiple) * multiple
    if wanted == length:
        return plane
    place = torch.arange(wanted, device=plane.device).clamp_max(length - 1)
    return plane.index_select(dim, place)
