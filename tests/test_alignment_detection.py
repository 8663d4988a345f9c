"""Faces of turned and of very large photos, and what is no face."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_sr.alignment.landmarks.turning import find_faces
from pulse_sr.alignment.landmarks.yunet import YuNet, _spans
from pulse_sr.images.read import LowResImage, read_image

DATA = Path(__file__).parent / "data"


def turned(image: LowResImage, turns: int) -> LowResImage:
    """The picture after quarter turns to the right."""
    pixels = np.ascontiguousarray(np.rot90(image.pixels, -turns, axes=(1, 2)))
    return replace(image, pixels=pixels, width=pixels.shape[2], height=pixels.shape[1])


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
@pytest.mark.parametrize("name", ["portrait_a.jpg", "portrait_b.jpg"])
def test_a_portrait_that_lies_on_its_side_is_found_upright(name: str, turns: int) -> None:
    image, detector = read_image(DATA / name), YuNet()
    (upright,) = detector.find(image)
    points, size = upright.points, (image.width, image.height)
    for _ in range(turns):
        points, size = np.stack([size[1] - 1 - points[:, 1], points[:, 0]], 1), size[::-1]
    faces = find_faces(detector, turned(image, turns))
    assert len(faces) == 1
    assert np.abs(faces[0].points - points).max() < 0.05 * upright.box[2]
    left, top, width, height = faces[0].box
    assert left < points[:, 0].min() < points[:, 0].max() < left + width
    assert top < points[:, 1].min() < points[:, 1].max() < top + height


def test_small_faces_of_a_large_photo_are_found_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    coarse = rng.integers(90, 160, (20, 42, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((4200, 2000), Image.Resampling.BICUBIC)
    portrait = Image.open(DATA / "portrait_a.jpg")
    small = portrait.resize((50, 61), Image.Resampling.LANCZOS)
    places = [(10, 10), (1590, 700), (2080, 1500), (4140, 1930)]  # in corners, where tiles meet
    for place in places:
        photo.paste(small, place)
    photo.paste(portrait.resize((900, 1100)), (2900, 400))
    path = tmp_path / "large.png"
    photo.save(path)
    centres = [
        (face.box[0] + face.box[2] / 2, face.box[1] + face.box[3] / 2)
        for face in YuNet(0.8).find(read_image(path))
    ]
    assert len(centres) == 5
    for left, top in places:
        assert any(0 < x - left < 50 and 0 < y - top < 61 for x, y in centres)


@pytest.mark.parametrize("length", [1, 1600, 1601, 3840, 7680])
def test_tiles_cover_a_side_and_share_enough(length: int) -> None:
    spans = _spans(length)
    assert (spans[0][0], spans[-1][1]) == (0, length)
    assert all(before[1] - after[0] >= 400 for before, after in itertools.pairwise(spans))
    assert all(stop - start <= 1600 for start, stop in spans)
