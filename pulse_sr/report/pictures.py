"""The pictures beside the samples: their mean, their spread and the labelled grid.

All take and return uint8 arrays; nothing is read or written here.

Shape legend: S samples, R high-res side, h w low-res.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

Pixels = NDArray[np.uint8]
_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

NOTICE = "Synthetic faces: plausible reconstructions, not the person."

# Dark to bright in nearly even steps of lightness, so that more spread is always brighter.
_COLOURS = (
    (10, 10, 30),
    (66, 20, 104),
    (141, 38, 107),
    (212, 76, 67),
    (247, 148, 41),
    (252, 250, 190),
)
# The top of a std scale is the smallest of these that holds the picture's largest value.
_TOPS = (0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5)

_PAPER, _INK, _FAINT, _BAD = (248, 248, 246), (28, 28, 32), (110, 110, 118), (176, 40, 30)
_SMALLEST_CELL, _LARGEST_CELL = 176, 512
_GAP, _MARGIN = 12, 18


@dataclass(frozen=True)
class SampleLabel:
    """What stands under a sample: its LR-PSNR in dB before and after the projection, above all."""

    index: int
    seed: int
    lr_psnr_search: float
    lr_psnr: float
    status: str


def mean_image(samples: Pixels) -> Pixels:  # [S, 3, R, R] -> [3, R, R]
    """Returns the pixel mean over the samples, rounded to 8 bits."""
    return np.rint(samples.astype(np.float64).mean(axis=0)).astype(np.uint8)


def std_map(samples: Pixels) -> NDArray[np.float64]:  # [S, 3, R, R] -> [R, R]
    """Returns the standard deviation over the samples in [0, 0.5], RMS over the three channels."""
    variance = (samples.astype(np.float64) / 255.0).var(axis=0)
    return np.sqrt(variance.mean(axis=0))


def std_image(samples: Pixels) -> Pixels:  # [S, 3, R, R] -> [3, H, W]
    """Returns the spread over the samples as a colour map, with a labelled scale below it.

    Small priors are enlarged by a whole number so that the labels are readable.
    """
    values = std_map(samples)
    top = _scale_top(values)
    picture = _resize_to_cell(colour_map(values / top))
    cell = picture.width
    canvas = Image.new("RGB", (cell, cell + 46), _PAPER)
    canvas.paste(picture, (0, 0))
    _draw_scale(canvas, (8, cell + 8, cell - 8), top)
    return _to_array(canvas)


def colour_map(values: NDArray[np.float64]) -> Pixels:  # [H, W] in [0, 1] -> [3, H, W]
    """Colours values from dark to bright; the luminance rises with the value."""
    stops = np.linspace(0.0, 1.0, len(_COLOURS))
    table = np.array(_COLOURS, dtype=np.float64)
    channels = [np.interp(values.clip(0.0, 1.0), stops, table[:, c]) for c in range(3)]
    return np.rint(np.stack(channels)).astype(np.uint8)


def grid(low_res: Pixels, samples: Pixels, labels: Sequence[SampleLabel], about: str) -> Pixels:
    """Draws everything about one input in one labelled picture.

    First row: the input (nearest), bicubic, the mean and the standard deviation; then the samples.

    Args:
        low_res: uint8 [3, h, w].
        samples: uint8 [S, 3, R, R].
        labels: one per sample.
        about: the heading, such as the operator and the sizes.

    Returns:
        uint8 [3, H, W].
    """
    values = std_map(samples)
    top = _scale_top(values)
    side = samples.shape[-1]
    cell = _resize_to_cell(samples[0]).width
    cells = [
        (_enlarge(low_res, cell), "input", _size_text(low_res), _INK),
        (_resize_to_cell(_bicubic(low_res, side)), "bicubic", f"{side} px", _INK),
        (_resize_to_cell(mean_image(samples)), "mean", f"of {len(samples)}", _INK),
        (_resize_to_cell(colour_map(values / top)), "std", "", _INK),
    ]
    for pixels, label in zip(samples, labels, strict=True):
        good = label.status == "ok"
        text = f"{label.lr_psnr_search:.1f} > {label.lr_psnr:.1f} dB" + (
            "" if good else ", below target"
        )
        seed = f"#{label.index}  seed {label.seed}"
        cells.append((_resize_to_cell(pixels), text, seed, _INK if good else _BAD))
    return _to_array(_draw_grid(cells, about, top))


def _draw_grid(
    cells: Sequence[tuple[Image.Image, str, str, tuple[int, int, int]]], about: str, top: float
) -> Image.Image:
    cell = max(picture.width for picture, *_ in cells)
    columns = 4 if len(cells) <= 20 else 8
    step_x, step_y = cell + _GAP, cell + 44
    rows = 1 + -(-(len(cells) - 4) // columns)
    width = 2 * _MARGIN + columns * step_x - _GAP
    canvas = Image.new("RGB", (width, 40 + rows * step_y + 30), _PAPER)
    draw = ImageDraw.Draw(canvas)
    _write(draw, (_MARGIN, 11), about, width - 2 * _MARGIN, 15, _INK)
    for i, (picture, title, detail, colour) in enumerate(cells):
        row, column = (0, i) if i < 4 else (1 + (i - 4) // columns, (i - 4) % columns)
        x, y = _MARGIN + column * step_x, 40 + row * step_y
        canvas.paste(picture, (x + (cell - picture.width) // 2, y + (cell - picture.height) // 2))
        _write(draw, (x, y + cell + 3), title, cell, 14, colour)
        _write(draw, (x, y + cell + 20), detail, cell, 12, _FAINT)
    std_x = _MARGIN + 3 * step_x
    _draw_scale(canvas, (std_x + 34, 40 + cell + 6, std_x + cell), top)
    _write(draw, (_MARGIN, canvas.height - 26), NOTICE, width - 2 * _MARGIN, 13, _FAINT)
    return canvas


def _draw_scale(canvas: Image.Image, place: tuple[int, int, int], top: float) -> None:
    """Draws the bar of the colour map from left to right at `place` (left, y, right), labelled."""
    left, y, right = place
    ramp = np.tile(np.linspace(0.0, 1.0, right - left), (10, 1))
    canvas.paste(_to_picture(colour_map(ramp)), (left, y))
    draw = ImageDraw.Draw(canvas)
    font = _font(12)
    end, middle = f"{top:g}", "pixel std"
    draw.text((left, y + 12), "0", fill=_FAINT, font=font)
    draw.text((right - draw.textlength(end, font), y + 12), end, fill=_FAINT, font=font)
    centre = (left + right - draw.textlength(middle, font)) / 2
    draw.text((centre, y + 12), middle, fill=_FAINT, font=font)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    width: int,
    size: int,
    colour: tuple[int, int, int],
) -> None:
    """Writes one line, shortened with dots where it is wider than `width`."""
    font = _font(size)
    if draw.textlength(text, font) > width:
        while text and draw.textlength(text + "...", font) > width:
            text = text[:-1]
        text += "..."
    draw.text(place, text, fill=colour, font=font)


def _font(size: int) -> _Font:
    return ImageFont.load_default(size)


def _scale_top(values: NDArray[np.float64]) -> float:
    largest = float(values.max(initial=0.0))
    return next((top for top in _TOPS if top >= largest), _TOPS[-1])


def _size_text(pixels: Pixels) -> str:
    return f"{pixels.shape[2]} x {pixels.shape[1]} px"


def _bicubic(low_res: Pixels, side: int) -> Pixels:
    """Enlarges so that the longer side is `side`, by Pillow's bicubic."""
    factor = side / max(low_res.shape[1:])
    size = (round(low_res.shape[2] * factor), round(low_res.shape[1] * factor))
    return _to_array(_to_picture(low_res).resize(size, Image.Resampling.BICUBIC))


def _enlarge(pixels: Pixels, cell: int) -> Image.Image:
    """Enlarges by the largest whole number that fits into the cell (nearest)."""
    times = max(1, cell // max(pixels.shape[1:]))
    picture = _to_picture(pixels)
    return picture.resize((picture.width * times, picture.height * times), Image.Resampling.NEAREST)


def _resize_to_cell(pixels: Pixels) -> Image.Image:
    """Enlarges small pictures by a whole number (nearest), shrinks those above the largest cell."""
    picture = _to_picture(pixels)
    longest = max(picture.size)
    if longest > _LARGEST_CELL:
        factor = _LARGEST_CELL / longest
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        return picture.resize(size, Image.Resampling.LANCZOS)
    return _enlarge(pixels, max(1, -(-_SMALLEST_CELL // longest)) * longest)


def _to_picture(pixels: Pixels) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)), "RGB")


def _to_array(picture: Image.Image) -> Pixels:
    return np.asarray(picture).transpose(2, 0, 1).copy()
