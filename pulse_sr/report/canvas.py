"""What all pictures of the report are drawn with: colours, text, cells of a readable size.

Shape legend: H W size of a picture.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pulse_sr.images.pixels import Pixels, to_pillow

Colour = tuple[int, int, int]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

NOTICE = "Synthetic faces: plausible reconstructions, not the person."

PAPER, INK, FAINT, BAD = (248, 248, 246), (28, 28, 32), (110, 110, 118), (176, 40, 30)
GAP, MARGIN = 12, 18
SMALLEST_CELL, LARGEST_CELL = 176, 512


def write(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    width: float,
    size: int,
    colour: Colour = INK,
) -> None:
    """Writes one line, shortened with dots where it is wider than `width`."""
    type_face = font(size)
    # File names may hold line breaks, which a single line of text can not be measured with.
    text = "".join(each if each.isprintable() else "?" for each in text)
    if draw.textlength(text, type_face) > width:
        while text and draw.textlength(text + "...", type_face) > width:
            text = text[:-1]
        text += "..."
    draw.text(place, text, fill=colour, font=type_face)


def write_lines(
    draw: ImageDraw.ImageDraw,
    place: tuple[float, float],
    text: str,
    width: float,
    size: int,
    colour: Colour = INK,
) -> int:
    """Writes words in as many lines as they need, and returns the height of these in pixels."""
    lines = wrap(draw, text, width, size)
    step = line_height(size)
    for i, line in enumerate(lines):
        write(draw, (place[0], place[1] + i * step), line, width, size, colour)
    return len(lines) * step


def wrap(draw: ImageDraw.ImageDraw, text: str, width: float, size: int) -> list[str]:
    """Breaks a text between words into lines that are not wider than `width`."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and draw.textlength(longer, font(size)) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def line_height(size: int) -> int:
    """The distance of two lines of text in pixels."""
    return round(size * 1.35)


def font(size: int) -> Font:
    """Pillow's own typeface."""
    return ImageFont.load_default(size)


def enlarge(pixels: Pixels, cell: int) -> Image.Image:
    """Enlarges by the largest whole number that fits into the cell (nearest)."""
    times = max(1, cell // max(pixels.shape[1:]))
    picture = to_pillow(pixels)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def resize_to_cell(pixels: Pixels) -> Image.Image:
    """Enlarges small pictures by a whole number (nearest), shrinks those above the largest cell."""
    picture = to_pillow(pixels)
    longest = max(picture.size)
    if longest > LARGEST_CELL:
        factor = LARGEST_CELL / longest
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        return picture.resize(size, Image.Resampling.LANCZOS)
    return enlarge(pixels, max(1, -(-SMALLEST_CELL // longest)) * longest)


def to_array(picture: Image.Image) -> Pixels:
    """Returns an RGB Pillow image as uint8 [3, H, W]."""
    return np.asarray(picture).transpose(2, 0, 1).copy()
