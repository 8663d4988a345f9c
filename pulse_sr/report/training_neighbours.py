"""Samples beside the training images that they are nearest to.

Takes and returns uint8 arrays; nothing is read or written here.

Shapes: k neighbours, R resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pulse_sr.images.pixels import Pixels, to_pillow
from pulse_sr.report.canvas import BAD, FAINT, MARGIN, PAPER, to_array, write

_SMALLEST_CELL, _LARGEST_CELL = 96, 256
_GAP, _TOP, _LABEL, _BETWEEN, _COLUMNS = 6, 62, 22, 28, 2


@dataclass(frozen=True)
class Neighbourhood:
    """A sample and what it is nearest to.

    Attributes:
        sample: uint8 `[3, R, R]`.
        title: what stands under it.
        images: uint8 `[k, 3, R, R]`, training images, the nearest first.
        distances: of each, root mean square of the pixels in [0, 1].
    """

    sample: Pixels
    title: str
    images: Pixels
    distances: Sequence[float]


def neighbour_sheet(rows: Sequence[Neighbourhood], about: str, threshold: float | None) -> Pixels:
    """Draws each sample with its nearest training images to its right, two samples in a line.

    Args:
        rows: at least one, all of the same R and k.
        about: the heading.
        threshold: distances below it are printed in red; None: it is not known.

    Returns:
        uint8 `[3, H, W]`.
    """
    cell = _cell(rows[0].sample.shape[-1])
    group = (1 + len(rows[0].images)) * (cell + _GAP) - _GAP + 10
    lines = -(-len(rows) // _COLUMNS)
    columns = min(_COLUMNS, len(rows))
    width = 2 * MARGIN + columns * group + (columns - 1) * _BETWEEN
    canvas = Image.new("RGB", (width, _TOP + lines * (cell + _LABEL + _GAP) + MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    write(draw, (MARGIN, 12), about, width - 2 * MARGIN, 15)
    note = "left: sample; right of it: the nearest training images and their distances"
    if threshold is not None:
        note += f", red below {threshold:.3f}"
    write(draw, (MARGIN, 36), note, width - 2 * MARGIN, 13, FAINT)
    for i, row in enumerate(rows):
        x = MARGIN + (i // lines) * (group + _BETWEEN)
        _draw_row(canvas, row, (x, _TOP + (i % lines) * (cell + _LABEL + _GAP)), cell, threshold)
    return to_array(canvas)


def _draw_row(
    canvas: Image.Image,
    row: Neighbourhood,
    place: tuple[int, int],
    cell: int,
    threshold: float | None,
) -> None:
    draw = ImageDraw.Draw(canvas)
    x, y = place
    canvas.paste(_resized(row.sample, cell), (x, y))
    write(draw, (x, y + cell + 3), row.title, cell, 13)
    x += cell + _GAP + 10
    for pixels, distance in zip(row.images, row.distances, strict=True):
        canvas.paste(_resized(pixels, cell), (x, y))
        colour = BAD if threshold is not None and distance < threshold else FAINT
        write(draw, (x, y + cell + 3), f"{distance:.3f}", cell, 13, colour)
        x += cell + _GAP


def _cell(side: int) -> int:
    """Small images are enlarged by a whole number, large ones shrunk."""
    return min(_LARGEST_CELL, side * max(1, -(-_SMALLEST_CELL // side)))


def _resized(pixels: Pixels, cell: int) -> Image.Image:
    enlarge = pixels.shape[-1] <= cell
    kind = Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS
    return to_pillow(pixels).resize((cell, cell), kind)
