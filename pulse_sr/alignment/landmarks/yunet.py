"""YuNet: a small face detector with five landmarks, through OpenCV. The default, works offline.

Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", MIR 2023. The weights (0.3 MB,
Apache-2.0) are part of the package.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from pulse_sr.alignment.landmarks.base import Face, left_to_right, without_repeats
from pulse_sr.errors import SetupError
from pulse_sr.files.digest import file_sha256
from pulse_sr.images.pixels import to_pillow
from pulse_sr.images.read import LowResImage

WEIGHTS = Path(__file__).parent / "weights" / "yunet_n_320_320.onnx"
SHA256 = "81dbde155e982455488235acb8ec2dec5d647edf7cf7080d33e4abb69b93a0d2"

#: Faces below this score are not reported.
MIN_SCORE = 0.6

# YuNet finds faces of about 10 to 300 px: a photo is searched at several sizes of its longer side.
_SIDES = (160, 320, 640, 1280, 1920)
# Larger photos are searched at doubled sizes too, in tiles that share as much as a face needs.
_TILE, _SHARED = 1600, 400
# Smaller faces (px, in the scaled photo) are left to the larger scales, which see them better.
_SMALLEST = 20
# A face at the border is found better with some room around it.
_MARGIN, _LARGEST_MARGIN = 0.15, 96  # part of the longer side, and px
_SAME_BOX, _MOST_FACES = 0.3, 1000


class YuNet:
    """Finds faces with five landmarks.

    Args:
        min_score: lowest confidence to report, in [0, 1].
        weights: the network; its checksum must be `SHA256`.
    """

    name = "yunet"

    def __init__(self, min_score: float = MIN_SCORE, weights: Path = WEIGHTS) -> None:
        self.min_score = min_score
        self.weights = weights

    def find(self, image: LowResImage) -> list[Face]:
        """Returns the faces from left to right.

        Raises:
            SetupError: the weights are missing or damaged.
        """
        picture, longest = to_pillow(image.pixels), max(image.width, image.height)
        sides = _sides(longest)
        found = []
        for side in sides:
            scale = side / longest
            smallest = 0.0 if side == sides[-1] else _SMALLEST / scale
            found += [f for f in self._find_at(picture, scale) if f.box[2] >= smallest]
        return left_to_right(without_repeats(found))

    def _find_at(self, picture: Image.Image, scale: float) -> list[Face]:
        """The faces of the photo scaled by a factor, which is looked at in tiles if it is large."""
        size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
        # From the scaled picture's pixels to the photo's; each axis was rounded on its own.
        ratio = np.array([picture.width / size[0], picture.height / size[1]])
        if max(size) <= _SIDES[-1]:
            return self._find_in(picture, (0, 0, *size), ratio)
        return [
            face
            for top, bottom in _spans(size[1])
            for left, right in _spans(size[0])
            for face in self._find_in(picture, (left, top, right, bottom), ratio)
            if face.box[2] <= _SHARED / scale  # larger ones were seen whole at half the size
        ]

    def _find_in(
        self, picture: Image.Image, tile: tuple[int, int, int, int], ratio: np.ndarray
    ) -> list[Face]:
        """The faces in a tile (left, top, right, bottom) of the scaled photo."""
        size = (tile[2] - tile[0], tile[3] - tile[1])
        box = tuple(np.array(tile) * np.tile(ratio, 2))
        scaled = np.asarray(picture.resize(size, Image.Resampling.BICUBIC, box=box))
        margin = round(min(max(size) * _MARGIN, _LARGEST_MARGIN))
        border = ((margin, margin), (margin, margin), (0, 0))
        padded = np.ascontiguousarray(np.pad(scaled, border, "edge")[..., ::-1])  # BGR
        self._network.setInputSize((padded.shape[1], padded.shape[0]))
        _, rows = self._network.detect(padded)
        if rows is None:
            return []
        origin = np.array(tile[:2]) - margin
        return [_face(row.astype(np.float64), origin, ratio) for row in rows]

    @cached_property
    def _network(self) -> cv2.FaceDetectorYN:
        try:
            digest = file_sha256(self.weights)
        except OSError as error:
            raise SetupError(
                f"the face detector {self.weights} can not be read: {error.strerror}",
                "reinstall pulse-sr",
            ) from error
        if digest != SHA256:
            raise SetupError(
                f"{self.weights} has checksum {digest[:12]}..., expected {SHA256[:12]}...",
                "the file was changed or damaged: reinstall pulse-sr",
            )
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)  # a remark on targets
        try:
            return cv2.FaceDetectorYN.create(
                str(self.weights), "", (320, 320), self.min_score, _SAME_BOX, _MOST_FACES
            )
        finally:
            cv2.utils.logging.setLogLevel(level)


def _sides(longest: int) -> list[int]:
    """The sizes of its longer side at which a photo is searched."""
    sides = [side for side in _SIDES if side <= max(longest * 2, _SIDES[1])]
    while sides[-1] >= _SIDES[-1] and sides[-1] * 2 <= longest * 1.2:
        sides.append(sides[-1] * 2)
    return sides


def _spans(length: int) -> list[tuple[int, int]]:
    """Where the tiles begin and end along one axis, evenly spread."""
    if length <= _TILE:
        return [(0, length)]
    count = -(-(length - _SHARED) // (_TILE - _SHARED))
    starts = np.linspace(0, length - _TILE, count).round().astype(int)
    return [(int(start), int(start) + _TILE) for start in starts]


def _face(row: np.ndarray, origin: np.ndarray, ratio: np.ndarray) -> Face:
    """One row of the detector: box, five points (the subject's right eye first), score."""
    points = (row[4:14].reshape(5, 2) + origin + 0.5) * ratio - 0.5
    corner, size = (row[:2] + origin + 0.5) * ratio - 0.5, row[2:4] * ratio
    box = (float(corner[0]), float(corner[1]), float(size[0]), float(size[1]))
    return Face(points, float(row[14]), box)
