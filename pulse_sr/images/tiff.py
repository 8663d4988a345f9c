"""TIFF layouts that Pillow decodes to wrong numbers without a word: named before they are used.

Found by decoding every combination of sample type, photometric interpretation, planes, compression
and byte order that `tifffile` writes, and comparing with what was written (Pillow 13.0).
"""

from __future__ import annotations

from PIL import Image, TiffImagePlugin

from pulse_sr.errors import InputError

_BITS, _COMPRESSION, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 259, 262, 284, 339  # tags
_UNCOMPRESSED, _JPEG = 1, (6, 7)
_WHITE_IS_ZERO, _YCBCR = 0, 6
_SIGNED = 2
_BEGINNINGS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: What there is to say of a TIFF that Pillow does not open.
UNREAD = (
    "is a TIFF or camera file of a kind that can not be read, "
    "such as raw sensor data or colours in floating point"
)


def is_tiff(data: bytes) -> bool:
    """Whether a file begins as a TIFF; most raw files of cameras do."""
    return data.startswith(_BEGINNINGS)


def white_is_zero(image: Image.Image) -> bool:
    """Whether the numbers of a 16-bit grey TIFF count from white, which Pillow does not undo."""
    tags = _tags(image)
    return (
        tags is not None
        and tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
        and image.mode != "F"
        and (image.mode.startswith("I"))
    )


def refuse_misread(name: str, image: Image.Image) -> None:
    """Refuses a TIFF whose layout Pillow decodes wrongly; other files pass.

    Raises:
        InputError: it is one; the message says what about it.
    """
    tags = _tags(image)
    if tags is None:
        return
    bits = max(_tuple(tags.get(_BITS, 1)))
    what = ""
    if tags.get(_PLANES, 1) == 2 and not (bits == 8 and image.mode in ("RGB", "RGBA", "CMYK")):
        what = f"{bits}-bit {image.mode} channels in separate planes"
    elif bits in (8, 16) and _SIGNED in _tuple(tags.get(_SAMPLE_FORMAT, 1)):
        what = f"signed {bits}-bit numbers"
    elif bits == 32 and tags.prefix == b"MM" and _compression(tags) != _UNCOMPRESSED:
        what = "compressed big-endian 32-bit numbers"
    elif tags.get(_PHOTOMETRIC) == _YCBCR and _compression(tags) not in (_UNCOMPRESSED, *_JPEG):
        what = "YCbCr colours that are compressed without JPEG"
    if what:
        raise InputError(
            f"{name} is a TIFF with {what}, which can not be read rightly", "save it as PNG"
        )


def _compression(tags: TiffImagePlugin.ImageFileDirectory_v2) -> int:
    return int(tags.get(_COMPRESSION, _UNCOMPRESSED))


def _tags(image: Image.Image) -> TiffImagePlugin.ImageFileDirectory_v2 | None:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def _tuple(value: object) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (int(value),)  # type: ignore[call-overload]
