"""The enlarged photo of a run, into which the samples of its faces are put.

Shape legend: h w photo, H W enlarged photo, S side of a sample, b t the box of a face in it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_sr import __version__
from pulse_sr.alignment.crop import crop_quad
from pulse_sr.alignment.detail import beyond_detail
from pulse_sr.alignment.geometry import Points
from pulse_sr.alignment.paste import add_into, enlarged_quad, mask_box, paste_into
from pulse_sr.images.colour import from_srgb, is_srgb
from pulse_sr.images.original import Original
from pulse_sr.images.pixels import Pixels
from pulse_sr.images.png import png_parts
from pulse_sr.images.read import read_image
from pulse_sr.jobs.provenance import XMP
from pulse_sr.sr.enlarging import network_bands
from pulse_sr.sr.files import SrModel

_THUMBNAIL = 1000  # px a side, at most
_BAND = 256  # rows that are given to the PNG writer at once
_MARGIN = 4  # px of the photo around a part that is enlarged: Lanczos looks three px far


class Canvas:
    """The enlarged photo, into which faces are put and taken out again."""

    def __init__(self, original: Original, factor: int, network: SrModel | None = None) -> None:
        """Enlarges the photo.

        Args:
            original: the photo.
            factor: how many times as large.
            network: what enlarges it outside its faces; None: Lanczos does.
        """
        self.original, self.factor, self.network = original, factor, network
        plain = is_srgb(original.about.profile) and original.colour.dtype == np.uint8
        plain = plain and len(original.colour) == 3
        self.photo = original.colour if plain else read_image(original.path).pixels
        self.opacity = None
        if original.opacity is not None:
            self.opacity = _enlarged(original.opacity[None], factor)
        self.stored = self._large(original.colour)  # as the file has it
        if plain:
            self.pixels: Pixels = self.stored
        else:
            self.pixels = self._large(self.photo)
        self._saved: list[tuple[tuple[slice, slice], Pixels, NDArray[Any]]] = []

    def _large(self, channels: NDArray[Any]) -> NDArray[Any]:  # [c, h, w] -> [c, H, W]
        if self.network is None:
            return _enlarged(channels, self.factor)
        height, width = (size * self.factor for size in channels.shape[1:])
        made = np.empty((len(channels), height, width), channels.dtype)
        three, start = np.broadcast_to(channels, (3, *channels.shape[1:])), 0
        for band in network_bands(self.network, three, self.factor):
            stop = start + band.shape[1]
            grey = len(channels) == 1
            made[:, start:stop] = np.rint(band.mean(axis=0, keepdims=True)) if grey else band
            start = stop
        return made

    def put(self, sample: Pixels, corners: Points, real_size: float, detail: int) -> None:
        """Puts a sample in the place of a face.

        Args:
            sample: uint8 RGB [3, S, S].
            corners: the quad of the face in the photo as it came.
            real_size: side of its crop in pixels of the photo.
            detail: up to which side the photo shows it with detail of its own.
        """
        quad = enlarged_quad(corners, self.factor)
        found = mask_box(quad, self.pixels.shape[2], self.pixels.shape[1])
        if found is None:
            return
        (rows, columns), weight = found
        place = (slice(None), rows, columns)
        before = self.pixels[place].copy()
        self._saved.append(((rows, columns), before, self.stored[place].copy()))
        # What a network made up would be there twice: a face goes into the plainly enlarged photo.
        plain = self.network is not None
        below = _enlarged_part(self.photo, rows, columns, self.factor) if plain else before.copy()
        here = quad - (columns.start, rows.start)
        if real_size > sample.shape[-1]:  # searched all the same, because it was asked for
            paste_into(below, sample, here)
        else:
            own_crop = crop_quad(self.photo, corners, sample.shape[-1], parity=False)
            change = beyond_detail(sample.astype(np.float64) - own_crop, detail)
            add_into(below, change, here)
        if plain:
            mixed = before + weight * (below.astype(np.float64) - before)
            below = np.rint(mixed).astype(np.uint8)
        self.pixels[place] = below
        if self.stored is not self.pixels:
            changed = weight > 0
            own = _as_stored(self.pixels[place], self.original, self.stored)
            self.stored[place] = np.where(changed, own, self.stored[place])

    def restore(self) -> None:
        """Takes all faces out again."""
        while self._saved:
            (rows, columns), pixels, stored = self._saved.pop()
            self.pixels[:, rows, columns] = pixels
            self.stored[:, rows, columns] = stored

    def thumbnail(self) -> bytes:
        """A JPEG of at most `_THUMBNAIL` px a side, for the page."""
        height, width = self.pixels.shape[1:]
        shrink = min(1.0, _THUMBNAIL / max(height, width))
        size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
        small = [  # channel by channel: Pillow's RGB pixels have four bytes, beside a copy
            Image.fromarray(channel).resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
            for channel in self.pixels
        ]
        buffer = io.BytesIO()
        comment = f"pulse-sr {__version__}"
        Image.merge("RGB", small).save(buffer, "JPEG", quality=90, comment=comment)
        return buffer.getvalue()

    def png(self, chunks: dict[str, str]) -> Iterator[bytes]:
        """The photo as a PNG file, in pieces."""
        _, height, width = self.stored.shape
        return png_parts((height, width), self._bands(), chunks, self.original.about, XMP)

    def _bands(self) -> Iterator[NDArray[Any]]:
        for start in range(0, self.stored.shape[1], _BAND):
            band = self.stored[:, start : start + _BAND]
            if self.opacity is not None:
                band = np.concatenate([band, self.opacity[:, start : start + _BAND]])
            yield band


def _as_stored(pixels: Pixels, original: Original, stored: NDArray[Any]) -> NDArray[Any]:
    """8-bit sRGB [3, b, t] as the numbers of the file: its profile, channels and depth."""
    own = from_srgb(pixels, original.about.profile, grey=len(stored) == 1)
    return own.astype(stored.dtype) * 257 if stored.dtype == np.uint16 else own


def _enlarged(channels: NDArray[Any], factor: int) -> NDArray[Any]:  # [c, h, w] -> [c, H, W]
    """Enlarges by Lanczos; by 1 it is a copy, bit by bit."""
    if factor == 1:
        return channels.copy()
    height, width = channels.shape[1] * factor, channels.shape[2] * factor
    made = np.empty((len(channels), height, width), channels.dtype)
    for channel, target in zip(channels, made, strict=True):
        deep = channel.dtype == np.uint16
        image = Image.fromarray(channel.astype(np.float32) if deep else channel)
        large = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
        target[:] = np.rint(np.clip(large, 0, 65535)) if deep else large
    return made


def _enlarged_part(
    channels: NDArray[Any], rows: slice, columns: slice, factor: int
) -> NDArray[Any]:  # [c, h, w] -> [c, b, t]
    """A part of the enlarged picture, as `_enlarged` makes the whole."""
    down, across = (
        slice(max(each.start // factor - _MARGIN, 0), -(-each.stop // factor) + _MARGIN)
        for each in (rows, columns)
    )
    top, left = rows.start - down.start * factor, columns.start - across.start * factor
    part = _enlarged(channels[:, down, across], factor)
    part = part[:, top : top + rows.stop - rows.start, left : left + columns.stop - columns.start]
    return part.copy()
