"""One training image: which files are images, and from their bytes to a square of uint8.

Shapes: R resolution, S side of the middle square.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from PIL import Image, ImageOps

from pulse_sr.errors import InputError, UsageError
from pulse_sr.files.atomic import make_folder, write_atomic
from pulse_sr.files.documents import parse_json
from pulse_sr.images.colour import to_srgb
from pulse_sr.images.decode import ORIENTATION, explain_damage, open_header
from pulse_sr.images.decode import decode as decode_any
from pulse_sr.images.find import image_suffixes
from pulse_sr.images.pixels import Pixels, to_pillow
from pulse_sr.images.read import read_bytes

MIN_IMAGES = 16
SMALLEST_RESOLUTION = 8
#: A folder that holds a file of this name is left out: `align` puts low-res versions and its
#: report beside the crops, and a run may lie in the folder that it learns from.
NOT_TRAINING_DATA = ".not-training-data"
#: A large JPEG is decoded at a half, a quarter or an eighth of its size as long as this many times
#: the resolution is left for Lanczos to reduce. Measured against decoding in full: 40 dB on
#: photographs full of texture, 2.5 times as fast from 1926 px to 128 px.
LEFT_FOR_LANCZOS = 4
_LICENCES = ("licen", "copying", "notice")


def make_side_folder(folder: Path) -> None:
    """Makes a folder whose pictures are not for training, should it lie inside a data set.

    Raises:
        SetupError: it can not be made or written.
    """
    marker = folder / NOT_TRAINING_DATA
    if not marker.is_file():
        make_folder(folder)
        write_atomic(marker, b"train-prior leaves this folder out\n")


@dataclass(frozen=True)
class SquareImage:
    """An image as training takes it.

    Attributes:
        pixels: uint8 `[3, R, R]`.
        width: of the whole picture in pixels, after EXIF rotation.
        height: the same.
    """

    pixels: Pixels
    width: int
    height: int


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image; hidden ones are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in image_suffixes()


def is_licence_name(name: str) -> bool:
    """Whether a file of this name says that it holds a licence or a notice."""
    return name.casefold().startswith(_LICENCES)


def walk_files(folder: Path) -> tuple[list[Path], list[tuple[Path, str]]]:
    """The files below `folder`, and the nested folders that can not be listed, with reasons.

    Links to folders are followed, each folder once, so that loops end. Hidden files and folders,
    and nested folders with a file `NOT_TRAINING_DATA`, are left out.

    Returns:
        the files, sorted by the parts of their paths; (folder, reason) of each other.
    """
    files: list[Path] = []
    refused: list[tuple[Path, str]] = []
    seen: set[tuple[int, int]] = set()

    def refuse(error: OSError) -> None:
        refused.append((Path(error.filename), f"cannot be listed: {error.strerror}"))

    for root, folders, names in os.walk(folder, onerror=refuse, followlinks=True):
        place = os.stat(root)
        again = (place.st_dev, place.st_ino) in seen
        seen.add((place.st_dev, place.st_ino))
        if again or (NOT_TRAINING_DATA in names and Path(root) != folder):
            folders.clear()
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files += [Path(root, name) for name in names if not name.startswith(".")]
    return sorted(files), refused


class SidecarShape(TypedDict):
    """What is read of a sidecar of `align`."""

    framing: dict[str, Any]


def framing_in(sidecar: bytes) -> dict[str, Any] | None:
    """The framing that a sidecar of `align` names; None if it is none or another JSON file."""
    try:
        document: dict[str, dict[str, Any]] = parse_json(sidecar, SidecarShape)
    except ValueError:
        return None
    return document["framing"]


def decode(path: Path, resolution: int | None) -> Pixels:
    """An image as uint8 `[3, R, R]`, as `decode_bytes` gives it.

    Raises:
        InputError: when it can not be read.
        UsageError: when it does not exist.
    """
    return decode_bytes(str(path), read_bytes(path), resolution).pixels


def decode_bytes(name: str, data: bytes, resolution: int | None) -> SquareImage:
    """Decodes a file of any format: centre-cropped to a square, resized by Lanczos.

    Args:
        name: what messages call it.
        data: the bytes of the file.
        resolution: R; None keeps the side of the square.

    Raises:
        InputError: when it can not be read.
    """
    with explain_damage(name, data):
        image = open_header(name, data)
        if image.format in ("JPEG", "MPO"):
            return _decode_jpeg(image, resolution)
        whole = decode_any(name, data).pixels
    square = to_pillow(centre_square(whole))
    return SquareImage(_resized(square, resolution), whole.shape[2], whole.shape[1])


def decode_whole(name: str, data: bytes) -> Pixels:  # -> [3, h, w]
    """Decodes a file of any format as a whole, upright, uint8 RGB.

    Raises:
        InputError: when it can not be read.
    """
    with explain_damage(name, data):
        image = open_header(name, data)
        if image.format in ("JPEG", "MPO"):
            return np.asarray(_upright(image)).transpose(2, 0, 1)
        return decode_any(name, data).pixels


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Width and height in pixels after EXIF rotation, from the header."""
    width, height = image.size
    return (height, width) if image.getexif().get(ORIENTATION) in (5, 6, 7, 8) else (width, height)


def _decode_jpeg(image: Image.Image, resolution: int | None) -> SquareImage:
    """A JPEG without the detours that other formats need; reduced while decoding if it is large."""
    width, height = upright_size(image)
    if resolution is not None:
        share = LEFT_FOR_LANCZOS * resolution / min(width, height)
        image.draft(None, (math.ceil(image.width * share), math.ceil(image.height * share)))
    upright = _upright(image)
    side = min(upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    square = upright.crop((left, top, left + side, top + side))
    return SquareImage(_resized(square, resolution), width, height)


def _upright(image: Image.Image) -> Image.Image:
    """A JPEG as sRGB after EXIF rotation."""
    return to_srgb(ImageOps.exif_transpose(image))[0].convert("RGB")


def _resized(square: Image.Image, resolution: int | None) -> Pixels:  # -> [3, R, R]
    if resolution is not None:
        square = square.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(square).transpose(2, 0, 1)


def centre_square(pixels: Pixels) -> Pixels:  # [3, h, w] -> [3, S, S], S = min(h, w)
    """The middle square of a picture."""
    height, width = pixels.shape[1:]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return pixels[:, top : top + side, left : left + side]


def licence_files(folder: Path) -> list[Path]:
    """The files directly in `folder` whose names say that they hold a licence or a notice."""
    return sorted(
        file for file in folder.iterdir() if file.is_file() and is_licence_name(file.name)
    )


def resolution_of_sides(sides: Iterable[int]) -> int:
    """The largest power of two that the median of these shorter sides has.

    Raises:
        InputError: when there are none.
    """
    known = list(sides)
    if not known:
        raise InputError("none of the images could be read", "check the data")
    return int(2 ** int(np.log2(np.median(known))))


def require_resolution(resolution: int) -> None:
    """Accepts powers of two from 8 up.

    Raises:
        UsageError: for any other number.
    """
    if resolution < SMALLEST_RESOLUTION or resolution & (resolution - 1):
        raise UsageError(
            f"--resolution: resolution is {resolution}, expected a power of two from 8 up",
            "use 32, 64, 128, 256, ...",
        )
