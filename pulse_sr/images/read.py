"""Read anything that Pillow reads: bytes to pixels, or one line about what is wrong.

Shapes: h w size; pixels are uint8 RGB [3, h, w] unless a signature says otherwise. No torch here.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from pulse_sr.errors import InputError, UsageError, cut
from pulse_sr.files.paths import FILE, problem_of
from pulse_sr.images.decode import decode, explain_damage, open_header
from pulse_sr.images.face import FaceOfPhoto
from pulse_sr.images.pixels import Pixels

MAX_BYTES = 1 << 30  # 64 megapixels of four 32-bit channels


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
    """Reads one picture of any format and mode as 8-bit sRGB.

    An embedded colour profile is carried out (`colour.to_srgb`); a broken one is noted. Grey is
    copied to three channels. 16 bits (and 32-bit integers, whose range is taken to be 16 bits) are
    scaled by 255 / 65535 and rounded once, at the end. Floats within [0, 1] are scaled by 255,
    others are taken as 0..255. Transparent pixels are composited on the mean colour of the fully
    opaque ones (if there are none: on the mean weighted by opacity). EXIF rotation is applied. Of
    several frames the first is used.

    Raises:
        UsageError: the path does not exist, is a folder or no regular file.
        InputError: the file is empty, not an image, truncated, larger than 64 megapixels (found in
            the header, before decoding), fully transparent, of a layout that Pillow decodes wrongly
            (`tiff.refuse_misread`), or has NaN, infinite or out-of-range pixels.
    """
    name, data = os.fspath(path), read_bytes(Path(path))
    with explain_damage(name, data):
        decoded = decode(name, data)
    pixels = decoded.pixels
    return LowResImage(
        pixels=pixels,
        path=name,
        sha256=hashlib.sha256(data).hexdigest(),
        width=pixels.shape[2],
        height=pixels.shape[1],
        mode=decoded.mode,
        is_jpeg=decoded.is_jpeg,
        jpeg_noise=decoded.jpeg_noise,
        notes=decoded.notes,
    )


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
        UsageError: the path does not exist or is no regular file.
        InputError: the file is empty, too large, or may not be read.
    """
    problem = problem_of(path, FILE)
    if problem:
        raise UsageError(f"{cut(str(path))} {problem}", "give image files such as PNG or JPEG")
    problem = problem_of(path, FILE, MAX_BYTES)
    if problem:
        raise InputError(f"{path} {problem}", "make it smaller")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", "check its rights") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes)", "copy the file again")
    return data
