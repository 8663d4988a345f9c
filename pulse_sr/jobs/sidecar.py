"""What is written down of a face beside its pixels, as JSON."""

from __future__ import annotations

from typing import Any, TypedDict

from pulse_sr import __version__
from pulse_sr.alignment.faces import FramedFace
from pulse_sr.alignment.geometry import affine_of
from pulse_sr.alignment.settings import AlignSettings
from pulse_sr.images.read import LowResImage


class SourceShape(TypedDict):
    """The photo of a crop."""

    path: str
    sha256: str


class SidecarShape(TypedDict):
    """What is read back of a sidecar."""

    source: SourceShape
    landmarks: list[tuple[float, float]]
    framing: dict[str, Any]


def sidecar(
    image: LowResImage, place: tuple[int, int], framed: FramedFace, settings: AlignSettings
) -> dict[str, Any]:
    """Returns what the sidecar of a crop says of its photo, its landmarks and its transform.

    Args:
        image: the photo.
        place: (number of the face from 1, how many faces of the photo have crops).
        framed: the face.
        settings: of the run.
    """
    face = framed.face
    return {
        "schema": 1,
        "version": __version__,
        "source": {
            "path": image.path,
            "sha256": image.sha256,
            "width": image.width,
            "height": image.height,
            "notes": list(image.notes),
        },
        "face": {"index": place[0], "of": place[1]},
        "landmarks": face.points.round(3).tolist(),
        "landmarks_from": settings.landmarks,
        "box": [round(each, 2) for each in face.box],
        "framing": settings.framing.describe(),
        "size": settings.size,
        "quad": framed.quad.tolist(),
        # From pixel indices (x, y, 1) of the crop to those of the photo.
        "transform": affine_of(framed.quad, settings.size).tolist(),
        "operator": settings.operator if settings.lr else None,
    }


def left_out_entry(framed: FramedFace, sharp: float, reason: str) -> dict[str, Any]:
    """Returns what the manifest says of a face that has no crop."""
    return {
        "reason": reason,
        "score": round(framed.face.score, 4),
        "real_size": round(framed.side, 2),
        "sharpness": round(sharp, 2),
        "box": [round(each, 2) for each in framed.face.box],
    }
