"""Where a face lies in a photo, and the square that a prior wants to see of it.

Coordinates: points are (x, y) in pixel indices, the centre of the top left pixel is (0, 0). A quad
is float64 [4, 2], the corners of the crop in the photo in the order top left, bottom left, bottom
right, top right. It maps the unit square:
`quad[0] + u (quad[3] - quad[0]) + v (quad[1] - quad[0])`.

Shape legend: K landmarks, 5 or 68.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_sr.errors import SetupError

Points = NDArray[np.float64]

# Rows of the 68 points (iBUG 300-W order), left and right as seen in the picture.
_LEFT_EYE, _RIGHT_EYE, _NOSE_TIP = slice(36, 42), slice(42, 48), 30
_LEFT_MOUTH, _RIGHT_MOUTH = 48, 54


@dataclass(frozen=True, eq=False)
class Framing:
    """How a face lies in the square that a prior was trained on.

    Attributes:
        name: "ffhq" or "template".
        template: float64 [5, 2], where eyes, nose and mouth corners lie in units of the side; None
            for FFHQ, whose square follows from the eyes and the mouth alone.
    """

    name: str
    template: Points | None = field(default=None)

    def quad(self, points: Points) -> Points:
        """Returns the crop of a face with `points` [K, 2], as a quad [4, 2].

        Raises:
            ValueError: neither 5 nor 68 points, or points that lie in one place.
        """
        if self.template is None:
            return ffhq_quad(points)
        scale_rotation, offset = similarity(self.template, five_points(points))
        corners = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]])
        return corners @ scale_rotation.T + offset

    def describe(self) -> dict[str, Any]:
        """Returns the framing as JSON, in the form that a prior's card has it as `alignment`."""
        template = None
        if self.template is not None:
            left_eye, right_eye, nose, left_mouth, right_mouth = self.template.tolist()
            eyes, mouth = [left_eye, right_eye], [left_mouth, right_mouth]
            template = {"eyes": eyes, "nose": nose, "mouth": mouth}
        return {"name": self.name, "template": template, "unit": "side of the crop"}


#: The framing of priors whose card names none.
FFHQ = Framing("ffhq")


def framing_of(card: Mapping[str, Any]) -> Framing:
    """Returns the framing that a prior's card names: `alignment.template`, without it FFHQ's.

    Raises:
        SetupError: the template is not five points.
    """
    template = (card.get("alignment") or {}).get("template")
    if template is None:
        return FFHQ
    try:
        rows = [*template["eyes"], template["nose"], *template["mouth"]]
        points = np.array(rows, dtype=np.float64)
        if points.shape != (5, 2) or not np.isfinite(points).all():
            raise ValueError(f"shape {points.shape}")
    except (LookupError, TypeError, ValueError, OverflowError) as error:
        raise SetupError(
            f"the prior's card has an alignment template that is not five points ({error})",
            'expected {"eyes": [[x, y], [x, y]], "nose": [x, y], "mouth": [[x, y], [x, y]]}',
        ) from error
    return Framing("template", points)


def five_points(points: Points) -> Points:  # [K, 2] -> [5, 2]
    """Returns left eye, right eye, nose, left and right mouth corner, as seen in the picture.

    Raises:
        ValueError: neither 5 nor 68 points.
    """
    if points.shape == (5, 2):
        return points
    if points.shape != (68, 2):
        raise ValueError(f"expected 5 or 68 points (x, y), got an array of {points.shape}")
    eyes = [points[_LEFT_EYE].mean(axis=0), points[_RIGHT_EYE].mean(axis=0)]
    return np.stack([*eyes, points[_NOSE_TIP], points[_LEFT_MOUTH], points[_RIGHT_MOUTH]])


def ffhq_quad(points: Points) -> Points:  # [K, 2] -> [4, 2]
    """Returns FFHQ's crop of a face (Karras et al., CVPR 2019, appendix C).

    The horizontal axis is halfway between the line of the eyes and the normal of the line from eyes
    to mouth. Half the side is twice the distance of the eyes or 1.8 times that from eyes to mouth,
    whichever is more; the centre lies a tenth of the way from the eyes to the mouth.

    Raises:
        ValueError: neither 5 nor 68 points, or points that lie in one place.
    """
    left_eye, right_eye, _, left_mouth, right_mouth = five_points(points)
    eyes = (left_eye + right_eye) / 2
    across = right_eye - left_eye
    down = (left_mouth + right_mouth) / 2 - eyes
    axis = across - _quarter_turn(down)
    length = np.hypot(*axis)
    if not np.isfinite(points).all() or length < 1e-6:
        raise ValueError("the points of the face lie in one place")
    half = axis / length * max(np.hypot(*across) * 2.0, np.hypot(*down) * 1.8)
    upright = _quarter_turn(half)
    centre = eyes + down * 0.1
    left, right = centre - half, centre + half
    return np.stack([left - upright, left + upright, right + upright, right - upright])


def similarity(source: Points, target: Points) -> tuple[Points, Points]:
    """Returns scaled rotation M [2, 2] and offset t [2] with target ~ source @ M.T + t.

    The least-squares similarity without reflection: Umeyama, IEEE PAMI 13(4), 1991, eq. 40 to 43.

    Args:
        source: [K, 2].
        target: [K, 2].

    Raises:
        ValueError: the points of one side lie in one place, or are not finite.
    """
    if not (np.isfinite(source).all() and np.isfinite(target).all()):
        raise ValueError("a point is not finite")
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    centred, wanted = source - source_mean, target - target_mean
    variance = (centred**2).sum() / len(source)
    if variance < 1e-12 or (wanted**2).sum() < 1e-12:
        raise ValueError("the points of the face lie in one place")
    left, singular, right = np.linalg.svd(wanted.T @ centred / len(source))
    sign = np.array([1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    rotation = (left * sign) @ right
    matrix = rotation * ((singular * sign).sum() / variance)
    return matrix, target_mean - matrix @ source_mean


def side_of(quad: Points) -> float:
    """Returns the side of the crop in pixels of the photo: the real resolution of the face."""
    return float(np.hypot(*(quad[3] - quad[0])))


def rounded(quad: Points) -> Points:
    """Returns the quad in thousandths of a pixel, which sidecars and fingerprints hold exactly."""
    return np.round(quad, 3)


def affine_of(quad: Points, side: int) -> NDArray[np.float64]:
    """Returns [2, 3], from pixel indices (x, y, 1) of a crop of `side` px to those of the photo.

    Both are shifted by half a pixel, since a quad's corners are the outer corners of pixels: the
    corner (0, 0) of the crop lies at `quad[0] + 0.5` where pixel edges are whole numbers.
    """
    right, down = (quad[3] - quad[0]) / side, (quad[1] - quad[0]) / side
    origin = quad[0] + (right + down) / 2
    return np.stack([right, down, origin], axis=1)


def inside_share(quad: Points, width: int, height: int) -> float:
    """Returns which part of the crop lies in a photo of that size, measured on a 64 x 64 grid."""
    affine = affine_of(quad, 64)
    columns, rows = np.meshgrid(np.arange(64.0), np.arange(64.0))
    x, y = np.tensordot(affine, np.stack([columns, rows, np.ones_like(rows)]), axes=1)
    inside = (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    return float(inside.mean())


def _quarter_turn(vector: Points) -> Points:
    """Turns (x, y) by 90 degrees, from right to down."""
    return np.array([-vector[1], vector[0]])
