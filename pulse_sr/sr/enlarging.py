"""Whole pictures enlarged: by a network, or by bicubic interpolation.

Shapes: h w low-res, s scale, b rows of a band; pixels are uint8 RGB [3, h, w] if nothing else is
said.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pulse_sr.images.pixels import Pixels, to_uint8
from pulse_sr.operators.resampling import matlab_matrix
from pulse_sr.sr.files import SrModel
from pulse_sr.sr.tiling import choose_tiling, enlarge

#: uint8 `[3, h, w]` to uint8 `[3, s h, s w]`.
Enlarge = Callable[[Pixels], Pixels]
#: Rows that are made smaller at once, in floating point.
_ROWS = 256


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


def network_bands(
    model: SrModel, pixels: NDArray[Any], factor: int, tile: int | None = None
) -> Iterator[NDArray[Any]]:
    """A picture `factor` times as large, band by band: no more than two bands are in memory.

    What a network enlarges further is made smaller by Lanczos.

    Args:
        model: of a scale of `factor` or more.
        pixels: uint8 or uint16 `[3, h, w]`.
        factor: how many times as large.
        tile: side of a tile; None: from the memory there is.

    Yields:
        `[3, b, factor w]` of the same type, `factor h` rows in all.
    """
    bands = enlarge(model.network, pixels, choose_tiling(model.network, tile))
    if model.scale == factor:
        return bands
    height, width = (size * factor for size in pixels.shape[-2:])
    return _shrunk(bands, model.scale / factor, height, width)


def _shrunk(
    bands: Iterable[NDArray[Any]], ratio: float, height: int, width: int
) -> Iterator[NDArray[Any]]:
    """Bands of a picture made `ratio` times smaller by Lanczos, as the whole picture would be."""
    reach = int(np.ceil(3 * ratio)) + 1  # rows that a row of the result depends on, up and down
    kept: NDArray[Any] | None = None
    first = done = rows = 0  # the first row that is kept; rows made; rows that came in
    pieces = (band[:, i : i + _ROWS] for band in bands for i in range(0, band.shape[1], _ROWS))
    for piece in pieces:
        kept = piece if kept is None else np.concatenate([kept, piece], axis=1)
        rows += piece.shape[1]
        last = rows >= round(height * ratio)
        ready = height if last else min(int((rows - reach) / ratio), height)
        if ready > done:
            box = (0, done * ratio - first, kept.shape[2], min(ready * ratio - first, len(kept[0])))
            yield np.stack([_lanczos(plane, (width, ready - done), box) for plane in kept])
            done = ready
            start = max(int(done * ratio) - reach, first)
            kept, first = kept[:, start - first :], start


def _lanczos(
    plane: NDArray[Any], size: tuple[int, int], box: tuple[float, float, float, float]
) -> NDArray[Any]:
    """A part of a channel, uint8 or uint16, in another size; pixels around the part count too.

    In floating point: Pillow clips 8 bits between its two passes, which a part may not repeat.
    """
    image = Image.fromarray(plane.astype(np.float32))
    made = np.asarray(image.resize(size, Image.Resampling.LANCZOS, box))
    return np.rint(np.clip(made, 0, np.iinfo(plane.dtype).max)).astype(plane.dtype)
