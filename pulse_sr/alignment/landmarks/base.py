"""What alignment needs to know of a face, whatever found it.

Shape legend: K landmarks, 5 (YuNet) or 68 (FAN, iBUG 300-W order); H W photo.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pulse_sr.images.read import LowResImage

Points = NDArray[np.float64]

#: Two boxes that share more than this part of the smaller one are the same face.
_SAME_FACE = 0.5


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a photo.

    Attributes:
        points: float64 [K, 2], (x, y) in pixel indices of the photo. Five points are left eye,
            right eye, nose, left and right mouth corner, left and right as seen in the picture.
        score: the detector's confidence in [0, 1]; 1 for points given by hand.
        box: left, top, width, height in pixels; may reach over the borders.
    """

    points: Points
    score: float
    box: tuple[float, float, float, float]


class Landmarks(Protocol):
    """A source of landmarks."""

    #: Short name, part of every record: "yunet", "fan" or "file".
    name: str

    def find(self, image: LowResImage) -> list[Face]:
        """Returns the faces from left to right (by the centre of their boxes); [] without any.

        Raises:
            SetupError: weights are missing or damaged.
            InputError: the source has something to say on this photo that can not be used.
        """
        ...


def box_of(points: Points) -> tuple[float, float, float, float]:
    """Returns the bounding box of points, for faces that come without one."""
    (left, top), (right, bottom) = points.min(axis=0), points.max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def left_to_right(faces: Sequence[Face]) -> list[Face]:
    """Orders faces as people read a group picture; equal columns from top to bottom."""
    return sorted(faces, key=lambda face: (face.box[0] + face.box[2] / 2, face.box[1]))


def without_repeats(faces: Sequence[Face]) -> list[Face]:
    """Keeps the best of the boxes that lie on the same face, found at several scales."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda each: -each.score):
        if all(_overlap(face.box, other.box) < _SAME_FACE for other in kept):
            kept.append(face)
    return kept


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The common area of two boxes as part of the smaller one."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / max(min(a[2] * a[3], b[2] * b[3]), 1e-9)
