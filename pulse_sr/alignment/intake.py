"""Photo or low-res face? What `run --align` does with an input before the search.

Shape legend: R resolution of the prior, h low-res side.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from pulse_sr.alignment.crop import crop_quad
from pulse_sr.alignment.detail import NEARLY, detail_side
from pulse_sr.alignment.faces import FramedFace, frame_faces
from pulse_sr.alignment.geometry import Framing
from pulse_sr.alignment.landmarks.base import Landmarks
from pulse_sr.alignment.paste import FEATHER
from pulse_sr.config import RunOptions
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
_FINE_ENOUGH = "the photo shows it as fine as the prior could"

#: Part of every identity: raise it when equal settings start to give other low-res faces.
REVISION = 2


@dataclass(frozen=True)
class PhotoFaces:
    """What becomes of the faces of a photo.

    Attributes:
        searched: faces that are inputs of their own; none: the photo is enlarged as it is.
        left_out: of every other face the reason, a line each.
    """

    searched: tuple[FaceOfPhoto, ...]
    left_out: tuple[str, ...]


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
    options: RunOptions,
    *,
    operator: str = "bicubic",
    scale: int | None = None,
    fit: str | None = None,
) -> PhotoFaces | None:
    """Returns the faces to search instead of the picture; None: the picture is a low-res face.

    With `align` "auto" a picture is a low-res face if its longer side is at most `SURELY_LOW_RES`;
    or if it is no larger than the prior's images, and shows no face or one that fills it as the
    prior's framing does. Where nothing was found but `fit` says how to place the picture, it is one
    too.

    Args:
        image: the input.
        resolution: R.
        framing: of the prior.
        landmarks: the source of landmarks.
        options: which faces, and how large the photo comes back.
        operator: how low-res faces are made of the crops, which have R px.
        scale: R / h if the user asked for one, else the largest h that a face supports.
        fit: the user's wish for placing the whole picture, see `fitting.fit_to_prior`.

    Raises:
        InputError: no face was found, or there is a reason against each, and for none of them the
            reason is that the photo is fine enough.
        UsageError: the scale does not suit the prior.
    """
    longest = max(image.width, image.height)
    if options.align == "never" or (options.align == "auto" and longest <= SURELY_LOW_RES):
        return None
    found = frame_faces(image, landmarks, framing)
    if options.align == "auto":
        fills = any(_fills(face, image) for face in found)
        if longest <= resolution and (fills or not found):
            return None
        if not found and fit is not None:
            return None
    if not found:
        raise InputError(
            f"no face found in {image.path} ({image.width}x{image.height} px)",
            "--align never --fit pad takes the whole picture as a face",
        )
    sides: dict[int, tuple[int, int]] = {}
    left_out: list[str] = []
    for number, face in enumerate(found, start=1):
        side = low_res_side(face.side, resolution, scale)
        detail = _detail(image, face, resolution)
        asked = 0 if scale else detail
        reason = _reason_against(number, face, side, asked, resolution, options)
        if reason:
            left_out.append(f"face {number}: {reason}")
        else:
            assert side is not None  # there is a reason against faces without one
            sides[number] = (detail, _side(face.side, asked, resolution) if asked else side)
    left_out += [
        f"face {number}: there is none, the photo has {len(found)}"
        for number in options.faces
        if number > len(found)
    ]
    if not sides and not any(_FINE_ENOUGH in each for each in left_out):
        raise InputError(
            f"{image.path} has no face to search: {'; '.join(left_out)}", _hint(left_out)
        )
    if sides and left_out:
        log.warning("%s: %s", image.path, "; ".join(left_out))
    faces = [
        FaceOfPhoto(
            index=number,
            of=len(found),
            searched=len(sides),
            left_out=tuple(left_out),
            quad=tuple((float(x), float(y)) for x, y in found[number - 1].quad),
            real_size=round(found[number - 1].side, 2),
            inside=round(found[number - 1].inside, 4),
            score=round(found[number - 1].face.score, 4),
            detail=detail,
            side=side,
            operator=operator.strip(),
        )
        for number, (detail, side) in sides.items()
    ]
    return PhotoFaces(tuple(faces), tuple(left_out))


def _detail(image: LowResImage, face: FramedFace, resolution: int) -> int:
    """Up to which side the photo shows the face with detail of its own (`detail.detail_side`)."""
    side = min(resolution, max(int(face.side + 0.5), SMALLEST_FACE))
    return detail_side(crop_quad(image.pixels, face.quad, side, parity=False))


def _side(real_size: float, detail: int, resolution: int) -> int:
    """The side at which a face is searched: the one next to its detail, which it nearly has.

    At the next smaller one detail of the photo would be thrown away, and what is found would not go
    with it.
    """
    fitting = [side for side in low_res_sides(resolution, None) if side <= resolution / 2]
    most = min(detail, real_size) * NEARLY
    return max([side for side in fitting if SMALLEST_FACE <= side <= most], default=SMALLEST_FACE)


def _reason_against(
    number: int,
    face: FramedFace,
    side: int | None,
    detail: int,
    resolution: int,
    options: RunOptions,
) -> str:
    """Why a face is not searched; empty if it is."""
    if options.faces and number not in options.faces:
        return "not among --faces"
    if face.face.score < options.min_score:
        return f"doubtful, score {face.face.score:.2f} below {options.min_score:g}"
    if side is None or face.side < options.min_size:
        return f"too small to search ({face.side:.0f} px)"
    # Faces that the prior could show just a little finer came out as often softer as sharper.
    if detail * NEARLY >= min(resolution, face.side * options.upscale):
        return f"{_FINE_ENOUGH} ({detail} px)"
    return ""


def _hint(reasons: Sequence[str]) -> str:
    """What helps where there is a reason against every face."""
    if any("doubtful" in each for each in reasons):
        return "--min-score accepts doubtful faces; --align never takes the whole picture"
    return "use a larger version of the photo, or other --faces, --min-size, --scale"


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
    crop = crop_quad(photo.pixels, face.corners, resolution, parity=False)
    pixels = degrade(crop, face.operator, resolution // face.side)
    made = f"face {face.index} of {face.of}: {face.real_size:.0f} px in the photo, {face.side} px"
    notes = [*photo.notes, made + " searched", *face.left_out]
    if turned := _turn(face):
        notes.append(f"found after a turn of the photo by {turned} degrees")
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


def _turn(face: FaceOfPhoto) -> int:
    """By how many degrees, a multiple of 90, the face is turned to the right in its photo."""
    along = face.corners[3] - face.corners[0]
    return int(np.round(np.degrees(np.arctan2(along[1], along[0])) / 90.0)) * 90 % 360


def _fills(face: FramedFace, image: LowResImage) -> bool:
    """Whether the picture, if it is square, is already the crop of this face."""
    side = image.width
    if image.height != side:
        return False
    corners = np.array([[0, 0], [0, side], [side, side], [side, 0]]) - 0.5
    return bool(np.hypot(*(face.quad - corners).T).max() <= FRAMING_TOLERANCE * side)
