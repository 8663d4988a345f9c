"""The grid: everything about one input in one labelled picture.

Takes and returns uint8 arrays; nothing is read or written here.

Shape legend: S samples, R high-res side, h w low-res.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from pulse_sr.images.pixels import to_pillow
from pulse_sr.report.canvas import (
    BAD,
    FAINT,
    GAP,
    INK,
    MARGIN,
    NOTICE,
    PAPER,
    Colour,
    Pixels,
    enlarge,
    resize_to_cell,
    to_array,
    write,
)
from pulse_sr.report.colour_scale import draw_scale
from pulse_sr.report.spread import disagreement, mean_image

#: What the first samples of a covering order (`metrics.covering`) are to each other.
ROLES = ("most typical", "most unlike it", "most unlike both")
_ROLE_INK = (20, 84, 150)
_HEAD, _TEXT, _FOOT = 40, 56, 30


@dataclass(frozen=True)
class SampleLabel:
    """What stands under a sample: its LR-PSNR in dB before and after the projection, above all."""

    index: int
    seed: int
    lr_psnr_search: float
    lr_psnr: float
    status: str


@dataclass(frozen=True)
class Cell:
    """A picture with up to three lines below it."""

    picture: Image.Image
    title: str
    detail: str
    colour: Colour = INK
    role: str = ""


def role_of(place: int) -> str:
    """Returns what the sample at this place of a covering order is; nothing from the fourth on."""
    return ROLES[place] if place < len(ROLES) else ""


def grid(
    low_res: Pixels,
    samples: Pixels,
    labels: Sequence[SampleLabel],
    about: str,
    order: Sequence[int] | None = None,
) -> Pixels:
    """Draws everything about one input in one labelled picture.

    First row: the input (nearest), bicubic, the mean, and where the samples disagree (standard
    deviation over the mean); then the samples.

    Args:
        low_res: uint8 [3, h, w].
        samples: uint8 [S, 3, R, R].
        labels: one per sample.
        about: the heading, such as the operator and the sizes.
        order: places of the samples in `samples`, in covering order; None: as they come.

    Returns:
        uint8 [3, H, W].
    """
    over, scale = disagreement(samples)
    side = samples.shape[-1]
    cell = resize_to_cell(samples[0]).width
    cells = [
        Cell(enlarge(low_res, cell), "input", _size_text(low_res)),
        Cell(resize_to_cell(_bicubic(low_res, side)), "bicubic", f"{side} px"),
        Cell(resize_to_cell(mean_image(samples)), "mean", f"of {len(samples)}"),
        Cell(resize_to_cell(over), "", ""),
    ]
    for place, k in enumerate(range(len(samples)) if order is None else order):
        role = "" if order is None else role_of(place)
        cells.append(_sample_cell(samples[k], labels[k], role))
    canvas = draw_cells(cells, about)
    size = max(each.picture.width for each in cells)
    draw, x = ImageDraw.Draw(canvas), MARGIN + 3 * (size + GAP)
    write(draw, (x, _HEAD + size + 3), "where they disagree", size, 14)
    draw_scale(canvas, (x, _HEAD + size + 24, x + size), scale, over_picture=True)
    return to_array(canvas)


def _sample_cell(pixels: Pixels, label: SampleLabel, role: str) -> Cell:
    good = label.status == "ok"
    text = f"{label.lr_psnr_search:.1f} > {label.lr_psnr:.1f} dB"
    text += "" if good else ", below target"
    seed = f"#{label.index}  seed {label.seed}"
    return Cell(resize_to_cell(pixels), text, seed, INK if good else BAD, role)


def draw_cells(cells: Sequence[Cell], about: str) -> Image.Image:
    """Draws four cells, and below them the others, under a heading and above the notice."""
    cell = max(each.picture.width for each in cells)
    columns = 4 if len(cells) <= 20 else 8
    step_x, step_y = cell + GAP, cell + _TEXT
    rows = 1 + -(-(len(cells) - 4) // columns)
    width = 2 * MARGIN + columns * step_x - GAP
    canvas = Image.new("RGB", (width, _HEAD + rows * step_y + _FOOT), PAPER)
    draw = ImageDraw.Draw(canvas)
    write(draw, (MARGIN, 11), about, width - 2 * MARGIN, 15)
    for i, each in enumerate(cells):
        row, column = (0, i) if i < 4 else (1 + (i - 4) // columns, (i - 4) % columns)
        x, y = MARGIN + column * step_x, _HEAD + row * step_y
        left, top = (cell - each.picture.width) // 2, (cell - each.picture.height) // 2
        canvas.paste(each.picture, (x + left, y + top))
        write(draw, (x, y + cell + 3), each.title, cell, 14, each.colour)
        write(draw, (x, y + cell + 20), each.detail, cell, 12, FAINT)
        write(draw, (x, y + cell + 35), each.role, cell, 13, _ROLE_INK)
    write(draw, (MARGIN, canvas.height - 26), NOTICE, width - 2 * MARGIN, 13, FAINT)
    return canvas


def _size_text(pixels: Pixels) -> str:
    return f"{pixels.shape[2]} x {pixels.shape[1]} px"


def _bicubic(low_res: Pixels, side: int) -> Pixels:
    """Enlarges so that the longer side is `side`, by Pillow's bicubic."""
    factor = side / max(low_res.shape[1:])
    size = (round(low_res.shape[2] * factor), round(low_res.shape[1] * factor))
    return to_array(to_pillow(low_res).resize(size, Image.Resampling.BICUBIC))
