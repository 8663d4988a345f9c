"""Pictures of how much the samples differ: deviation, 90 % interval, and where on the face.

All take and return uint8 arrays; nothing is read or written here.

Shape legend: S samples, R high-res side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from pulse_sr.metrics.interval import DEFAULT_LEVEL, highest_coverage, sample_interval
from pulse_sr.report.canvas import (
    FAINT,
    GAP,
    INK,
    MARGIN,
    NOTICE,
    PAPER,
    Pixels,
    line_height,
    resize_to_cell,
    to_array,
    wrap,
    write,
    write_lines,
)
from pulse_sr.report.colour_scale import Map, Scale, colour_map, draw_scale, overlay, scale_of

_STD = "pixel std"
# Sorted at once: the rest of the picture comes later, so that memory is bounded.
_VALUES = 2**23
# The overlay shows regions, not single pixels: a Gaussian of this share of the side.
_REGION = 1 / 64


@dataclass(frozen=True)
class Interval:
    """The interval of every pixel value over the samples, in [0, 1].

    Attributes:
        low, high: float64 [3, R, R]; each channel by itself, so neither is a face.
        level: such as 0.9.
        coverage: the share of truths that it can promise to hold, at most.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]
    level: float
    coverage: float

    @property
    def width(self) -> Map:  # [R, R]
        """Upper minus lower end, mean over the three channels."""
        return np.asarray((self.high - self.low).mean(axis=0))


def interval_of(samples: Pixels, level: float = DEFAULT_LEVEL) -> Interval:  # [S, 3, R, R]
    """Returns the interval over the samples (`metrics.interval`)."""
    parts = np.array_split(samples, -(-samples.size // _VALUES), axis=2)
    ends = [sample_interval(torch.from_numpy(part / 255.0), level) for part in parts]
    low, high = (torch.cat(each, dim=1).numpy() for each in zip(*ends, strict=True))
    return Interval(low, high, level, highest_coverage(len(samples), level))


def mean_image(samples: Pixels) -> Pixels:  # [S, 3, R, R] -> [3, R, R]
    """Returns the pixel mean over the samples, rounded to 8 bits."""
    return np.rint(samples.astype(np.float64).mean(axis=0)).astype(np.uint8)


def std_map(samples: Pixels) -> Map:  # [S, 3, R, R] -> [R, R]
    """Returns the standard deviation over the samples in [0, 0.5], RMS over the three channels."""
    variance = (samples.astype(np.float64) / 255.0).var(axis=0)
    return np.sqrt(variance.mean(axis=0))


def region_std(samples: Pixels) -> Map:  # [S, 3, R, R] -> [R, R]
    """Returns `std_map`, RMS over a small region around each pixel instead of the pixel alone.

    The region is a Gaussian of a 64th of the side, so that a person sees eyes or mouth in it.
    """
    variance = std_map(samples) ** 2
    mean = gaussian_filter(variance, _REGION * len(variance), mode="reflect", truncate=3.0)
    return np.asarray(np.sqrt(mean))


def std_image(samples: Pixels) -> Pixels:  # [S, 3, R, R] -> [3, H, W]
    """Returns the spread over the samples as a colour map, with a labelled scale below it.

    Small priors are enlarged by a whole number so that the labels are readable.
    """
    values = std_map(samples)
    scale = scale_of(values, _STD)
    return _with_scale(colour_map(values / scale.top), scale, over_picture=False)


def disagreement(samples: Pixels) -> tuple[Pixels, Scale]:  # [S, 3, R, R] -> [3, R, R]
    """Returns the grey mean with `region_std` laid over it, and the scale of the colours."""
    values = region_std(samples)
    scale = scale_of(values, "std around a pixel")
    return overlay(mean_image(samples), values / scale.top), scale


def disagreement_image(samples: Pixels) -> Pixels:  # [S, 3, R, R] -> [3, H, W]
    """Returns `disagreement` with its scale below it."""
    picture, scale = disagreement(samples)
    return _with_scale(picture, scale, over_picture=True)


def interval_image(samples: Pixels, level: float = DEFAULT_LEVEL) -> Pixels:
    """Draws lower end, upper end and width of the interval in one labelled picture.

    Args:
        samples: uint8 [S, 3, R, R].
        level: such as 0.9.

    Returns:
        uint8 [3, H, W].
    """
    found = interval_of(samples, level)
    scale = scale_of(found.width, "width of the interval")
    ends = [np.rint(end * 255.0).astype(np.uint8) for end in (found.low, found.high)]
    pictures = [resize_to_cell(each) for each in (*ends, colour_map(found.width / scale.top))]
    cell = pictures[0].width
    width = 2 * MARGIN + 3 * cell + 2 * GAP
    text = _explain(found, len(samples))
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    head = 38 + line_height(13) * len(wrap(measure, text, width - 2 * MARGIN, 13)) + 8
    canvas = Image.new("RGB", (width, head + cell + 74), PAPER)
    draw = ImageDraw.Draw(canvas)
    title = f"{level * 100:g} % interval of every pixel, {_count(len(samples))}"
    write(draw, (MARGIN, 12), title, width - 2 * MARGIN, 17)
    write_lines(draw, (MARGIN, 38), text, width - 2 * MARGIN, 13, FAINT)
    labels = _end_names(found, len(samples))
    for i, picture in enumerate(pictures):
        canvas.paste(picture, (MARGIN + i * (cell + GAP), head))
    for i, label in enumerate(labels):
        write(draw, (MARGIN + i * (cell + GAP), head + cell + 5), label, cell, 14, INK)
    left = MARGIN + 2 * (cell + GAP)
    draw_scale(canvas, (left, head + cell + 8, left + cell), scale)
    write(draw, (MARGIN, canvas.height - 26), NOTICE, width - 2 * MARGIN, 13, FAINT)
    return to_array(canvas)


def _end_names(found: Interval, count: int) -> tuple[str, str]:
    if count < _samples_for(found):
        return "lower end: the least", "upper end: the greatest"
    lower, upper = 50 * (1 - found.level), 50 * (1 + found.level)
    return f"lower end ({lower:g} %)", f"upper end ({upper:g} %)"


def _explain(found: Interval, count: int) -> str:
    if count == 1:
        return "One sample has no spread: its interval is the sample itself."
    ends = "From the least to the greatest of the samples: " if count < _samples_for(found) else ""
    return (
        f"{ends}{'can' if ends else 'Can'} hold the truth in {found.coverage * 100:.0f} % of the "
        "pixels at most, and only if the samples vary as real faces do. Mean width "
        f"{found.width.mean():.3f} (0 to 1). Every colour by itself, so the two ends are no faces."
    )


def _samples_for(found: Interval) -> float:
    """From how many samples on an interval is narrower than their range."""
    return (1 + found.level) / (1 - found.level)


def _count(number: int) -> str:
    return f"{number} sample" + ("" if number == 1 else "s")


def _with_scale(pixels: Pixels, scale: Scale, *, over_picture: bool) -> Pixels:
    picture = resize_to_cell(pixels)
    cell = picture.width
    canvas = Image.new("RGB", (cell, cell + 46), PAPER)
    canvas.paste(picture, (0, 0))
    draw_scale(canvas, (8, cell + 8, cell - 8), scale, over_picture)
    return to_array(canvas)
