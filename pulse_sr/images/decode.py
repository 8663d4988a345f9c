"""The bytes of a picture file to pixels: any format and mode, 8-bit sRGB, upright.

Shapes: h w size; pixels are uint8 RGB [3, h, w] unless a signature says otherwise. No torch here.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

from pulse_sr.errors import InputError, first_line
from pulse_sr.images.colour import is_srgb, to_srgb
from pulse_sr.images.jpeg import noise_of_file
from pulse_sr.images.pixels import Pixels, to_uint8
from pulse_sr.images.tiff import UNREAD, is_tiff, refuse_misread, white_is_zero

MAX_MEGAPIXELS = 64
# Not pictures of pixels; for some of them Pillow would start an outside interpreter.
REFUSED_FORMATS = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"})
ORIENTATION = 0x0112  # the EXIF tag
NOT_AN_IMAGE = "give a picture file such as PNG or JPEG"
_BROKEN = "open it in an image viewer and save it again as PNG"
_GREY_MODES = ("1", "L", "LA", "La", "F")


@dataclass(frozen=True)
class Decoded:
    """A picture file after decoding.

    Attributes:
        pixels: uint8 RGB [3, h, w], sRGB, upright.
        mode: Pillow's mode of the file, for example `RGBA`.
        is_jpeg: whether the file is a JPEG, so the pixels carry quantisation noise.
        jpeg_noise: standard deviation of that noise, [0, 1] units, see `jpeg.jpeg_noise_level`.
        notes: what was changed on the way, one line each.
    """

    pixels: Pixels
    mode: str
    is_jpeg: bool
    jpeg_noise: float
    notes: tuple[str, ...]


class _WholeFile(io.BytesIO):
    """Bytes that pixels can not be read beyond the end of.

    Pillow would fill up a truncated picture with grey where another library has set its
    `LOAD_TRUNCATED_IMAGES`, which is of the whole process: not ours to change.
    """

    pixels = False  # whether the header is read

    def read(self, size: int | None = -1, /) -> bytes:
        """Reads as any file; raises OSError where there is nothing left of the pixels."""
        data = super().read(size)
        if self.pixels and not data and size and ImageFile.LOAD_TRUNCATED_IMAGES:
            raise OSError("image file is truncated")
        return data


@contextlib.contextmanager
def explain_damage(name: str, data: bytes) -> Iterator[None]:
    """Names the file in whatever Pillow's readers raise on damaged ones."""
    try:
        yield
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise _too_large(name, int(re.findall(r"\d+", str(error))[0])) from error
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"{name} is truncated or damaged ({len(data)} bytes): {first_line(error)}", _BROKEN
        ) from error


def decode(name: str, data: bytes) -> Decoded:
    """Decodes the bytes of a file; `read.read_image` says what becomes of every kind.

    Within `explain_damage`, which turns what Pillow raises into one line.

    Raises:
        InputError: see `read.read_image`.
    """
    image = open_header(name, data)
    mode, is_jpeg = image.mode, image.format in ("JPEG", "MPO")
    notes = ["animated: first frame used"] if getattr(image, "n_frames", 1) > 1 else []
    deep = is_deep(image)
    stored = image.getexif().get(ORIENTATION, 1)
    image.load()
    # TIFF files are rotated by Pillow while loading, which then removes the tag.
    pending = image.getexif().get(ORIENTATION, 1)
    rgb, colour_notes = _to_rgb(name, image, data if deep else None)
    if stored in range(2, 9):
        notes.append("rotated by EXIF")
    return Decoded(
        pixels=np.ascontiguousarray(upright(rgb, pending).transpose(2, 0, 1)),
        mode=mode,
        is_jpeg=is_jpeg,
        jpeg_noise=noise_of_file(image) if is_jpeg else 0.0,
        notes=(*notes, *colour_notes),
    )


@functools.cache
def register_heif() -> None:
    """Teaches Pillow the HEIC and HEIF files of telephones, once."""
    pillow_heif.register_heif_opener()


def open_header(name: str, data: bytes) -> Image.Image:
    """Reads the header only.

    Raises:
        InputError: it is not a picture of pixels, larger than 64 megapixels, or of a layout that
            Pillow decodes wrongly.
    """
    register_heif()
    file = _WholeFile(data)
    try:
        image = Image.open(file)
    except Image.UnidentifiedImageError as error:
        if is_tiff(data):
            raise InputError(f"{name} {UNREAD}", "save it as PNG") from error
        raise InputError(f"{name} is not an image ({len(data)} bytes)", NOT_AN_IMAGE) from error
    if image.format in REFUSED_FORMATS:
        raise InputError(f"{name} is {image.format}, not a picture of pixels", NOT_AN_IMAGE)
    refuse_misread(name, image)
    pixels = image.width * image.height
    if pixels > MAX_MEGAPIXELS * 10**6:
        raise _too_large(name, pixels)
    file.pixels = True
    return image


def _too_large(name: str, pixels: int) -> InputError:
    return InputError(
        f"{name} has {pixels / 1e6:.1f} megapixels, the limit is {MAX_MEGAPIXELS}",
        "crop it to the face or make it smaller",
    )


def _to_rgb(
    name: str, image: Image.Image, deep_file: bytes | None
) -> tuple[Pixels, list[str]]:  # -> [h, w, 3]
    """The decoded image as 8-bit sRGB, and what was changed on the way.

    Args:
        name: for messages.
        image: loaded.
        deep_file: the bytes of the file, where Pillow kept the high bytes of 16 bits only.
    """
    notes: list[str] = []
    colour = alpha = None
    if image.mode in _GREY_MODES or image.mode.startswith("I"):
        notes.append("grey: copied to three channels")
    if image.mode.startswith("I"):
        notes.append("16-bit: rounded to 8 bits")
        alpha = _alpha_of_level(image)
        image = _from_integers(name, image)
    elif image.mode == "F":
        image = _from_floats(name, image, notes)
    elif image.mode == "LAB":  # Pillow's own convert() does not know it
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB") or image
    if deep_file is not None:
        colour, alpha = _levels(deep_values(deep_file, image))
        notes.append("16-bit: " + ("high byte kept" if colour is None else "rounded to 8 bits"))
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        image, shallow = _split_alpha(image)
        alpha = shallow if alpha is None else alpha
    image = _rounded(colour, image)
    image, note = to_srgb(image)
    if note:
        notes.append(note)
    if colour is None or note:
        colour = np.asarray(image.convert("RGB"))
    if alpha is not None and alpha.min() < 255:
        return _composite(name, colour, alpha, notes), notes
    return np.rint(colour).astype(np.uint8, copy=False), notes


def is_deep(image: Image.Image) -> bool:
    """Whether the file has 16 bits a channel of which Pillow keeps the high byte: not of grey."""
    packed = str(getattr(image, "tile", ""))  # Pillow's names of the layouts
    return ";16" in packed and not image.mode.startswith("I")


def not_see_through(image: Image.Image) -> NDArray[np.bool_] | None:
    """Where a 16-bit grey PNG is opaque [h, w]; None: it names no level that is see-through."""
    level = image.info.get("transparency")
    return np.asarray(image) != level if isinstance(level, int) else None


def deep_values(data: bytes, image: Image.Image) -> NDArray[np.uint16] | None:
    """The 16-bit colours of a file as stored, `[h, w, 3]` RGB or `[h, w, 4]` with opacity.

    None where OpenCV does not read this kind.
    """
    known = image.format in ("PNG", "TIFF") and image.mode in ("RGB", "RGBA", "LA")
    if not known:
        return None
    values = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.shape[:2] != image.size[::-1]:
        return None
    opacity = image.mode != "RGB" or "transparency" in image.info
    if values.ndim != 3 or values.shape[2] != 3 + opacity:
        return None
    stored: NDArray[np.uint16] = np.take(values, [2, 1, 0, 3][: values.shape[2]], axis=2)
    return stored


def _levels(
    values: NDArray[np.uint16] | None,
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None]:
    """Colour [h, w, 3] and alpha [h, w] in levels of 255 with their fractions."""
    if values is None:
        return None, None
    levels = values.astype(np.float32) / np.float32(257.0)
    return levels[..., :3], levels[..., 3] if levels.shape[2] == 4 else None


def _rounded(colour: NDArray[np.float32] | None, image: Image.Image) -> Image.Image:
    """What a profile that is carried out takes: Pillow's high bytes are darker by half a level.

    `colour` is rounded in place: a photo of 48 megapixels has no room for another.
    """
    profile = image.info.get("icc_profile")
    if colour is None or is_srgb(profile):
        return image
    made = Image.fromarray(np.rint(colour, out=colour).astype(np.uint8))
    made.info["icc_profile"] = profile
    return made


def _alpha_of_level(image: Image.Image) -> NDArray[np.float32] | None:
    shown = not_see_through(image)
    return None if shown is None else shown * np.float32(255.0)


def _from_integers(name: str, image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.int32)  # also turns big-endian words into native ones
    if values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"{name} has integer pixels from {values.min()} to {values.max()}, expected 0..65535",
            "save it as an 8- or 16-bit PNG",
        )
    if white_is_zero(image):
        values = 65535 - values
    # = round(255 v / 65535); no ties: 257 is odd
    return _like(image, ((values + 128) // 257).astype(np.uint8))


def _from_floats(name: str, image: Image.Image, notes: list[str]) -> Image.Image:
    values = np.asarray(image)
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise InputError(
            f"{name} has {bad} NaN or infinite pixels of {values.size}", "save it as an 8-bit PNG"
        )
    if values.min() >= 0.0 and values.max() <= 1.0:
        notes.append("float: 0..1 scaled to 8 bits")
        return _like(image, to_uint8(values))
    notes.append("float: taken as 0..255, clipped and rounded")
    return _like(image, to_uint8(values / 255.0))


def _like(image: Image.Image, grey: Pixels) -> Image.Image:  # [h, w]
    """Grey pixels with what the file says about its colours."""
    made = Image.fromarray(grey)
    made.info = {key: value for key, value in image.info.items() if key != "transparency"}
    return made


def _split_alpha(image: Image.Image) -> tuple[Image.Image, NDArray[np.float32]]:
    """The colours as an image of mode L or RGB, and the opacity [h, w], 0 to 255."""
    premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    whole = image.convert(premultiplied) if premultiplied else image
    alpha = np.asarray(whole.convert("RGBA").getchannel("A"), np.float32)
    colours = whole.convert("L" if whole.mode in ("1", "L", "LA") else "RGBA").convert(
        "L" if whole.mode in ("1", "L", "LA") else "RGB"
    )
    colours.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return colours, alpha


def _composite(name: str, colour: NDArray, alpha: NDArray, notes: list[str]) -> Pixels:
    """Puts [h, w, 3] on its own mean colour, so that what shows through is no foreign colour."""
    if alpha.max() == 0:
        raise InputError(f"{name} is fully transparent", "export it without an alpha channel")
    weight = (alpha == 255) if (alpha == 255).any() else alpha
    mean = np.average(colour.reshape(-1, 3), axis=0, weights=weight.ravel())
    share = alpha[..., None].astype(np.float32) / np.float32(255.0)
    background = mean.astype(np.float32)
    notes.append("alpha composited on the mean colour")
    return np.rint(background + (colour - background) * share).astype(np.uint8)


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undoes the EXIF orientation 2..8 of [h, w, c]; any other number leaves it as it is."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
