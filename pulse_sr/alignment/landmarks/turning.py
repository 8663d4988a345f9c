"""Photos that lie on their side or upside down, without a word of it in the file.

Detectors know upright faces; of a turned portrait they make faces of an eye and a cheek, with lower
scores. So where no upright face is beyond doubt, the other three directions are tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pulse_sr.alignment.landmarks.base import Face, Landmarks, box_of, left_to_right
from pulse_sr.images.read import LowResImage

#: A face with this score is upright. Measured on 60 portraits (YuNet): upright 0.93 to 0.96, upside
#: down at most 0.91, on their side at most 0.89.
SURELY_UPRIGHT = 0.92
#: Another direction has to score so much better than upright.
_BETTER = 0.03


def find_faces(landmarks: Landmarks, image: LowResImage) -> list[Face]:
    """Finds the faces of a photo whichever way up it is; `landmarks.find` for upright ones.

    Returns:
        from left to right; points and boxes are those of the photo as it lies, so that the crop of
        a face, whose top is where the eyes are, stands upright.

    Raises:
        SetupError, InputError: see `landmarks.find`.
    """
    faces = landmarks.find(image)
    best = _best(faces)
    if best >= SURELY_UPRIGHT or landmarks.name == "file":
        return faces
    best += _BETTER
    for turns in (1, 3, 2):
        found = landmarks.find(_turned(image, turns))
        if _best(found) > best:
            best = _best(found)
            faces = [_turned_back(face, turns, image) for face in found]
    return left_to_right(faces)


def _best(faces: Sequence[Face]) -> float:
    return max((face.score for face in faces), default=0.0)


def _turned(image: LowResImage, turns: int) -> LowResImage:
    """The photo after quarter turns to the left."""
    pixels = np.ascontiguousarray(np.rot90(image.pixels, turns, axes=(1, 2)))
    return replace(image, pixels=pixels, width=pixels.shape[2], height=pixels.shape[1])


def _turned_back(face: Face, turns: int, image: LowResImage) -> Face:
    """A face of the turned photo in pixel indices of the photo."""
    left, top, width, height = face.box
    corners = np.array([[left, top], [left + width, top + height]])
    sides = (image.width, image.height)
    for turn in range(turns):
        # one quarter turn to the left takes (x, y) to (y, w - 1 - x); w as it was before that turn
        side = sides[(turns - 1 - turn) % 2]
        corners, points = (
            np.stack([side - 1 - each[:, 1], each[:, 0]], axis=1) for each in (corners, face.points)
        )
        face = replace(face, points=points)
    return replace(face, box=box_of(corners))
