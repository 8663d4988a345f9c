"""What the numbers of a file mean: its embedded colour profile, undone to sRGB.

Everything behind the reader takes sRGB. A profile that says something else (Display P3, Adobe RGB,
a printer's CMYK) is carried out once, by LittleCMS; one that says the same is left alone, so that
its pixels keep their bits.
"""

from __future__ import annotations

import functools
import io
import logging

import numpy as np
from PIL import Image, ImageCms

from pulse_sr.images.pixels import Pixels

log = logging.getLogger(__name__)

#: Largest change, in levels of 255, that a profile may ask for and still be taken for sRGB.
_SAME_LEVELS = 1
_GRID = 9  # colours along each axis of the cube by which a profile is compared with sRGB
#: Modes of Pillow by the colour space that a profile names.
_MODES = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}
BROKEN = "colour profile broken: ignored, colours taken as sRGB"


def to_srgb(image: Image.Image) -> tuple[Image.Image, str]:
    """Carries out the embedded profile of a loaded 8-bit image.

    Intent: relative colorimetric with black point compensation, as image editors do.

    Args:
        image: of mode 1, L, P, RGB or CMYK (transparency is not looked at); others come back.

    Returns:
        The image in sRGB, mode RGB where something was converted, and a note for the user; the
        same image and an empty note where there is no profile or it is sRGB.
    """
    data = image.info.get("icc_profile")
    if not data or image.mode not in ("1", "L", "P", "RGB", "CMYK"):
        return image, ""
    try:
        found = _transform(data, image.mode)
        if found is None:
            return image, ""
        transform, mode, name = found
        converted = ImageCms.applyTransform(image.convert(mode), transform)
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
        log.debug("broken colour profile: %s", error)
        return image, BROKEN
    assert converted is not None
    return converted, f"colours converted from {name} to sRGB"


def is_srgb(profile: bytes | None) -> bool:
    """Whether the numbers of an RGB file with this profile (None: without) are those of sRGB."""
    if profile is None:
        return True
    try:
        return _transform(profile, "RGB") is None
    except (ImageCms.PyCMSError, OSError, TypeError, ValueError):
        return True  # `to_srgb` takes a broken profile for sRGB


def from_srgb(pixels: Pixels, profile: bytes | None, *, grey: bool = False) -> Pixels:
    """Takes sRGB back to the numbers of a file.

    Args:
        pixels: uint8 RGB [3, h, w].
        profile: of the file, as `to_srgb` carries it out; None: sRGB.
        grey: the file has one channel.

    Returns:
        uint8 [3, h, w], or [1, h, w] for grey.
    """
    rgb = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    image = rgb.convert("L") if grey else rgb
    if profile is not None and (grey or not is_srgb(profile)):
        try:
            wanted = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if _MODES.get(_space(wanted)) == image.mode:
                transform = _conversion(_srgb(), wanted, "RGB", image.mode)
                image = ImageCms.applyTransform(image.convert("RGB"), transform) or image
        except (ImageCms.PyCMSError, OSError, TypeError, ValueError) as error:
            log.debug("broken colour profile: %s", error)
    return np.ascontiguousarray(np.atleast_3d(np.asarray(image)).transpose(2, 0, 1))


@functools.lru_cache(maxsize=16)
def _transform(data: bytes, mode: str) -> tuple[ImageCms.ImageCmsTransform, str, str] | None:
    """The conversion, the mode that it takes, and the profile's name; None: it changes nothing.

    Raises:
        PyCMSError, ValueError: the profile is damaged, or of another kind than the image.
    """
    profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
    space = _space(profile)
    if space not in _MODES or (space == "CMYK") != (mode == "CMYK"):
        raise ValueError(f"a profile for {space} in an image of mode {mode}")
    if space == "GRAY" and mode not in ("1", "L"):
        raise ValueError("a profile for grey in a colour image")
    transform = _conversion(profile, _srgb(), _MODES[space], "RGB")
    if space != "CMYK" and _is_identity(transform, _MODES[space]):
        return None
    return transform, _MODES[space], _name(profile)


def _conversion(
    source: ImageCms.ImageCmsProfile, target: ImageCms.ImageCmsProfile, taken: str, given: str
) -> ImageCms.ImageCmsTransform:
    """From one profile to another, as image editors do it; `taken` and `given` are modes."""
    intent, flags = ImageCms.Intent.RELATIVE_COLORIMETRIC, ImageCms.Flags.BLACKPOINTCOMPENSATION
    return ImageCms.buildTransform(source, target, taken, given, intent, flags)


def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


def _space(profile: ImageCms.ImageCmsProfile) -> str:
    """The colour space of the numbers, as the profile names it."""
    return profile.profile.xcolor_space.strip()


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether no colour of a grid (or no grey) changes by more than `_SAME_LEVELS`."""
    if mode == "L":
        greys = np.arange(256, dtype=np.uint8)[None]
        image, before = Image.fromarray(greys), np.repeat(greys[..., None], 3, axis=2)
    else:
        axis = np.linspace(0, 255, _GRID).round().astype(np.uint8)
        before = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(1, -1, 3)
        image = Image.fromarray(before)
    after = np.asarray(ImageCms.applyTransform(image, transform))
    return int(np.abs(after.astype(int) - before.astype(int)).max()) <= _SAME_LEVELS


def _name(profile: ImageCms.ImageCmsProfile) -> str:
    """The profile's own description, on one line of at most 40 printable characters."""
    text = " ".join(ImageCms.getProfileDescription(profile).split())
    return "".join(letter for letter in text if letter.isprintable())[:40] or "its profile"
