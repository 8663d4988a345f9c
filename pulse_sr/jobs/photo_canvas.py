"""The enlarged photo of a run, into which the samples of its faces are put.

Shape legend: h w photo, H W enlarged photo, S side of a sample, b t the box of a face in it.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import laplace

from pulse_sr import __version__
from pulse_sr.alignment.crop import crop_quad
from pulse_sr.alignment.detail import as_photo
from pulse_sr.alignment.geometry import Points
from pulse_sr.alignment.paste import Box, change_at, enlarged_quad, mask, mask_box, paste_into
from pulse_sr.images.original import Original, as_stored, srgb_of
from pulse_sr.images.pixels import Pixels, to_pillow
from pulse_sr.images.png import png_parts
from pulse_sr.jobs.provenance import COMMENT, XMP
from pulse_sr.sr.enlarging import network_bands
from pulse_sr.sr.files import SrModel

_THUMBNAIL = 1000  # px a side, at most
_BAND = 256  # rows that are given to the PNG writer at once
_MARGIN = 8  # px of the photo around a part that is looked at: Lanczos looks three px far
_PIECE = 16 * 2**20  # px of the enlarged photo that are made at once


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
        self.opacity = None
        if original.opacity is not None:
            self.opacity = _enlarged(original.opacity[None], factor)
        self.stored = self._large(original.colour)  # as the file has it
        self._saved: list[tuple[Box, NDArray[Any]]] = []

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)."""
        return self.stored.shape[1], self.stored.shape[2]

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

    def put(self, sample: Pixels, corners: Points, real_size: float, detail: int) -> bool:
        """Puts a sample in the place of a face; False: the photo is finer there, and stays.

        Args:
            sample: uint8 RGB [3, S, S].
            corners: the quad of the face in the photo as it came.
            real_size: side of its crop in pixels of the photo.
            detail: up to which side the photo shows it with detail of its own.
        """
        quad = enlarged_quad(corners, self.factor)
        found = mask_box(quad, *self.size[::-1])
        if found is None:
            return True
        part = self._around(found[0], _MARGIN)
        box, profile = _times(part, self.factor), self.original.about.profile
        weight, here = mask(quad, *box), quad - (box[1].start, box[0].start)
        stored = self.stored[:, *box]
        photo, before = self._photo(part), srgb_of(stored, profile)
        # What a network made up would be there twice: a face goes into the plainly enlarged photo.
        plain = before if self.network is None else _enlarged(photo, self.factor)
        if real_size > sample.shape[-1]:  # searched all the same, because it was asked for
            below = plain.copy()
            paste_into(below, sample, here)
            made = below.astype(np.float64)
        else:
            whole = self._around(found[0], int(real_size) + _MARGIN)  # what may be mirrored too
            place = corners - (whole[1].start, whole[0].start)
            own = crop_quad(self._photo(whole), place, sample.shape[-1], parity=False)
            change = change_at(sample.astype(np.float64) - own, quad, box)
            made = as_photo(plain + weight * change, photo, weight, detail / real_size)
            if _fineness(made, weight) < _fineness(plain, weight):
                return False
        if self.network is not None:
            made = before + weight * (made - before)
        levels = np.rint(np.clip(made, 0, 255)).astype(np.uint8)
        self._saved.append((box, stored.copy()))
        change_stored = _difference(levels, before, stored, profile)
        stored[:] = np.where(weight > 0, _plus(stored, change_stored), stored)
        return True

    def _around(self, box: Box, margin: int) -> Box:
        """The part of the photo that holds a box of the enlarged one, and a margin in its px."""
        down, across = (
            slice(
                max(each.start // self.factor - margin, 0),
                min(-(-each.stop // self.factor) + margin, most),
            )
            for each, most in zip(box, self.original.size, strict=True)
        )
        return down, across

    def _photo(self, part: Box) -> Pixels:
        return srgb_of(self.original.colour[:, *part], self.original.about.profile)

    def restore(self) -> None:
        """Takes all faces out again."""
        while self._saved:
            box, stored = self._saved.pop()
            self.stored[:, *box] = stored

    def thumbnail(self) -> bytes:
        """A JPEG of at most `_THUMBNAIL` px a side, for the page; with faces in it, it says so."""
        height, width = self.size
        shrink = min(1.0, _THUMBNAIL / max(height, width))
        size = (max(round(width * shrink), 1), max(round(height * shrink), 1))
        # Channel by channel: Pillow's RGB pixels have four bytes, beside a copy.
        small = [_shrunk(channel, size) for channel in self.stored]
        buffer = io.BytesIO()
        rgb = srgb_of(np.stack(small), self.original.about.profile)
        comment = COMMENT if self._saved else f"pulse-sr {__version__}"
        to_pillow(rgb).save(buffer, "JPEG", quality=90, comment=comment)
        return buffer.getvalue()

    def png(self, chunks: dict[str, str]) -> Iterator[bytes]:
        """The photo as a PNG file, in pieces."""
        return png_parts(self.size, self._bands(), chunks, self.original.about, XMP)

    def _bands(self) -> Iterator[NDArray[Any]]:
        for start in range(0, self.size[0], _BAND):
            band = self.stored[:, start : start + _BAND]
            if self.opacity is not None:
                band = np.concatenate([band, self.opacity[:, start : start + _BAND]])
            yield band


def _difference(
    levels: Pixels, before: Pixels, like: NDArray[Any], profile: bytes | None
) -> NDArray[np.int32]:
    """What changes in the numbers of the file where sRGB `before` becomes `levels`.

    Not the numbers themselves: on the way through 8-bit sRGB 16 bits lose their low ones, and wide
    colours what sRGB has no name for.
    """
    made, own = (as_stored(each, like, profile).astype(np.int32) for each in (levels, before))
    return made - own


def _plus(stored: NDArray[Any], change: NDArray[np.int32]) -> NDArray[Any]:
    return np.clip(stored + change, 0, np.iinfo(stored.dtype).max).astype(stored.dtype)


def _fineness(pixels: NDArray[Any], weight: NDArray[np.float64]) -> float:
    """The variance of the Laplacian where a face is all there."""
    grey = np.rint(np.clip(pixels, 0, 255), dtype=np.float64).mean(axis=0)
    return float(laplace(grey)[weight == 1].var())


def _shrunk(channel: NDArray[Any], size: tuple[int, int]) -> Pixels:  # [H, W]
    """The high bytes of a channel by Lanczos, a band at a time, as `reducing_gap=3` does it."""
    shape = channel.shape[::-1]
    across, down = (max(int(own / new / 3), 1) for own, new in zip(shape, size, strict=True))
    bands = (channel[start : start + _BAND * down] for start in range(0, shape[1], _BAND * down))
    parts = [Image.fromarray(_high_byte(each)).reduce((across, down)) for each in bands]
    whole = Image.fromarray(np.concatenate([np.asarray(each) for each in parts]))
    box = (0, 0, shape[0] / across, shape[1] / down)
    return np.asarray(whole.resize(size, Image.Resampling.LANCZOS, box))


def _high_byte(channel: NDArray[Any]) -> Pixels:  # [H, W] as it lies in memory
    if channel.dtype == np.uint8:
        return channel
    high = 1 if sys.byteorder == "little" else 0
    return np.ascontiguousarray(channel.view(np.uint8)[:, high::2])


def _times(part: Box, factor: int) -> Box:
    down, across = (slice(each.start * factor, each.stop * factor) for each in part)
    return down, across


def _enlarged(channels: NDArray[Any], factor: int) -> NDArray[Any]:  # [c, h, w] -> [c, H, W]
    """Enlarges by Lanczos, a band at a time; by 1 it is a copy, bit by bit."""
    if factor == 1:
        return channels.copy()
    count, height, width = channels.shape
    made = np.empty((count, height * factor, width * factor), channels.dtype)
    rows = max(_PIECE // (width * factor**2), 1)
    for start in range(0, height, rows):
        stop, above = min(start + rows, height), min(start, _MARGIN)
        piece = channels[:, start - above : stop + _MARGIN]
        for plane, target in zip(piece, made, strict=True):
            large = _lanczos(plane, factor)[above * factor :]
            target[start * factor : stop * factor] = large[: (stop - start) * factor]
    return made


def _lanczos(plane: NDArray[Any], factor: int) -> NDArray[Any]:  # [h, w] -> [H, W]
    """One channel; 16 bits in floating point."""
    size = (plane.shape[1] * factor, plane.shape[0] * factor)
    deep = plane.dtype == np.uint16
    image = Image.fromarray(plane.astype(np.float32) if deep else plane)
    large = np.asarray(image.resize(size, Image.Resampling.LANCZOS))
    return np.rint(np.clip(large, 0, 65535)) if deep else large
