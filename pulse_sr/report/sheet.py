"""A contact sheet: many crops in one labelled picture.

Takes and returns uint8 arrays; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pulse_sr.images.pixels import to_pillow

Pixels = NDArray[np.uint8]

_CELL, _LABEL, _GAP, _TOP, _COLUMNS = 112, 28, 8, 30, 10
_PAPER, _INK, _FAINT = (248, 248, 246), (28, 28, 32), (110, 110, 118)


def contact_sheet(crops: Sequence[tuple[Pixels, str, str]], heading: str) -> Pixels:
    """Draws crops in rows of ten.

    Args:
        crops: (uint8 [3, S, S], name, detail) of each.
        heading: the line on top.

    Returns:
        uint8 [3, H, W].
    """
    columns = max(min(_COLUMNS, len(crops)), 4)
    rows = -(-len(crops) // columns)
    step_x, step_y = _CELL + _GAP, _CELL + _LABEL + _GAP
    size = (_GAP + columns * step_x, _TOP + rows * step_y)
    canvas = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.text((_GAP, 8), _shorten(draw, heading, size[0] - 2 * _GAP, 13), _INK, _font(13))
    for i, (crop, name, detail) in enumerate(crops):
        x, y = _GAP + i % columns * step_x, _TOP + i // columns * step_y
        canvas.paste(to_pillow(crop).resize((_CELL, _CELL), Image.Resampling.LANCZOS), (x, y))
        draw.text((x, y + _CELL + 1), _shorten(draw, name, _CELL, 12), _INK, _font(12))
        draw.text((x, y + _CELL + 14), _shorten(draw, detail, _CELL, 11), _FAINT, _font(11))
    return np.asarray(canvas).transpose(2, 0, 1).copy()


def _shorten(draw: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    font = _font(size)
    # File names may hold line breaks, which a single line of text can not be measured with.
    text = "".join(each if each.isprintable() else "?" for each in text)
    if draw.textlength(text, font) <= width:
        return text
    while text and draw.textlength(text + "...", font) > width:
        text = text[:-1]
    return text + "..."


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
