"""JPEG's quantisation tables: what a quality means, and which quality a file was written with."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

Table = NDArray[np.int64]  # [8, 8], rows are vertical frequencies

#: The example tables of the standard (ITU-T T.81, annex K, tables K.1 and K.2), which the software
#: of the Independent JPEG Group scales by the quality; 50 is the tables themselves.
LUMA = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ]
)
CHROMA = np.full((8, 8), 99)
CHROMA[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]


def quantisation_table(quality: int, *, chroma: bool = False) -> Table:
    """Returns the steps of a quality from 1 to 100, int64 [8, 8], each from 1 to 255."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    return np.clip(((CHROMA if chroma else LUMA) * percent + 50) // 100, 1, 255)


def nearest_quality(luma: Sequence[int]) -> int:
    """Returns the quality whose luma table is nearest to 64 steps in row order (mean |log|)."""
    steps = np.log(np.maximum(np.asarray(luma, dtype=np.float64).reshape(8, 8), 1.0))
    distances = [
        np.abs(np.log(quantisation_table(quality)) - steps).mean() for quality in range(1, 101)
    ]
    return int(np.argmin(distances)) + 1


def read_quality(path: str | os.PathLike[str]) -> int | None:
    """Returns the quality a JPEG file was written with, None for any other file.

    Files of programs with tables of their own give the nearest quality.
    """
    try:
        with Image.open(path) as image:
            tables: dict[int, list[int]] = getattr(image, "quantization", {})
            if image.format not in ("JPEG", "MPO") or 0 not in tables:
                return None
            return nearest_quality(tables[0])
    except (OSError, UnidentifiedImageError):
        return None
