"""The faces of one photo in a prior's framing, and which of them are good enough.

Shape legend: H W photo, S side of a crop.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import laplace

from pulse_sr.alignment.crop import crop_quad
from pulse_sr.alignment.geometry import Framing, Points, inside_share, rounded, side_of
from pulse_sr.alignment.landmarks.base import Face, Landmarks
from pulse_sr.alignment.landmarks.turning import find_faces
from pulse_sr.alignment.options import Limits
from pulse_sr.errors import InputError
from pulse_sr.images.pixels import Pixels
from pulse_sr.images.read import LowResImage

#: Faces are measured for sharpness at this side, or at their own if that is smaller.
SHARPNESS_SIDE = 128

# A crop so much larger than its photo comes from points that belong to another picture.
_LARGEST_CROP = 8


@dataclass(frozen=True, eq=False)
class FramedFace:
    """A face and the crop that a framing makes of it.

    Attributes:
        face: the landmarks.
        quad: the crop in the photo, see `geometry`.
        side: side of the crop in pixels of the photo, the real resolution of the face.
        inside: which part of the crop lies in the photo; the rest is mirrored.
    """

    face: Face
    quad: Points
    side: float
    inside: float


def frame_faces(image: LowResImage, landmarks: Landmarks, framing: Framing) -> list[FramedFace]:
    """Finds the faces of a photo, whichever way up it is, and frames them, from left to right.

    Raises:
        InputError: landmarks that make no crop: in one place, or of another photo.
        SetupError: the landmark source can not work.
    """
    framed = []
    for face in find_faces(landmarks, image):
        try:
            quad = rounded(framing.quad(face.points))
        except ValueError as error:
            raise InputError(f"{image.path}: {error}", "check the landmarks") from error
        side, longest = side_of(quad), max(image.width, image.height)
        if not 1.0 <= side <= _LARGEST_CROP * longest:
            raise InputError(
                f"{image.path}: the landmarks make a crop of {side:.1f} px in a photo of "
                f"{image.width}x{image.height} px",
                "check that they belong to this photo",
            )
        framed.append(FramedFace(face, quad, side, inside_share(quad, image.width, image.height)))
    return framed


def sharpness(image: LowResImage, framed: FramedFace) -> float:
    """Returns the variance of the Laplacian of the grey crop, grey levels from 0 to 255.

    Measured: official portraits 96 to 350; the same blurred by a Gaussian of 1, 2 and 3 % of the
    side 34, 6 and 2; photos from the web 3 to 160.
    """
    side = max(min(SHARPNESS_SIDE, int(framed.side)), 3)
    grey = crop_quad(image.pixels, framed.quad, side).astype(np.float64).mean(axis=0)
    return float(laplace(grey).var())


def reason_against(framed: FramedFace, sharp: float, limits: Limits) -> str | None:
    """Returns why a face is left out, or None for a good one."""
    score = framed.face.score
    if score < limits.min_score:
        return f"score {score:.2f} below {limits.min_score:g}"
    if framed.side < limits.min_size:
        return f"too small: {framed.side:.0f} px, {limits.min_size:g} wanted"
    if sharp < limits.min_sharpness:
        return f"blurred: sharpness {sharp:.1f} below {limits.min_sharpness:g}"
    return None


def cut_out(
    image: LowResImage, framed: FramedFace, side: int, framing: Framing
) -> Pixels:  # [3, S, S]
    """Returns the crop of a face with S = `side`; FFHQ's framing as FFHQ made it (`crop_quad`)."""
    return crop_quad(image.pixels, framed.quad, side, parity=framing.template is None)
