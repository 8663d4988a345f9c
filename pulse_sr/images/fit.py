"""Place a picture on the square low-res grid of a prior: sizes, padding, cropping.

Shape legend: h w low-res (input) size. Pixels are uint8 RGB [3, h, w]. No torch here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from pulse_sr.errors import InputError, UsageError
from pulse_sr.images.pixels import Pixels, to_pillow
from pulse_sr.images.read import LowResImage


@dataclass(frozen=True)
class FittedInput:
    """A picture placed on the square low-res grid of a prior.

    Attributes:
        pixels: uint8 RGB [3, h', w'], the observed pixels only, no padding.
        side: side of the square grid; divides the prior's resolution.
        rows: half-open range of grid rows that `pixels` cover.
        columns: half-open range of grid columns that `pixels` cover.
        notes: the notes of the image, then what fitting changed.
    """

    pixels: Pixels
    side: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    notes: tuple[str, ...]


def fit_to_prior(
    image: LowResImage,
    resolution: int,
    fit: str | None = None,
    scale: int | None = None,
    *,
    keeps_size: bool = False,
) -> FittedInput:
    """Places a picture on the square low-res grid of a prior.

    A picture that is not square lies centred in the square of its longer side ("pad", also the
    default); the padding is unobserved, no pixels are made up. "crop" takes the centre square.
    The side must divide the resolution. Only a `fit` given explicitly allows a resize (Pillow's
    antialiased bicubic) to the nearest side that does, the smaller of two equally near ones.

    Args:
        image: the picture.
        resolution: side of the prior's images, H = W.
        fit: `pad`, `crop` or None.
        scale: resolution / side if the user asked for one; None takes it from the picture.
        keeps_size: the side is the resolution, as in-painting and colourisation have it.

    Raises:
        UsageError: unknown `fit`, or a scale that does not divide the resolution into 4 or more.
        InputError: the side does not divide the resolution, is below 4, not below the resolution
            (unless `keeps_size`), or differs from resolution / scale.
    """
    if fit not in (None, "pad", "crop"):
        raise UsageError(f"--fit got {fit!r}, expected pad or crop", "--fit pad")
    sides = [resolution] if keeps_size else low_res_sides(resolution, scale)
    pixels, notes = image.pixels, list(image.notes)
    height, width = pixels.shape[1:]
    side = min(height, width) if fit == "crop" else max(height, width)
    if side not in sides:
        if fit is None:
            raise _misfit(image, resolution, sides, scale)
        side = min(sides, key=lambda known: (abs(known - side), known))
    if fit == "crop" and height != width:
        square = min(height, width)
        pixels = _centre_crop(pixels, square)
        notes.append(f"cropped from {width}x{height} to the centre {square}x{square}")
    height, width = pixels.shape[1:]
    if max(height, width) != side:
        pixels = _resize(pixels, side)
        notes.append(
            f"resized from {width}x{height} to {pixels.shape[2]}x{pixels.shape[1]} (bicubic)"
        )
        height, width = pixels.shape[1:]
    if height != width:
        notes.append(f"padded from {width}x{height} to {side}x{side}: the padding is unobserved")
    top, left = (side - height) // 2, (side - width) // 2
    return FittedInput(pixels, side, (top, top + height), (left, left + width), tuple(notes))


def over_input(
    high: Any, side: int, rows: tuple[int, int], columns: tuple[int, int]
) -> Any:  # an array or tensor [..., H, W]
    """Returns the part of high-res pixels that lies over an input, not over its padding.

    Args:
        high: pixels [..., H, W] over the whole grid, an array or a tensor.
        side, rows, columns: see `FittedInput`.
    """
    down, across = (
        slice(*(end * size // side for end in ends))
        for ends, size in zip((rows, columns), high.shape[-2:], strict=True)
    )
    return high[..., down, across]


def low_res_sides(resolution: int, scale: int | None) -> list[int]:
    """Returns the low-res sides that the prior and `--scale` allow, smallest first.

    Raises:
        UsageError: a scale that does not divide the resolution into 4 or more.
    """
    sides = [side for side in range(4, resolution) if resolution % side == 0]
    if scale is None:
        return sides
    if scale < 1 or resolution % scale or resolution // scale not in sides:
        known = ", ".join(str(resolution // side) for side in reversed(sides))
        raise UsageError(
            f"--scale {scale} does not fit the prior's {resolution} px, expected one of {known}",
            f"--scale {resolution // sides[-1]}",
        )
    return [resolution // scale]


def _misfit(image: LowResImage, resolution: int, sides: list[int], scale: int | None) -> InputError:
    side = max(image.width, image.height)
    nearest = min(sides, key=lambda known: (abs(known - side), known))
    if scale is None:
        known = ", ".join(map(str, sides))
        wanted = f"a prior of {resolution} px needs a side of {known}"
    else:
        wanted = f"--scale {scale} of a {resolution} px prior needs a side of {nearest}"
    return InputError(
        f"{image.path} is {image.width}x{image.height} px, its side is {side}: {wanted}",
        f"--fit pad (or --fit crop) resizes it to {nearest}",
    )


def _centre_crop(pixels: Pixels, side: int) -> Pixels:
    top, left = (pixels.shape[1] - side) // 2, (pixels.shape[2] - side) // 2
    return np.ascontiguousarray(pixels[:, top : top + side, left : left + side])


def _resize(pixels: Pixels, side: int) -> Pixels:
    """Resizes so that the longer side is `side`, keeping the aspect ratio."""
    height, width = pixels.shape[1:]
    ratio = side / max(height, width)
    size = (max(round(width * ratio), 1), max(round(height * ratio), 1))
    resized = to_pillow(pixels).resize(size, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(resized).transpose(2, 0, 1))
