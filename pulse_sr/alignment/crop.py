"""Cut a quad out of a photo as FFHQ did: mirrored and blurred borders, supersampled, Lanczos.

The steps and constants are those by which the FFHQ images were made (Karras et al., CVPR 2019), so
that a crop is what a prior trained on such images has seen; golden files hold them.

Shape legend: H W photo, S side of the crop.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from pulse_sr.alignment.geometry import Points, side_of
from pulse_sr.images.pixels import Pixels, to_pillow

_SUPERSAMPLING = 4


@dataclass(frozen=True)
class _Stage:
    """A picture, and where the quad lies in it."""

    picture: Image.Image
    quad: Points


def crop_quad(pixels: Pixels, quad: Points, side: int, *, parity: bool = True) -> Pixels:
    """Returns the crop [3, S, S] of a photo.

    Args:
        pixels: uint8 RGB [3, H, W].
        quad: the corners, see `geometry`; they may lie outside the photo.
        side: S.
        parity: bit by bit as FFHQ was made. What is mirrored is blurred, which reaches a tenth of
            the crop into the photo; and the crop is 0.5 levels too dark, since Pillow's bilinear
            transform of 8-bit pictures cuts fractions off. Without it every pixel inside the photo
            is true to it, and the fractions are kept to the end.
    """
    stage = prepare(to_pillow(pixels), quad, side, parity)
    corners = tuple((stage.quad + 0.5).ravel())
    if parity:
        return np.ascontiguousarray(_sample(stage.picture, corners, side).transpose(2, 0, 1))
    bands = [_sample(band.convert("F"), corners, side) for band in stage.picture.split()]
    return np.rint(np.clip(bands, 0, 255)).astype(np.uint8)


def _sample(picture: Image.Image, corners: tuple[float, ...], side: int) -> NDArray[Any]:
    """The quad as S x S pixels: bilinear at four times the side, then Lanczos."""
    large = side * _SUPERSAMPLING
    picture = picture.transform(
        (large, large), Image.Transform.QUAD, corners, Image.Resampling.BILINEAR
    )
    return np.asarray(picture.resize((side, side), Image.Resampling.LANCZOS))


def prepare(picture: Image.Image, quad: Points, side: int, blur_border: bool = True) -> _Stage:
    """Shrinks, cuts and pads the photo around the quad, before the transform."""
    stage = _shrink(_Stage(picture, quad.astype(np.float64)), side)
    return _pad(_cut(stage), blur_border)


def _shrink(stage: _Stage, side: int) -> _Stage:
    """Makes a photo smaller by a whole number where the crop is less than half its size."""
    factor = int(side_of(stage.quad) / side * 0.5)
    if factor <= 1:
        return stage
    width, height = stage.picture.size
    size = (max(round(width / factor), 1), max(round(height / factor), 1))
    return _Stage(stage.picture.resize(size, Image.Resampling.LANCZOS), stage.quad / factor)


def _border(quad: Points) -> int:
    return max(round(side_of(quad) * 0.1), 3)


def _cut(stage: _Stage) -> _Stage:
    """Cuts the photo down to the quad and a border around it."""
    border = _border(stage.quad)
    low, high = np.floor(stage.quad.min(axis=0)), np.ceil(stage.quad.max(axis=0))
    start = np.maximum(low.astype(int) - border, 0)
    stop = np.minimum(high.astype(int) + border, stage.picture.size)
    if (start >= stop).any():  # the quad lies outside: the padding makes all of it
        return stage
    box = (int(start[0]), int(start[1]), int(stop[0]), int(stop[1]))
    return _Stage(stage.picture.crop(box), stage.quad - start)


def _pad(stage: _Stage, blur_border: bool) -> _Stage:
    """Mirrors the photo where the quad reaches over its borders, blurred towards the outside."""
    border = _border(stage.quad)
    low, high = np.floor(stage.quad.min(axis=0)), np.ceil(stage.quad.max(axis=0))
    before = np.maximum(border - low.astype(int), 0)
    after = np.maximum(high.astype(int) - stage.picture.size + border, 0)
    if max(before.max(), after.max()) <= border - 4:
        return stage
    least = round(side_of(stage.quad) * 0.3)
    (left, top), (right, bottom) = np.maximum(before, least), np.maximum(after, least)
    pixels = np.asarray(stage.picture, dtype=np.float32)
    widths = ((top, bottom), (left, right), (0, 0))
    pixels = np.pad(pixels, widths, "reflect" if min(pixels.shape[:2]) > 1 else "edge")
    if blur_border:
        pixels = _fade(pixels, (left, top, right, bottom), side_of(stage.quad) * 0.02)
    rounded = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    return _Stage(Image.fromarray(rounded), stage.quad + np.array([left, top]))


def _fade(
    pixels: np.ndarray, margins: tuple[int, int, int, int], blur: float
) -> np.ndarray:  # [H, W, 3] float32
    """Blurs the margins, and leads them to the median colour at the outermost pixels."""
    height, width, _ = pixels.shape
    left, top, right, bottom = (np.float32(max(each, 1)) for each in margins)
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    depth = np.maximum(
        1.0 - np.minimum(x / left, (width - 1 - x) / right),
        1.0 - np.minimum(y / top, (height - 1 - y) / bottom),
    )[..., None]
    smooth = gaussian_filter(pixels, [blur, blur, 0])
    pixels = pixels + (smooth - pixels) * np.clip(depth * 3.0 + 1.0, 0.0, 1.0)
    middle = np.median(pixels, axis=(0, 1))
    return pixels + (middle - pixels) * np.clip(depth, 0.0, 1.0)
