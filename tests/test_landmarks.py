"""Who finds faces: YuNet, FAN, a file; and what each says when it can not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pulse_sr.alignment.landmarks import fan, yunet
from pulse_sr.alignment.landmarks.base import Face, box_of, left_to_right, without_repeats
from pulse_sr.alignment.landmarks.choice import make_landmarks
from pulse_sr.alignment.landmarks.file import FileLandmarks
from pulse_sr.alignment.landmarks.yunet import YuNet
from pulse_sr.errors import InputError, SetupError, UsageError
from pulse_sr.images.read import read_image

DATA = Path(__file__).parent / "data"

# Eyes, nose and mouth corners of the portraits, read off the enlarged pictures by eye.
BY_HAND = {
    "portrait_a.jpg": [[78, 125], [139, 124], [106, 154], [81, 185], [135, 186]],
    "portrait_b.jpg": [[94, 105], [138, 101], [118, 128], [99, 147], [140, 145]],
}


@pytest.fixture(scope="module")
def portrait():
    return read_image(DATA / "portrait_a.jpg")


def as_image(portrait, picture):
    pixels = np.ascontiguousarray(np.asarray(picture).transpose(2, 0, 1))
    return replace(portrait, pixels=pixels, width=picture.width, height=picture.height)


@pytest.mark.parametrize("name", sorted(BY_HAND))
def test_yunet_finds_the_points_of_a_portrait(name):
    [face] = YuNet().find(read_image(DATA / name))
    assert face.score > 0.9
    assert face.points.shape == (5, 2)
    assert np.hypot(*(face.points - BY_HAND[name]).T).max() < 8
    left, top, width, height = face.box
    assert ((face.points > [left, top]) & (face.points < [left + width, top + height])).all()


@pytest.mark.parametrize("factor", [0.15, 0.5, 3.0, 8.0])
def test_yunet_finds_faces_of_any_size_in_the_same_place(portrait, factor):
    [reference] = YuNet().find(portrait)
    picture = Image.fromarray(portrait.pixels.transpose(1, 2, 0))
    size = (round(picture.width * factor), round(picture.height * factor))
    [face] = YuNet().find(as_image(portrait, picture.resize(size, Image.Resampling.LANCZOS)))
    in_portrait = (face.points + 0.5) / factor - 0.5
    assert np.hypot(*(in_portrait - reference.points).T).max() < 7


def test_yunet_finds_several_faces_from_left_to_right_also_at_the_border(portrait):
    picture = Image.fromarray(portrait.pixels.transpose(1, 2, 0))
    group = Image.new("RGB", (520, 275))
    group.paste(picture.resize((112, 138)), (250, 100))
    group.paste(picture, (-80, 0))  # an eye and half of the mouth are left
    group.paste(picture, (390, 20))
    faces = YuNet().find(as_image(portrait, group))
    centres = [face.box[0] + face.box[2] / 2 for face in faces]
    assert len(faces) == 3
    assert centres == sorted(centres)


def test_yunet_finds_nothing_where_there_is_nothing(portrait):
    for size in ((1, 1), (3, 500), (64, 64)):
        assert YuNet().find(as_image(portrait, Image.new("RGB", size, (90, 120, 40)))) == []


def test_yunet_says_nothing_on_stderr(portrait, capfd):
    YuNet().find(portrait)
    assert capfd.readouterr().err == ""


def test_the_weights_of_yunet_are_checked(tmp_path, portrait):
    assert hashlib.sha256(yunet.WEIGHTS.read_bytes()).hexdigest() == yunet.SHA256
    assert "Apache License" in (yunet.WEIGHTS.parent / "LICENSE.yunet").read_text()
    with pytest.raises(SetupError, match="can not be read"):
        YuNet(weights=tmp_path / "none.onnx").find(portrait)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(yunet.WEIGHTS.read_bytes()[:-1])
    with pytest.raises(SetupError, match="checksum"):
        YuNet(weights=damaged).find(portrait)


def test_repeats_keep_the_better_one_and_neighbours_stay():
    points = np.zeros((5, 2))
    good, repeat = Face(points, 0.9, (0, 0, 10, 10)), Face(points, 0.8, (2, 1, 9, 9))
    inside, beside = Face(points, 0.7, (1, 1, 3, 3)), Face(points, 0.6, (8, 0, 10, 10))
    assert without_repeats([beside, repeat, inside, good]) == [good, beside]
    assert left_to_right([beside, good]) == [good, beside]


def write_points(path, document):
    path.write_text(json.dumps(document))
    return path


def test_points_from_a_file(tmp_path, portrait):
    five = BY_HAND["portrait_a.jpg"]
    many = np.random.default_rng(0).uniform(0, 50, (68, 2)).round(2).tolist()
    path = write_points(tmp_path / "points.json", {"portrait_a.jpg": [five, many]})
    faces = FileLandmarks(path).find(portrait)
    assert [face.points.tolist() for face in faces] == [many, five]  # from left to right
    assert faces[1].box == box_of(np.array(five, float))
    assert faces[1].score == 1
    with pytest.raises(InputError, match=r"no landmarks for other\.jpg"):
        FileLandmarks(path).find(replace(portrait, path="other.jpg"))


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"a.png": 3},
        {"a.png": [[[0, 0]] * 6]},
        {"a.png": [[["x", 0]] * 5]},
        {"a.png": [[[float("nan"), 0]] * 5]},
    ],
)
def test_a_wrong_file_of_points_is_refused(tmp_path, document):
    path = write_points(tmp_path / "points.json", document)
    with pytest.raises(UsageError, match=r"points\.json") as caught:
        FileLandmarks(path)
    assert "expected" in caught.value.hint


def test_a_file_that_is_not_json_is_refused(tmp_path):
    path = tmp_path / "points.json"
    path.write_text("no")
    with pytest.raises(UsageError, match="can not be read"):
        FileLandmarks(path)


def test_sources_by_name(tmp_path):
    assert make_landmarks().name == "yunet"
    assert make_landmarks("yunet", min_score=0.2).min_score == 0.2
    path = write_points(tmp_path / "points.json", {})
    assert make_landmarks(str(path)).name == "file"
    with pytest.raises(UsageError, match="yunet, fan or a JSON file, got 'dlib'"):
        make_landmarks("dlib")
    with pytest.raises(UsageError, match="belong to --landmarks fan"):
        make_landmarks("yunet", download=True)


def test_missing_fan_weights_are_named_with_address_checksum_and_folder(tmp_path):
    with pytest.raises(SetupError) as caught:
        make_landmarks("fan", weights=tmp_path / fan.FILE_NAME)
    assert fan.URL in caught.value.message
    assert "11f355bf06" in caught.value.message
    assert str(tmp_path) in caught.value.hint
    assert "--download" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_foreign_fan_weights_are_refused(tmp_path):
    path = tmp_path / fan.FILE_NAME
    path.write_bytes(b"something else")
    with pytest.raises(SetupError, match="expected 11f355bf06"):
        make_landmarks("fan", weights=path)


def test_fan_is_downloaded_only_on_request_and_never_left_half(tmp_path, monkeypatch):
    path = tmp_path / "hub" / fan.FILE_NAME
    asked = []

    def retrieve(address, target):
        asked.append(address)
        Path(target).write_bytes(b"half a file")
        raise OSError("no route to host")

    monkeypatch.setattr(fan.urllib.request, "urlretrieve", retrieve)
    with pytest.raises(SetupError, match="could not be downloaded: no route to host"):
        make_landmarks("fan", weights=path, download=True)
    assert asked == [fan.URL]
    assert list(path.parent.iterdir()) == []

    monkeypatch.setattr(fan.urllib.request, "urlretrieve", lambda _, to: Path(to).write_bytes(b"x"))
    monkeypatch.setattr(fan, "SHA256_PREFIX", hashlib.sha256(b"x").hexdigest()[:10])
    make_landmarks("fan", weights=path, download=True)
    assert path.read_bytes() == b"x"


def test_fan_gives_68_points_for_the_faces_of_yunet(monkeypatch, tmp_path, portrait):
    """The package's class is a stand-in here: importing it compiles for half a minute."""
    points = np.random.default_rng(0).uniform(50, 150, (68, 2)).astype(np.float32)
    asked = []

    class Network:
        def get_landmarks_from_image(self, rgb, detected_faces):
            asked.append((rgb, detected_faces))
            return [points]

    weights = tmp_path / "fan.pth"
    weights.write_bytes(b"x")
    monkeypatch.setattr(fan, "SHA256_PREFIX", "")
    monkeypatch.setattr(fan, "_load", lambda path, device: Network())
    [face] = make_landmarks("fan", weights=weights).find(portrait)
    [yunet_face] = YuNet().find(portrait)
    assert (face.points == points).all()
    assert (face.score, face.box) == (yunet_face.score, yunet_face.box)
    [(rgb, [box])] = asked
    assert (rgb.transpose(2, 0, 1) == portrait.pixels).all()
    left, top, width, height = face.box
    assert box == [left, top, left + width, top + height]


def test_damaged_fan_weights_with_the_right_checksum_are_one_line(monkeypatch, tmp_path, portrait):
    weights = tmp_path / "fan.pth"
    weights.write_bytes(b"not a pickle")
    monkeypatch.setattr(fan, "SHA256_PREFIX", "")
    with pytest.raises(SetupError, match="does not hold the FAN weights"):
        make_landmarks("fan", weights=weights).find(portrait)
