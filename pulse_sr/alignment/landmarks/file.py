"""Landmarks from a JSON file: points that somebody placed by hand, or another program found.

    {"party.jpg": [[[120, 88], [151, 90], [134, 108], [122, 125], [148, 127]], ...], ...}

One list of faces for each photo, by its file name (or its path as given); a face is 5 points (left
eye, right eye, nose, left and right mouth corner as seen in the picture) or 68 (iBUG 300-W order),
in pixel indices after EXIF rotation. A sidecar that `align` wrote is understood too.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pulse_sr.alignment.landmarks.base import Face, box_of, left_to_right
from pulse_sr.errors import InputError, UsageError, first_line
from pulse_sr.files.documents import check_shape, load_json
from pulse_sr.files.paths import check_path
from pulse_sr.images.read import LowResImage

_HINT = 'expected {"photo.jpg": [[[x, y], ...], ...]}: per photo a list of faces of 5 or 68 points'


class FileLandmarks:
    """Landmarks that a JSON file holds.

    Raises:
        UsageError: the file can not be read or is not of that form.
    """

    name = "file"

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            document = load_json(check_path(path, called="--landmarks "), dict)
            if {"source", "landmarks"} <= set(document):
                check_shape(document["source"], dict[str, Any])
                document = {str(document["source"].get("path")): [document["landmarks"]]}
        except (OSError, ValueError) as error:
            words = f"--landmarks {path} can not be read: {first_line(error)}"
            raise UsageError(words, _HINT) from error
        self._faces = {
            str(name): [_face(path, str(name), points) for points in _list(path, faces)]
            for name, faces in document.items()
        }

    def find(self, image: LowResImage) -> list[Face]:
        """Returns the faces of this photo from left to right.

        Raises:
            InputError: the file does not name the photo.
        """
        for name in (image.path, Path(image.path).name):
            if name in self._faces:
                return left_to_right(self._faces[name])
        raise InputError(
            f"{self.path} has no landmarks for {image.path}",
            f"add an entry {Path(image.path).name!r}",
        )


def _list(path: Path, faces: Any) -> list[Any]:
    if not isinstance(faces, list):
        raise UsageError(f"--landmarks {path} has a photo without a list of faces", _HINT)
    return faces


def _face(path: Path, name: str, points: Any) -> Face:
    try:
        array = np.array(points, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        array = np.empty(0)
    if array.shape not in ((5, 2), (68, 2)) or not np.isfinite(array).all():
        raise UsageError(
            f"--landmarks {path}: a face of {name} is not 5 or 68 finite points (x, y)", _HINT
        )
    return Face(array, 1.0, box_of(array))
