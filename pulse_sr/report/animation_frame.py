"""One frame of the animation of a search: the faces, the input, and the match in dB as curves.

Takes uint8 arrays and gives a Pillow image; nothing is read or written here.

Shape legend: R high-res side, h w low-res.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pulse_sr.images.pixels import to_pillow
from pulse_sr.report.canvas import (
    FAINT,
    GAP,
    INK,
    MARGIN,
    NOTICE,
    PAPER,
    Colour,
    Pixels,
    enlarge,
    font,
    write,
)

Curve = Sequence[tuple[int, float]]

_CELL, _LABEL, _FOOT = 160, 22, 26
_LINE, _GRID, _ENDED = (40, 90, 160), (222, 222, 216), (29, 107, 58)


@dataclass(frozen=True)
class Cell:
    """One face of a frame: uint8 [3, R, R], the words under it, whether its search has ended."""

    pixels: Pixels
    words: str
    ended: bool


class FrameLayout:
    """Where everything stands, equal for all frames of an animation."""

    def __init__(
        self,
        low_res: Pixels,
        side: int,
        count: int,
        target_db: float | None,
        curves: Sequence[Curve],
    ) -> None:
        """Lay out.

        Args:
            low_res: uint8 [3, h, w], shown enlarged.
            side: R.
            count: how many faces.
            target_db: drawn as a dashed line; None: there is none.
            curves: (step, LR-PSNR in dB) of every face.
        """
        self.cell = side * max(1, _CELL // side) if side <= _CELL else _CELL
        self.columns = max(3, min(count, 4))  # the notice needs three
        self._rows = -(-count // self.columns)
        self._low_res, self._curves, self._target = low_res, curves, target_db
        self._axes = _axes(curves, target_db)
        self.width = 2 * MARGIN + self.columns * (self.cell + GAP) - GAP
        self._below = MARGIN + self._rows * (self.cell + _LABEL + GAP)
        self.height = self._below + self.cell + _LABEL + _FOOT

    def draw(self, cells: Sequence[Cell], step: int | None) -> Image.Image:
        """Draws a frame; the curves reach to `step`, with None to their ends."""
        canvas = Image.new("RGB", (self.width, self.height), PAPER)
        draw = ImageDraw.Draw(canvas)
        for i, each in enumerate(cells):
            row, column = divmod(i, self.columns)
            x = MARGIN + column * (self.cell + GAP)
            y = MARGIN + row * (self.cell + _LABEL + GAP)
            canvas.paste(self._fit(each.pixels), (x, y))
            colour = _ENDED if each.ended else INK
            write(draw, (x, y + self.cell + 4), each.words, self.cell, 12, colour)
        picture = enlarge(self._low_res, self.cell)
        canvas.paste(picture, (MARGIN, self._below))
        write(draw, (MARGIN, self._below + self.cell + 4), "input", self.cell, 12)
        self._draw_curves(draw, step)
        foot = (MARGIN, self.height - 20)
        write(draw, foot, NOTICE, self.width - 2 * MARGIN, 11, FAINT)
        return canvas

    def _fit(self, pixels: Pixels) -> Image.Image:
        if pixels.shape[-1] <= self.cell:
            return enlarge(pixels, self.cell)
        return to_pillow(pixels).resize((self.cell, self.cell), Image.Resampling.LANCZOS)

    def _draw_curves(self, draw: ImageDraw.ImageDraw, step: int | None) -> None:
        left, right = MARGIN + self.cell + GAP + 26, self.width - MARGIN
        top, bottom = self._below + 18, self._below + self.cell - 4
        last, low, high = self._axes

        def place(at: float, db: float) -> tuple[float, float]:
            x = left + (right - left) * at / max(last, 1)
            within = min(max(db, low), high)
            return x, bottom - (bottom - top) * (within - low) / (high - low)

        title = "match to the input, dB"
        write(draw, (left, self._below), title, right - left, 12)
        for db in range(low, high + 1, 10):
            y = place(0, db)[1]
            draw.line([(left, y), (right, y)], fill=_GRID)
            draw.text((left - 22, y - 7), str(db), fill=FAINT, font=font(11))
        if self._target is not None:
            _dashed(draw, place(0, self._target), place(last, self._target), FAINT)
        for curve in self._curves:
            reached = [pair for pair in curve if step is None or pair[0] <= step]
            points = [place(*pair) for pair in reached if math.isfinite(pair[1])]
            if len(points) > 1:
                draw.line(points, fill=_LINE, width=1)
            if points:
                x, y = points[-1]
                draw.ellipse([x - 2.5, y - 2.5, x + 2.5, y + 2.5], fill=_LINE)
        words = f"step 1 to {last + 1}"
        if self._target is not None:
            words += f"; dashed: the target, {self._target:g} dB"
        write(draw, (left, self._below + self.cell + 4), words, right - left, 12, FAINT)


def _axes(curves: Sequence[Curve], target: float | None) -> tuple[int, int, int]:
    """Last step, and the lowest and highest dB in whole tens."""
    decibels = [db for curve in curves for _, db in curve if math.isfinite(db)]
    decibels += [0.0] if target is None else [target]
    last = max((step for curve in curves for step, _ in curve), default=0)
    low = 10 * math.floor(max(min(decibels), -20.0) / 10)
    return last, low, max(low + 10, 10 * math.ceil(min(max(decibels), 100.0) / 10))


def _dashed(
    draw: ImageDraw.ImageDraw, start: tuple[float, float], end: tuple[float, float], colour: Colour
) -> None:
    x = start[0]
    while x < end[0]:
        draw.line([(x, start[1]), (min(x + 5, end[0]), start[1])], fill=colour)
        x += 9
