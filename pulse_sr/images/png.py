"""PNG files row by row: a picture that is larger than memory is written as it is made.

ISO/IEC 15948 (PNG, third edition). Each row is filtered by the method with the least sum of
absolute differences, as section 12.7 advises.

Shapes: w width in pixels, c channels (1 grey, 2 grey and alpha, 3 RGB, 4 RGB and alpha), b rows of
a band, p bytes of a pixel.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pulse_sr.images.pixels import Pixels

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}  # by the number of channels
_LEVEL = 4  # of deflate: 6 takes twice as long for 2 % of the size
_ROWS = 64  # filtered together
_CHUNK = 1 << 20


@dataclass(frozen=True)
class About:
    """What a picture keeps of the file that it was made of.

    Attributes:
        profile: ICC profile.
        exif: an EXIF block, without the marker that JPEG files put in front.
        dpi: pixels per inch, horizontal and vertical.
    """

    profile: bytes | None = None
    exif: bytes | None = None
    dpi: tuple[float, float] | None = None


def png_parts(
    size: tuple[int, int],
    bands: Iterable[NDArray[np.uint8] | NDArray[np.uint16]],
    text: Mapping[str, str] | None = None,
    about: About | None = None,
    xmp: str | None = None,
) -> Iterator[bytes]:
    """A PNG file in pieces.

    Args:
        size: (height, width).
        bands: uint8 or uint16 `[c, b, w]` from top to bottom, at least one; all of one type.
        text: text chunks in the order of the mapping, Latin-1.
        about: what the picture keeps of the file that it was made of.
        xmp: an XMP packet.

    Raises:
        ValueError: when the bands do not make a picture of this size.
    """
    height, width = size
    remaining, deflate = height, zlib.compressobj(_LEVEL)
    above: Pixels | None = None
    shape: tuple[int, type] | None = None
    pending = bytearray()
    for band in bands:
        if shape is None:
            shape = (len(band), band.dtype.type)
            yield _SIGNATURE + _header(size, *shape) + _about(text or {}, about or About(), xmp)
        if (len(band), band.dtype.type) != shape or band.shape[2] != width:
            raise ValueError(f"a band of {band.dtype} {band.shape} in a picture of {width} px")
        remaining -= band.shape[1]
        pixel = shape[0] * band.dtype.itemsize
        for start in range(0, band.shape[1], _ROWS):
            rows = _bytes_of(band[:, start : start + _ROWS])
            pending += deflate.compress(_filtered(rows, above, pixel).tobytes())
            above = rows[-1]
            if len(pending) >= _CHUNK:
                yield _chunk(b"IDAT", bytes(pending))
                pending.clear()
    if remaining or shape is None:
        raise ValueError(f"{height - remaining} rows for a picture of {height}")
    yield _chunk(b"IDAT", bytes(pending) + deflate.flush()) + _chunk(b"IEND", b"")


def _header(size: tuple[int, int], channels: int, kind: type) -> bytes:
    height, width = size
    depth = 8 * np.dtype(kind).itemsize
    fields = (width, height, depth, _COLOUR_TYPES[channels], 0, 0, 0)
    return _chunk(b"IHDR", struct.pack(">IIBBBBB", *fields))


def _about(text: Mapping[str, str], about: About, xmp: str | None) -> bytes:
    parts = []
    if about.profile is not None:
        parts.append(_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(about.profile)))
    if about.dpi is not None:
        per_metre = [round(each / 0.0254) for each in about.dpi]
        parts.append(_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
    if about.exif is not None:
        parts.append(_chunk(b"eXIf", about.exif))
    for key, value in text.items():
        parts.append(_chunk(b"tEXt", f"{key}\0{value}".encode("latin-1")))
    if xmp is not None:
        parts.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp.encode()))
    return b"".join(parts)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _bytes_of(band: NDArray[np.uint8] | NDArray[np.uint16]) -> Pixels:  # [c, b, w] -> [b, w p]
    ordered = band.transpose(1, 2, 0).astype(band.dtype.newbyteorder(">"))
    return np.ascontiguousarray(ordered).view(np.uint8).reshape(len(ordered), -1)


def _filtered(rows: Pixels, above: Pixels | None, pixel: int) -> Pixels:
    """Rows `[b, w p]` as they are deflated, `[b, 1 + w p]`: the method, then the differences."""
    before = np.empty_like(rows)  # the row above
    before[0] = 0 if above is None else above
    before[1:] = rows[:-1]
    left, corner = (
        np.pad(each, ((0, 0), (pixel, 0)))[:, : rows.shape[1]] for each in (rows, before)
    )
    average = ((left.astype(np.uint16) + before) // 2).astype(np.uint8)
    predicted = (np.zeros_like(rows), left, before, average, _paeth(left, before, corner))
    differences = np.stack([rows - each for each in predicted])  # [5, b, w p], modulo 256
    costs = np.abs(differences.view(np.int8).astype(np.int16)).sum(axis=2, dtype=np.int64)
    best = costs.argmin(axis=0)
    chosen = differences[best, np.arange(len(rows))]
    return np.concatenate([best.astype(np.uint8)[:, None], chosen], axis=1)


def _paeth(left: Pixels, above: Pixels, corner: Pixels) -> Pixels:
    """Of three neighbours the one nearest to `left + above - corner` (section 9.4)."""
    a, b, c = (each.astype(np.int16) for each in (left, above, corner))
    to_a, to_b, to_c = np.abs(b - c), np.abs(a - c), np.abs(a + b - 2 * c)
    nearest = np.where((to_a <= to_b) & (to_a <= to_c), left, np.where(to_b <= to_c, above, corner))
    found: Pixels = nearest.astype(np.uint8)
    return found
