"""Which part of a photo a low-res face was made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from pulse_sr.files.documents import Place, Side


@dataclass(frozen=True)
class FaceOfPhoto:
    """One face of a photo, searched as an input of its own.

    Attributes:
        index: its place among the faces found in the photo from left to right, from 1.
        of: how many were found.
        searched: how many of them are searched.
        left_out: what became of the others, a line each.
        quad: the corners of its crop, see `alignment.geometry`.
        real_size: side of the crop in pixels of the photo.
        inside: which part of the crop lies in the photo.
        score: of the detector.
        detail: up to which side in px the photo shows the face with detail of its own.
        side: h, the side of the low-res face that is searched.
        operator: how the low-res face is made from the crop.
    """

    index: Place
    of: Place
    searched: Place
    left_out: tuple[str, ...]
    quad: Annotated[tuple[tuple[float, float], ...], Meta(min_length=4, max_length=4)]
    real_size: Annotated[float, Meta(gt=0)]
    inside: float
    score: float
    detail: Side
    side: Side
    operator: str

    @property
    def corners(self) -> NDArray[np.float64]:
        """The quad as float64 [4, 2]."""
        return np.array(self.quad, dtype=np.float64)

    def describe(self) -> dict[str, Any]:
        """Returns all of it as JSON."""
        quad, left_out = [list(corner) for corner in self.quad], list(self.left_out)
        return {**asdict(self), "quad": quad, "left_out": left_out}


def face_of_record(record: Any) -> FaceOfPhoto | None:
    """Returns the face that `FaceOfPhoto.describe` wrote; None if there is none, or a damaged one.

    Unknown keys are left out.
    """
    try:
        face = msgspec.convert(record, FaceOfPhoto)
    except msgspec.ValidationError:
        return None
    return face if face.index <= face.of else None
