"""Photo or low-res face? What `run --align` does with an input before the search.

Shape legend: R resolution of the prior, h low-res side.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pulse_sr.alignment.crop import crop_quad
from pulse_sr.alignment.faces import FramedFace, frame_faces
from pulse_sr.alignment.geometry import Framing
from pulse_sr.alignment.landmarks.base import Landmarks
from pulse_sr.alignment.paste import FEATHER
from pulse_sr.errors import InputError
from pulse_sr.images.face import FaceOfPhoto
from pulse_sr.images.fit import low_res_sides
from pulse_sr.images.read import LowResImage
from pulse_sr.operators.degrading import degrade

log = logging.getLogger(__name__)

#: With "auto", pictures up to this many pixels a side are low-res faces: no need to look.
SURELY_LOW_RES = 48
#: A crop is in the prior's framing if no corner is off by more than this part of the side. Measured
#: on 150 aligned faces of 48 to 128 px: at most 0.205; the same seen as FFHQ crops 0.4 or more.
FRAMING_TOLERANCE = 0.25
#: Faces with fewer pixels a side are not searched for in photos.
SMALLEST_FACE = 8

#: Part of every identity: raise it when equal settings start to give other low-res faces.
REVISION = 1


def identity_of(face: FaceOfPhoto, photo_sha256: str) -> str:
    """Returns a sha256 over what decides the low-res face and the pasted photo.

    It stands in for the file's sha256 in seeds and fingerprints. The place among the other faces is
    left out: a face keeps its samples when a better detector finds one more.
    """
    parts = [REVISION, photo_sha256, face.quad, face.side, face.operator, FEATHER]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def faces_to_search(
    image: LowResImage,
    resolution: int,
    framing: Framing,
    landmarks: Landmarks,
    *,
    mode: str = "auto",
    operator: str = "bicubic",
    scale: int | None = None,
    fit: str | None = None,
) -> list[FaceOfPhoto]:
    """Returns the faces to search instead of the picture; none: the picture is a low-res face.

    With "auto" a picture is a low-res face if its longer side is at most `SURELY_LOW_RES`; or if it
    is no larger than the prior's images, and shows no face or one that fills it as the prior's
    framing does. Where nothing was found but `fit` says how to place the picture, it is one too.

    Args:
        image: the input.
        resolution: R.
        framing: of the prior.
        landmarks: the source of landmarks.
        mode: one of `config.ALIGN_MODES`.
        operator: how low-res faces are made of the crops, which have R px.
        scale: R / h if the user asked for one, else the largest h that a face supports.
        fit: the user's wish for placing the whole picture, see `fitting.fit_to_prior`.

    Raises:
        InputError: no face was found, or none is large enough.
        UsageError: the scale does not suit the prior.
    """
    longest = max(image.width, image.height)
    if mode == "never" or (mode == "auto" and longest <= SURELY_LOW_RES):
        return []
    found = frame_faces(image, landmarks, framing)
    if mode == "auto":
        fills = any(_fills(face, image) for face in found)
        if longest <= resolution and (fills or not found):
            return []
        if not found and fit is not None:
            return []
    if not found:
        raise InputError(
            f"no face found in {image.path} ({image.width}x{image.height} px)",
            "--align never --fit pad takes the whole picture as a face",
        )
    sides = [low_res_side(face.side, resolution, scale) for face in found]
    large = [(face, side) for face, side in zip(found, sides, strict=True) if side is not None]
    if not large:
        raise _too_small(image, found, resolution, scale)
    if len(large) < len(found):
        smallest = min(face.side for face in found)
        number = len(found) - len(large)
        words = "%s: %d of %d faces left out, too small to search (%.0f px)"
        log.warning(words, image.path, number, len(found), smallest)
    return [
        FaceOfPhoto(
            index=place,
            of=len(large),
            quad=tuple((float(x), float(y)) for x, y in face.quad),
            real_size=round(face.side, 2),
            inside=round(face.inside, 4),
            score=round(face.face.score, 4),
            side=side,
            operator=operator.strip(),
        )
        for place, (face, side) in enumerate(large, start=1)
    ]


def low_res_side(real_size: float, resolution: int, scale: int | None = None) -> int | None:
    """Returns the largest side that the prior can search and the face really has, None without one.

    Args:
        real_size: side of the crop in pixels of the photo.
        resolution: R.
        scale: if given, only R / scale will do.
    """
    sides = low_res_sides(resolution, scale)
    fitting = [s for s in sides if SMALLEST_FACE <= s <= min(real_size + 0.5, resolution / 2)]
    return fitting[-1] if fitting else None


def low_res_face(photo: LowResImage, face: FaceOfPhoto, resolution: int) -> LowResImage:
    """Makes the low-res face that is searched: the crop of R px through the operator.

    It is exactly what the operator makes of a high-res face, the crop, so samples that match it
    match the photo. JPEG noise is scaled by the reduction: averaging n pixels divides it by n.

    Returns:
        pixels uint8 [3, h, h]; `sha256` is `identity_of` the face.
    """
    crop = crop_quad(photo.pixels, face.corners, resolution, blur_border=False)
    pixels = degrade(crop, face.operator, resolution // face.side)
    made = f"face {face.index} of {face.of}: {face.real_size:.0f} px in the photo, {face.side} px"
    notes = [*photo.notes, made + " searched"]
    if face.real_size > resolution:
        notes.append(f"the photo shows the face finer than the prior's {resolution} px")
    if face.inside < 0.995:
        notes.append(f"{1 - face.inside:.0%} of the crop lies outside the photo and is mirrored")
    return replace(
        photo,
        pixels=pixels,
        sha256=identity_of(face, photo.sha256),
        width=face.side,
        height=face.side,
        jpeg_noise=photo.jpeg_noise * min(face.side / face.real_size, 1.0),
        notes=tuple(notes),
        photo=photo,
        face=face,
    )


def _fills(face: FramedFace, image: LowResImage) -> bool:
    """Whether the picture, if it is square, is already the crop of this face."""
    side = image.width
    if image.height != side:
        return False
    corners = np.array([[0, 0], [0, side], [side, side], [side, 0]]) - 0.5
    return bool(np.hypot(*(face.quad - corners).T).max() <= FRAMING_TOLERANCE * side)


def _too_small(
    image: LowResImage, found: Sequence[FramedFace], resolution: int, scale: int | None
) -> InputError:
    largest = max(face.side for face in found)
    wanted = SMALLEST_FACE if scale is None else resolution // scale
    hint = "use a larger version of the photo" if scale is None else "leave out --scale"
    return InputError(
        f"the largest face in {image.path} has {largest:.0f} px, {wanted} are needed", hint
    )
