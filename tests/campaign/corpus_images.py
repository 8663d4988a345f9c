"""Damaged and hostile pictures, made from a seed."""

from __future__ import annotations

import functools
import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np
import pillow_heif
from PIL import Image, ImageCms

#: Name of the file -> its bytes.
Case = tuple[str, bytes]

PNG_HEAD = b"\x89PNG\r\n\x1a\n"
_FORMATS = {
    "png": {},
    "jpg": {"quality": 90},
    "tif": {"compression": "tiff_lzw"},
    "webp": {"lossless": True},
    "heic": {},
    "gif": {},
}


def cases(seed: int) -> Iterator[Case]:
    """About 220 of them."""
    for suffix in _FORMATS:
        whole = sound(suffix)
        for number in range(28):
            rng = random.Random(f"{seed}/{suffix}/{number}")
            kind = list(DAMAGES)[number % len(DAMAGES)]
            yield f"{kind}-{number}.{suffix}", DAMAGES[kind](whole, rng)
    yield from _hostile_png()
    yield from _hostile_tiff()
    yield from _hostile_jpeg()
    yield from _others()


@functools.cache
def sound(suffix: str) -> bytes:
    """A picture of 32 x 24 px with nothing wrong."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
    pillow_heif.register_heif_opener()
    stream = io.BytesIO()
    form = {"jpg": "JPEG", "tif": "TIFF", "heic": "HEIF"}.get(suffix, suffix.upper())
    Image.fromarray(pixels).save(stream, form, **_FORMATS[suffix])
    return stream.getvalue()


# Damages that suit any file


def truncated(data: bytes, rng: random.Random) -> bytes:
    """Its beginning."""
    return data[: rng.randrange(1, len(data))]


def flipped(data: bytes, rng: random.Random) -> bytes:
    """Some bits are others."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 3, 30))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def beheaded(data: bytes, rng: random.Random) -> bytes:
    """Bytes near the beginning, where lengths and counts are, are others."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 2, 4))):
        changed[rng.randrange(min(len(changed), 64))] = rng.choice((0, 1, 127, 128, 255))
    return bytes(changed)


def overwritten(data: bytes, rng: random.Random) -> bytes:
    """A range holds one byte again and again, or noise."""
    start = rng.randrange(len(data))
    size = min(len(data) - start, rng.choice((4, 64, 1024)))
    filling = rng.choice((bytes(size), b"\xff" * size, rng.randbytes(size)))
    return data[:start] + filling + data[start + size :]


def repeated(data: bytes, rng: random.Random) -> bytes:
    """A range comes twice, or the file does."""
    start = rng.randrange(len(data))
    stop = start + rng.choice((8, 200, len(data)))
    return data[:stop] + data[start:]


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    each.__name__: each for each in (truncated, flipped, beheaded, overwritten, repeated)
}

# Pictures that mean harm


def chunk(kind: bytes, data: bytes, crc: int | None = None) -> bytes:
    """A chunk of a PNG."""
    found = zlib.crc32(kind + data) if crc is None else crc
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", found)


def head(width: int = 8, height: int = 8, depth: int = 8, colour: int = 2, more: int = 0) -> bytes:
    """The first chunk of a PNG."""
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, more))


def _hostile_png() -> Iterator[Case]:
    pixels = chunk(b"IDAT", zlib.compress(bytes(25 * 8)))
    end, bomb = chunk(b"IEND", b""), zlib.compress(bytes(30_000_000), 9)
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    profile = made[:24] + bytes(12) + made[36:]  # without the time
    parts = {
        "wide": head(2**31 - 1, 1) + pixels,
        "square": head(65535, 65535) + pixels,
        "nothing": head(0, 0) + pixels,
        "negative": head(2**32 - 1, 2**32 - 1) + pixels,
        "depth": head(depth=3) + pixels,
        "colour": head(colour=5) + pixels,
        "palette": head(colour=3) + pixels,
        "interlaced": head(more=1) + pixels,
        "no-pixels": head(),
        "no-head": pixels,
        "two-heads": head() + head(9, 9) + pixels,
        "crc-head": chunk(b"IHDR", head()[8:-4], 1) + pixels,
        "crc-pixels": head() + chunk(b"IDAT", zlib.compress(bytes(200)), 1),
        "few-pixels": head(4000, 4000) + pixels,
        "bomb-pixels": head() + chunk(b"IDAT", bomb),
        "bomb-text": head() + chunk(b"zTXt", b"a\0\0" + bomb) + pixels,
        "bomb-profile": head() + chunk(b"iCCP", b"a\0\0" + bomb) + pixels,
        "no-profile": head() + chunk(b"iCCP", b"") + pixels,
        "text-profile": head() + chunk(b"iCCP", b"a\0\0" + zlib.compress(b"no")) + pixels,
        "half-profile": head() + chunk(b"iCCP", b"a\0\0" + zlib.compress(profile[:200])) + pixels,
        "size-profile": head()
        + chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\xff" * 4 + profile[4:]))
        + pixels,
        "long-chunk": head() + struct.pack(">I", 2**31 - 1) + b"tEXt" + pixels,
        "unknown": head() + chunk(b"ABCD", b"x") + pixels,
        "frames": head() + chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0)) + pixels,
        "exif": head() + chunk(b"eXIf", b"II*\0\xff\xff\xff\xff") + pixels,
        "exif-loop": head() + chunk(b"eXIf", _loop()) + pixels,
        "transparency": head() + chunk(b"tRNS", b"\0") + pixels,
        "gamma": head() + chunk(b"gAMA", bytes(4)) + pixels,
        "filter": head() + chunk(b"IDAT", zlib.compress(b"\x09" * 200)),
    }
    for name, content in parts.items():
        yield f"{name}.png", PNG_HEAD + content + end


def _loop() -> bytes:
    """A TIFF directory of one entry (orientation 99) that is followed by itself."""
    entry = struct.pack("<HHII", 0x112, 3, 1, 99)
    return b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1) + entry + struct.pack("<I", 8)


def _tiff(**changes: int) -> bytes:
    """A grey picture of 4 x 4 px, with some entries otherwise."""
    tags = {"width": 256, "height": 257, "bits": 258, "compression": 259, "photometric": 262}
    tags |= {"offset": 273, "samples": 277, "rows": 278, "bytes": 279, "format": 339}
    values = {"width": 4, "height": 4, "bits": 8, "compression": 1, "photometric": 1}
    values |= {"offset": 160, "samples": 1, "rows": 4, "bytes": 16, "format": 1} | changes
    entries = b"".join(struct.pack("<HHII", tags[key], 4, 1, values[key]) for key in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", changes.get("next", 0))
    data = b"II*\0" + struct.pack("<I", 8) + directory
    return data.ljust(160, b"\0") + bytes(range(16))


def _hostile_tiff() -> Iterator[Case]:
    most = 2**32 - 1
    for key, values in {
        "width": (0, most, 100_000),
        "height": (0, most, 100_000),
        "bits": (0, 7, 64, most),
        "compression": (0, 7, 50_000, most),
        "photometric": (5, 8, most),
        "offset": (0, most, 10_000),
        "samples": (0, 2, 5000, most),
        "rows": (0, most),
        "bytes": (0, most),
        "format": (3, 6),
    }.items():
        for value in values:
            yield f"{key}-{value}.tif", _tiff(**{key: value})
    yield "loop.tif", _loop()
    yield "empty-directory.tif", b"II*\0" + struct.pack("<IHI", 8, 0, 8)
    yield "far.tif", b"MM\0*" + struct.pack(">I", most)


def _hostile_jpeg() -> Iterator[Case]:
    whole = sound("jpg")
    frame = whole.index(b"\xff\xc0")
    for name, size in {"bomb": 0xFFFF, "nothing": 0}.items():
        changed = bytearray(whole)
        changed[frame + 5 : frame + 9] = struct.pack(">HH", size, size)
        yield f"{name}.jpg", bytes(changed)
    for name, exif in {
        "loop": b"Exif\0\0" + _loop(),
        "cut": b"Exif\0\0II*\0",
        "far": b"Exif\0\0II*\0" + b"\xff" * 4,
        "profile": b"ICC_PROFILE\0\x02\x01no",
        "many": b"Exif\0\0II*\0" + struct.pack("<IH", 8, 65535),
    }.items():
        kind = b"\xff\xe2" if name == "profile" else b"\xff\xe1"
        segment = kind + struct.pack(">H", len(exif) + 2) + exif
        yield f"exif-{name}.jpg", whole[:2] + segment + whole[2:]
    yield "markers.jpg", whole[:2] + b"\xff\xfe\x00\x02" * 5000 + whole[2:]
    yield "no-tables.jpg", whole.replace(b"\xff\xdb", b"\xff\xfe")


def _others() -> Iterator[Case]:
    yield "empty.png", b""
    yield "text.png", b"this is not a picture\n"
    yield "zeros.jpg", bytes(5000)
    yield "vector.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n"
    yield "picture.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "bitmap.bmp", b"BM" + struct.pack("<IHHIIiiHHI", 99, 0, 0, 54, 40, -1, -(2**31), 1, 24, 0)
    yield "flood.gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + bytes(9)
    yield "values.pfm", b"Pf\n2 2\n-1.0\n" + struct.pack("<4f", float("nan"), 1, 2, float("inf"))
