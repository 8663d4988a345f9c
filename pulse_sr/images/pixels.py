"""Pixels: arrays of 8 bits, floats in [0, 1] and Pillow images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: uint8 RGB [3, h, w], or as a signature says.
Pixels = NDArray[np.uint8]


def to_uint8(x: NDArray[Any]) -> Pixels:
    """Clips floats to [0, 1] and rounds half to even to 0..255; any shape."""
    return np.rint(np.clip(x, 0.0, 1.0) * 255.0).astype(np.uint8)


def to_pillow(pixels: Pixels) -> Image.Image:
    """Returns uint8 [3, H, W] or [H, W] as a Pillow image."""
    return Image.fromarray(pixels if pixels.ndim == 2 else pixels.transpose(1, 2, 0).copy())
