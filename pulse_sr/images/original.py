"""Pictures as they are in their files: depth, grey, opacity and colour profile kept.

What goes to a search or into training is 8-bit RGB (`images.read`). What is only enlarged keeps the
numbers that it has.

Shapes: h w size.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from pulse_sr.errors import InputError
from pulse_sr.images.colour import from_srgb, is_srgb, to_srgb
from pulse_sr.images.decode import (
    ORIENTATION,
    deep_values,
    explain_damage,
    is_deep,
    not_see_through,
    open_header,
    upright,
)
from pulse_sr.images.pixels import Pixels, to_uint8
from pulse_sr.images.png import About
from pulse_sr.images.read import read_bytes
from pulse_sr.images.tiff import white_is_zero

#: uint8 or uint16.
Values = NDArray[Any]
#: Modes of Pillow that are grey, and those with opacity.
_GREY, _OPACITY = ("1", "L", "LA", "La", "F"), ("LA", "La", "PA", "RGBA", "RGBa")
# EXIF: when the file was changed, when the picture was taken and digitised, their time zones.
_EXIF_IFD, _CHANGED = 0x8769, 0x0132
_DATES = (0x9003, 0x9004, 0x9010, 0x9011, 0x9012)


@dataclass(frozen=True)
class Original:
    """A picture.

    Attributes:
        colour: uint8 or uint16 `[1, h, w]` (grey) or `[3, h, w]` (RGB).
        opacity: of the same type `[h, w]`; None: the file has none.
        about: the ICC profile that says what the numbers mean, the dates, the pixels per inch.
        path: as it was given.
        sha256: of the bytes of the file.
        mode: Pillow's mode of the file.
        notes: what was changed on reading, one line each.
    """

    colour: Values
    opacity: Values | None
    about: About
    path: str
    sha256: str
    mode: str
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)."""
        height, width = self.colour.shape[-2:]
        return int(height), int(width)


def read_original(path: str | os.PathLike[str]) -> Original:
    """Reads a picture without making it 8-bit RGB.

    EXIF rotation is applied, palettes become colours, bits 8-bit grey. CMYK becomes sRGB by its
    profile (`colour.to_srgb`), other colour spaces by Pillow's plain formula; both lose theirs. Of
    EXIF the dates are kept: not the place, nor serial numbers. Floats in [0, 1] become 16 bits,
    others are taken as 0..255.

    Raises:
        UsageError, InputError: see `images.read.read_image`.
    """
    name, data = os.fspath(path), read_bytes(Path(path))
    with explain_damage(name, data):
        return _decode(name, data)


def srgb_of(colour: Values, profile: bytes | None) -> Pixels:
    """Returns colours as a file has them, or a part of them, as uint8 sRGB [3, h, w].

    Args:
        colour, profile: see `Original`.
    """
    levels = colour if colour.dtype == np.uint8 else ((colour.astype(np.uint32) + 128) // 257)
    if len(levels) == 3 and is_srgb(profile):
        return levels.astype(np.uint8)
    planes = levels.astype(np.uint8).transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(planes[..., 0] if len(levels) == 1 else planes))
    image.info["icc_profile"] = profile
    rgb = to_srgb(image)[0].convert("RGB")
    return np.ascontiguousarray(np.asarray(rgb).transpose(2, 0, 1))


def as_stored(pixels: Pixels, like: Values, profile: bytes | None) -> Values:
    """Returns uint8 sRGB [3, h, w] as colours of a file: the way back of `srgb_of`.

    Args:
        pixels: the colours.
        like: colours of the file, whose type and number of channels are those of the result.
        profile: of the file.
    """
    own = from_srgb(pixels, profile, grey=len(like) == 1)
    return own.astype(np.uint16) * 257 if like.dtype == np.uint16 else own


def _decode(name: str, data: bytes) -> Original:
    image = open_header(name, data)
    mode = image.mode
    notes = ["animated: first frame used"] if getattr(image, "n_frames", 1) > 1 else []
    deep, grey = is_deep(image), "LA;16" in str(getattr(image, "tile", ""))
    turn = image.getexif().get(ORIENTATION, 1)
    about = About(image.info.get("icc_profile"), _dates(image), _dpi(image))
    image.load()
    if turn in range(2, 9):
        notes.append("rotated by EXIF")
    colour, opacity = _deep(data, image, grey=grey) if deep else (None, None)
    if colour is None:
        if deep:
            notes.append("16-bit: high byte kept")
        colour, opacity, changed = _channels(name, ImageOps.exif_transpose(image))
        if white_is_zero(image):
            colour = 65535 - colour
        if changed:
            notes.append(f"{mode}: converted to RGB")
            about = replace(about, profile=None)
    digest = hashlib.sha256(data).hexdigest()
    return Original(colour, opacity, about, name, digest, mode, tuple(notes))


def _dates(image: Image.Image) -> bytes | None:
    """An EXIF block with the dates of the file alone; None: it has none."""
    kept = Image.Exif()
    try:
        found = image.getexif()
        inner = found.get_ifd(_EXIF_IFD)
        dates = {tag: inner[tag] for tag in _DATES if isinstance(inner.get(tag), str)}
        if isinstance(found.get(_CHANGED), str):
            kept[_CHANGED] = found[_CHANGED]
    except Exception:  # damaged in any way: nothing to keep
        return None
    if dates:
        kept.get_ifd(_EXIF_IFD).update(dates)
    if not dates and _CHANGED not in kept:
        return None
    kept[ORIENTATION] = 1
    return kept.tobytes().removeprefix(b"Exif\0\0")


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    found = image.info.get("dpi")
    try:
        across, down = (float(each) for each in found or ())
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    # 1 stands for a TIFF that names no unit.
    return (across, down) if 1 < across < 1e5 and 1 < down < 1e5 else None


def _deep(data: bytes, image: Image.Image, *, grey: bool) -> tuple[Values | None, Values | None]:
    """Colour and opacity of a 16-bit file of colours; None: Pillow's 8 bits have to do.

    Args:
        data: the file.
        image: loaded, which turns a TIFF (OpenCV does too) and leaves others as they are.
        grey: the file has grey and opacity, which Pillow makes colours of.
    """
    values = deep_values(data, image)
    if values is None:
        return None, None
    turned = upright(values, image.getexif().get(ORIENTATION, 1))
    channels = np.ascontiguousarray(turned.transpose(2, 0, 1))
    colour = channels[: 1 if grey else 3]
    return colour, channels[3] if len(channels) == 4 else None


def _channels(name: str, image: Image.Image) -> tuple[Values, Values | None, bool]:
    """Colour, opacity, and whether the colours were converted."""
    mode = image.mode
    if mode == "F" or mode.startswith("I"):
        shown = not_see_through(image)
        opacity = None if shown is None else shown * np.uint16(65535)
        return _numbers(name, np.asarray(image), is_float=mode == "F")[None], opacity, False
    if mode in _OPACITY or "transparency" in image.info:
        rgba = image.convert({"La": "LA", "RGBa": "RGBA"}.get(mode, mode)).convert("RGBA")
        planes = np.asarray(rgba).transpose(2, 0, 1)
        grey = mode in ("LA", "La", "L", "1")
        return np.ascontiguousarray(planes[: 1 if grey else 3]), planes[3].copy(), False
    if mode in _GREY:
        return np.asarray(image.convert("L"))[None], None, False
    planes = np.asarray(_plain(image)).transpose(2, 0, 1)
    return np.ascontiguousarray(planes), None, mode not in ("RGB", "RGBX", "P")


def _plain(image: Image.Image) -> Image.Image:
    """RGB; of another colour space by its profile, else by Pillow's plain formula."""
    return (to_srgb(image)[0] if image.mode == "CMYK" else image).convert("RGB")


def _numbers(name: str, values: NDArray[Any], is_float: bool) -> Values:
    """Grey integers of 16 bits, and floats."""
    if not np.isfinite(values).all():
        raise InputError(f"{name} has NaN or infinite pixels", "save it as a 16-bit PNG")
    low, high = values.min(), values.max()
    if is_float and low >= 0 and high <= 1:
        return np.rint(values * 65535.0).astype(np.uint16)
    if is_float:
        return to_uint8(values / 255.0)
    if low < 0 or high > 65535:
        raise InputError(
            f"{name} has integer pixels from {low} to {high}, expected 0..65535",
            "save it as an 8- or 16-bit PNG",
        )
    return values.astype(np.uint16)
