"""Pixels to PNG files and to Pillow images.

Shapes: h w size; pixels are uint8 RGB [3, h, w] unless a signature says otherwise. No torch here.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping

import numpy as np
from PIL import PngImagePlugin

from pulse_sr.files.atomic import write_atomic
from pulse_sr.images.pixels import Pixels, to_pillow

#: The text chunk that every made-up picture carries (its settings), and by which it is known again.
OWN_MARK = "pulse-sr:settings"
#: How the comment of a made-up picture begins.
MADE_UP = "synthetic face"
#: How the Software chunk of a PNG begins, or the comment of a JPEG or GIF file.
OWN_WORDS = ("pulse-sr", MADE_UP)


def write_png(
    path: str | os.PathLike[str],
    pixels: Pixels,
    text: Mapping[str, str] | None = None,
    xmp: str | None = None,
) -> None:
    """Writes an 8-bit PNG atomically; the same arguments give the same bytes.

    Args:
        path: the file.
        pixels: uint8 RGB [3, H, W] or grey [H, W].
        text: text chunks in the order of the mapping; iTXt where Latin-1 does not do, else tEXt.
        xmp: an XMP packet, stored as iTXt `XML:com.adobe.xmp`.

    Raises:
        ValueError: another dtype or shape.
        SetupError: the disk is full or the place cannot be written.
    """
    if pixels.dtype != np.uint8 or not (pixels.ndim == 2 or pixels.shape[:-2] == (3,)):
        raise ValueError(f"expected uint8 [3, H, W] or [H, W], got {pixels.dtype} {pixels.shape}")
    chunks = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        chunks.add_text(key, value)
    if xmp is not None:
        chunks.add_itxt("XML:com.adobe.xmp", xmp)
    buffer = io.BytesIO()
    to_pillow(pixels).save(buffer, "PNG", pnginfo=chunks)
    write_atomic(path, buffer.getvalue())
