"""A face of a photo on its way back into it: `pasted_00.png` beside `sample_00.png`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_sr.alignment.intake import FaceOfPhoto
from pulse_sr.alignment.paste import paste
from pulse_sr.images.read import LowResImage

Pixels = NDArray[np.uint8]


def pasted_name(index: int) -> str:
    """Returns the file name of the photo with a sample in it."""
    return f"pasted_{index:02d}.png"


@dataclass(frozen=True)
class Placement:
    """Where the samples of a face go.

    Attributes:
        photo: the input as read.
        face: the face that was searched.
        base: stem of the input.
    """

    photo: LowResImage
    face: FaceOfPhoto
    base: str

    def paste(self, sample: Pixels) -> Pixels:  # [3, R, R] -> [3, H, W]
        """Returns the photo with the sample in its place."""
        return paste(self.photo.pixels, sample, self.face.corners)

    def describe(self) -> dict[str, Any]:
        """Returns the record of the face as JSON."""
        return {"base": self.base, **self.face.describe()}
