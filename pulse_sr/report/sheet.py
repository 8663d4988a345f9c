"""A contact sheet: many crops in one labelled picture.

Takes and returns uint8 arrays; nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw

from pulse_sr.images.pixels import Pixels, to_pillow
from pulse_sr.report.canvas import FAINT, PAPER, to_array, write

_CELL, _LABEL, _GAP, _TOP, _COLUMNS = 112, 28, 8, 30, 10


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
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    write(draw, (_GAP, 8), heading, size[0] - 2 * _GAP, 13)
    for i, (crop, name, detail) in enumerate(crops):
        x, y = _GAP + i % columns * step_x, _TOP + i // columns * step_y
        canvas.paste(to_pillow(crop).resize((_CELL, _CELL), Image.Resampling.LANCZOS), (x, y))
        write(draw, (x, y + _CELL + 1), name, _CELL, 12)
        write(draw, (x, y + _CELL + 14), detail, _CELL, 11, FAINT)
    return to_array(canvas)
