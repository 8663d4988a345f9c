"""Which part of a photo a low-res face was made of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FaceOfPhoto:
    """One face of a photo, searched as an input of its own.

    Attributes:
        index: its place from left to right, from 1.
        of: how many faces of the photo are searched.
        quad: the corners of its crop, see `alignment.geometry`.
        real_size: side of the crop in pixels of the photo.
        inside: which part of the crop lies in the photo.
        score: of the detector.
        side: h, the side of the low-res face that is searched.
        operator: how the low-res face is made from the crop.
    """

    index: int
    of: int
    quad: tuple[tuple[float, float], ...]
    real_size: float
    inside: float
    score: float
    side: int
    operator: str

    @property
    def corners(self) -> NDArray[np.float64]:
        """The quad as float64 [4, 2]."""
        return np.array(self.quad, dtype=np.float64)

    def describe(self) -> dict[str, Any]:
        """Returns all of it as JSON."""
        return {**asdict(self), "quad": [list(corner) for corner in self.quad]}


def face_of_record(record: dict[str, Any]) -> FaceOfPhoto:
    """Returns the face that `FaceOfPhoto.describe` wrote; unknown keys are left out.

    Raises:
        KeyError, TypeError, ValueError: the record is damaged.
    """
    known = {name: record[name] for name in FaceOfPhoto.__dataclass_fields__}
    quad = tuple((float(x), float(y)) for x, y in record["quad"])
    return FaceOfPhoto(**(known | {"quad": quad}))
