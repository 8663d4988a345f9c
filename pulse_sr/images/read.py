"""Read anything that Pillow reads: bytes to pixels, or one line about what is wrong.

Shapes: h w size; pixels are uint8 RGB [3, h, w] unless a signature says otherwise. No torch here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFile

from pulse_sr.errors import InputError, UsageError
from pulse_sr.images.face import FaceOfPhoto
from pulse_sr.images.jpeg import noise_of_file
from pulse_sr.images.pixels import Pixels, to_uint8

MAX_MEGAPIXELS = 64
_MAX_BYTES = 1 << 30  # 64 megapixels of four 32-bit channels
# Not pictures of pixels; for some of them Pillow would start an outside interpreter.
REFUSED_FORMATS = frozenset({"EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5"})
_ORIENTATION = 0x0112  # the EXIF tag
_NOT_AN_IMAGE = "give a picture file such as PNG or JPEG"
_BROKEN = "open it in an image viewer and save it again as PNG"


@dataclass(frozen=True)
class LowResImage:
    """One input picture as the rest of the program sees it.

    Attributes:
        pixels: uint8 RGB [3, h, w].
        path: the path as it was given.
        sha256: hex digest of the file's bytes, the same bytes that `pixels` come from.
        width: w, after EXIF rotation.
        height: h, after EXIF rotation.
        mode: Pillow's mode of the file, for example `RGBA`.
        is_jpeg: whether the file is a JPEG, so the pixels carry quantisation noise.
        jpeg_noise: standard deviation of that noise, [0, 1] units, see `jpeg_noise_level`; else 0.
        notes: what was changed on reading, one line each.
        photo, face: of a low-res face that was made from a photo: that, and its place there.
    """

    pixels: Pixels
    path: str
    sha256: str
    width: int
    height: int
    mode: str
    is_jpeg: bool
    jpeg_noise: float
    notes: tuple[str, ...]
    photo: LowResImage | None = None
    face: FaceOfPhoto | None = None

    @property
    def source(self) -> LowResImage:
        """The picture as its file holds it: the photo of a face, else this one."""
        return self if self.photo is None else self.photo


def read_image(path: str | os.PathLike[str]) -> LowResImage:
    """Reads one picture of any mode as 8-bit RGB.

    Grey is copied to three channels. 16-bit grey (and 32-bit integers, whose range is taken to be
    16 bits) is scaled by 255 / 65535, never clipped; of 16-bit colour Pillow keeps the high byte.
    Floats within [0, 1] are scaled by 255, others are taken as 0..255. Transparent pixels are
    composited on the mean colour of the fully opaque ones (if there are none: on the mean weighted
    by opacity). EXIF rotation is applied. Of several frames the first is used.

    Raises:
        UsageError: the path does not exist or is a folder.
        InputError: the file is empty, not an image, truncated, larger than 64 megapixels (found in
            the header, before decoding), fully transparent, or has NaN, infinite or out-of-range
            pixels.
    """
    name, data = os.fspath(path), read_bytes(Path(path))
    with explain_damage(name, data):
        return decode_image(name, data)


def read_size(path: Path) -> tuple[int, int]:
    """Reads width and height from the header alone, as they are before EXIF rotation.

    Raises:
        UsageError, InputError: see `read_image`.
    """
    data = read_bytes(path)
    with explain_damage(str(path), data):
        return open_header(str(path), data).size


def read_bytes(path: Path) -> bytes:
    """Reads a file that may be a picture.

    Raises:
        UsageError: the path does not exist or is a folder.
        InputError: the file is empty, too large, not regular, or may not be read.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist", "check the path")
    if path.is_dir():
        raise UsageError(f"{path} is a folder, expected an image file", f"{path}/*.png")
    if not path.is_file():
        raise InputError(f"{path} is not a regular file", _NOT_AN_IMAGE)
    size = path.stat().st_size
    if size > _MAX_BYTES:
        raise InputError(f"{path} has {size} bytes, the limit is {_MAX_BYTES}", "make it smaller")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check its rights") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes)", "copy the file again")
    return data


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
            f"{name} is truncated or damaged ({len(data)} bytes): {_first_line(error)}", _BROKEN
        ) from error


def decode_image(name: str, data: bytes) -> LowResImage:
    """Decodes the bytes of a file as `read_image` does, within `explain_damage`."""
    image = open_header(name, data)
    mode, is_jpeg = image.mode, image.format in ("JPEG", "MPO")
    notes = ["animated: first frame used"] if getattr(image, "n_frames", 1) > 1 else []
    sixteen_bit = ";16" in str(
        getattr(image, "tile", "")
    )  # Pillow's name of the packed 16-bit layouts
    stored = image.getexif().get(_ORIENTATION, 1)
    image.load()
    # TIFF files are rotated by Pillow while loading, which then removes the tag.
    pending = image.getexif().get(_ORIENTATION, 1)
    rgb, colour_notes = _to_rgb(name, image, sixteen_bit)
    if stored in range(2, 9):
        notes.append("rotated by EXIF")
    pixels = np.ascontiguousarray(_rotate(rgb, pending).transpose(2, 0, 1))
    return LowResImage(
        pixels=pixels,
        path=name,
        sha256=hashlib.sha256(data).hexdigest(),
        width=pixels.shape[2],
        height=pixels.shape[1],
        mode=mode,
        is_jpeg=is_jpeg,
        jpeg_noise=noise_of_file(image) if is_jpeg else 0.0,
        notes=(*notes, *colour_notes),
    )


def open_header(name: str, data: bytes) -> Image.Image:
    """Reads the header only.

    Raises:
        InputError: it is not a picture of pixels, or larger than 64 megapixels.
    """
    file = _WholeFile(data)
    try:
        image = Image.open(file)
    except Image.UnidentifiedImageError as error:
        raise InputError(f"{name} is not an image ({len(data)} bytes)", _NOT_AN_IMAGE) from error
    if image.format in REFUSED_FORMATS:
        raise InputError(f"{name} is {image.format}, not a picture of pixels", _NOT_AN_IMAGE)
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


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _to_rgb(name: str, image: Image.Image, sixteen_bit: bool) -> tuple[Pixels, list[str]]:
    """The decoded image as uint8 [h, w, 3], and what was changed on the way."""
    notes = []
    mode = image.mode
    if mode in ("1", "L", "LA", "La", "F") or mode.startswith("I"):
        notes.append("grey: copied to three channels")
    if mode.startswith("I"):
        notes.append("16-bit: rounded to 8 bits")
        return _copy_grey(_from_integers(name, np.asarray(image))), notes
    if mode == "F":
        return _copy_grey(_from_floats(name, np.asarray(image), notes)), notes
    if sixteen_bit:
        notes.append("16-bit: high byte kept")
    if mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _composite(name, image, notes), notes
    if mode == "LAB":  # Pillow's own convert() does not know it
        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
        return np.asarray(converted), notes
    return np.asarray(image.convert("RGB")), notes


def _from_integers(name: str, values: NDArray[Any]) -> Pixels:
    values = values.astype(np.int32)  # also turns big-endian words into native ones
    if values.min() < 0 or values.max() > 65535:
        raise InputError(
            f"{name} has integer pixels from {values.min()} to {values.max()}, expected 0..65535",
            "save it as an 8- or 16-bit PNG",
        )
    return ((values + 128) // 257).astype(np.uint8)  # = round(255 v / 65535); no ties: 257 is odd


def _from_floats(name: str, values: NDArray[Any], notes: list[str]) -> Pixels:
    bad = values.size - int(np.isfinite(values).sum())
    if bad:
        raise InputError(
            f"{name} has {bad} NaN or infinite pixels of {values.size}", "save it as an 8-bit PNG"
        )
    if values.min() >= 0.0 and values.max() <= 1.0:
        notes.append("float: 0..1 scaled to 8 bits")
        return to_uint8(values)
    notes.append("float: taken as 0..255, clipped and rounded")
    return to_uint8(values / 255.0)


def _composite(name: str, image: Image.Image, notes: list[str]) -> Pixels:
    premultiplied = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
    rgba = np.asarray((image.convert(premultiplied) if premultiplied else image).convert("RGBA"))
    colour, alpha = rgba[..., :3], rgba[..., 3]
    if alpha.min() == 255:
        return colour
    if alpha.max() == 0:
        raise InputError(f"{name} is fully transparent", "export it without an alpha channel")
    weight = (alpha == 255) if (alpha == 255).any() else alpha
    mean = np.average(colour.reshape(-1, 3), axis=0, weights=weight.ravel())
    share = alpha[..., None].astype(np.float32) / np.float32(255.0)
    background = mean.astype(np.float32)
    notes.append("alpha composited on the mean colour")
    return np.rint(background + (colour - background) * share).astype(np.uint8)


def _copy_grey(grey: Pixels) -> Pixels:
    return np.repeat(grey[..., None], 3, axis=2)


def _rotate(pixels: Pixels, orientation: int) -> Pixels:
    """Undoes the EXIF orientation 2..8 of [h, w, 3]; any other number leaves it as it is."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
