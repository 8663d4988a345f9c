"""Numbers as colours, and the bar that says which colour is which number.

Shape legend: H W size of a map.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pulse_sr.images.pixels import to_pillow
from pulse_sr.report.canvas import FAINT, Pixels, font

Map = NDArray[np.float64]

# Dark to bright in nearly even steps of lightness, so that more is always brighter.
_COLOURS = (
    (10, 10, 30),
    (66, 20, 104),
    (141, 38, 107),
    (212, 76, 67),
    (247, 148, 41),
    (252, 250, 190),
)
# Over a picture: nothing to see up to a tenth of the scale, then from yellow to a deep red.
_OVERLAY_COLOURS = ((255, 228, 60), (255, 210, 40), (252, 130, 20), (226, 40, 20), (140, 0, 50))
_OVERLAY_FROM, _OVERLAY_FULL, _OVERLAY_STRENGTH = 0.1, 0.6, 0.85
# The top of a scale is the smallest of these that holds all but a few of the values.
_TOPS = (0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1.0)
_HELD = 0.99


@dataclass(frozen=True)
class Scale:
    """From 0 to `top`; values above it, 1 % at most, take the colour of the top.

    Attributes:
        top: the value at the bright end.
        label: what is measured.
        exceeded: whether some values lie above the top.
    """

    top: float
    label: str
    exceeded: bool


def scale_of(values: Map, label: str) -> Scale:
    """The scale that a map of values from 0 to 1 is read by: a few extremes do not dim the rest."""
    most = float(np.quantile(values, _HELD)) if values.size else 0.0
    top = next((top for top in _TOPS if top >= most), _TOPS[-1])
    return Scale(top, label, bool((values > top).any()))


def colour_map(values: Map) -> Pixels:  # [H, W] in [0, 1] -> [3, H, W]
    """Colours values from dark to bright; the luminance rises with the value."""
    return np.rint(_between(values, _COLOURS)).astype(np.uint8)


def overlay(picture: Pixels, values: Map) -> Pixels:
    """Lays values over a picture: where they are 0 it stays visible, in grey.

    Args:
        picture: uint8 [3, H, W].
        values: [H, W] in [0, 1].

    Returns:
        uint8 [3, H, W].
    """
    grey = np.tensordot((0.299, 0.587, 0.114), picture.astype(np.float64), axes=1)
    base = 30.0 + grey * (180.0 / 255.0)  # no black and no white: the colours stand out from it
    rise = (values - _OVERLAY_FROM) / (_OVERLAY_FULL - _OVERLAY_FROM)
    share = _OVERLAY_STRENGTH * rise.clip(0.0, 1.0)
    return np.rint(base * (1 - share) + _between(values, _OVERLAY_COLOURS) * share).astype(np.uint8)


def draw_scale(
    canvas: Image.Image, place: tuple[int, int, int], scale: Scale, over_picture: bool = False
) -> None:
    """Draws the bar of a colour map from left to right at `place` (left, y, right), labelled."""
    left, y, right = place
    ramp = np.tile(np.linspace(0.0, 1.0, right - left), (10, 1))
    middle_grey = np.full((3, *ramp.shape), 128, np.uint8)
    bar = overlay(middle_grey, ramp) if over_picture else colour_map(ramp)
    canvas.paste(to_pillow(bar), (left, y))
    draw, type_face = ImageDraw.Draw(canvas), font(12)
    end = f"{scale.top:g}" + (" or more" if scale.exceeded else "")
    end_width = draw.textlength(end, type_face)
    draw.text((left, y + 12), "0", fill=FAINT, font=type_face)
    draw.text((right - end_width, y + 12), end, fill=FAINT, font=type_face)
    free = right - end_width - left - 10
    centre = left + 10 + (free - draw.textlength(scale.label, type_face)) / 2
    draw.text((centre, y + 12), scale.label, fill=FAINT, font=type_face)


def _between(values: Map, colours: tuple[tuple[int, int, int], ...]) -> NDArray[np.float64]:
    stops = np.linspace(0.0, 1.0, len(colours))
    table = np.array(colours, dtype=np.float64)
    channels = [np.interp(values.clip(0.0, 1.0), stops, table[:, c]) for c in range(3)]
    return np.stack(channels)
