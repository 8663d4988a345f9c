"""Pictures that are no faces, through `run`: an answer with an honest status, and no crash.

On the bundled prior with few steps, so that most of them end far from their input.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from searched import psnr, samples, save, search

from pulse_sr.api import load_prior
from pulse_sr.config import SearchConfig
from pulse_sr.images.pixels import to_uint8
from pulse_sr.images.read import read_image
from pulse_sr.inversion.blind import detection as blind
from pulse_sr.jobs.searching import run
from pulse_sr.operators.degrading import degrade


@pytest.fixture(scope="module")
def prior():
    return load_prior(device="cpu")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty folder; blind mode looks at fewer faces than it would."""
    monkeypatch.setattr(blind, "FACES", 128)
    monkeypatch.chdir(tmp_path)


def cat():
    """A cat's head of ellipses and triangles, 16 px."""
    image = Image.new("RGB", (128, 128), (60, 110, 60))
    draw = ImageDraw.Draw(image)
    for x in (14, 78):
        draw.polygon([(x, 60), (x + 18, 4), (x + 36, 60)], (200, 130, 50))
    draw.ellipse((14, 34, 114, 122), (210, 140, 60))
    for x in (36, 76):
        draw.ellipse((x, 60, x + 18, 80), (220, 230, 90))
        draw.ellipse((x + 6, 60, x + 12, 80), (0, 0, 0))
    draw.polygon([(58, 88), (70, 88), (64, 96)], (230, 120, 130))
    for y in (86, 94, 102):
        draw.line((4, y, 52, 94), (250, 250, 250), 2)
        draw.line((124, y, 76, 94), (250, 250, 250), 2)
    return np.asarray(image.resize((16, 16), Image.Resampling.BOX)).transpose(2, 0, 1)


def text():
    """Black letters on white, 32 px."""
    image = Image.new("RGB", (32, 32), "white")
    ImageDraw.Draw(image).multiline_text((1, 1), "Many\nfaces", fill="black")
    return np.asarray(image).transpose(2, 0, 1)


def bordered():
    """Noise inside a thick red border, 16 px."""
    picture = np.zeros((3, 16, 16), np.uint8)
    picture[0] = 255
    picture[:, 5:11, 5:11] = np.random.default_rng(1).integers(0, 256, (3, 6, 6))
    return picture


NO_FACES = {
    "cat": cat,
    "text": text,
    "noise": lambda: np.random.default_rng(0).integers(0, 256, (3, 16, 16), np.uint8),
    "checks": lambda: np.uint8(255) * (np.indices((3, 16, 16)).sum(axis=0) % 2).astype(np.uint8),
    "black": lambda: np.zeros((3, 16, 16), np.uint8),
    "white": lambda: np.full((3, 16, 16), 255, np.uint8),
    "green": lambda: np.full((3, 16, 16), 0, np.uint8) + np.uint8([[[0]], [[255]], [[0]]]),
    "border": bordered,
    "line": lambda: np.full((3, 1, 16), 90, np.uint8),
}


@pytest.mark.parametrize(
    ("name", "operator"),
    [(name, "bicubic") for name in NO_FACES]
    + [(name, "auto") for name in ("cat", "noise", "black", "line")],
)
def test_what_is_no_face_gets_an_answer_with_an_honest_status(prior, name, operator):
    """Whatever comes out, its status follows from its files, measured by other code."""
    low = NO_FACES[name]()
    record, found = search(save("input.png", low), prior, operator, samples=1)
    assert record.status == "done"
    spec, scale = found["operator"]["spec"], found["operator"]["scale"]
    rows, columns = (slice(*found["grid"][axis]) for axis in ("rows", "columns"))
    for each, written in zip(found["samples"], samples(found, "out/input"), strict=True):
        again = degrade(written, spec, scale)[:, rows, columns]
        if each["lr_psnr"] < 50:
            assert each["lr_psnr"] == pytest.approx(psnr(again, low), abs=0.3)
        else:
            assert np.abs(again.astype(int) - low).max() <= 4
        assert each["status"] == ("ok" if each["lr_psnr"] >= found["ok_db"] else "below_target")
    worst = min(each["lr_psnr"] for each in found["samples"])
    assert found["status"] == ("ok" if worst >= found["ok_db"] else "below_target")


@pytest.mark.parametrize("name", ["checks", "noise", "green"])
def test_what_the_prior_can_not_draw_is_below_target_without_projection(prior, name):
    _, found = search(save("input.png", NO_FACES[name]()), prior, "bicubic", project="off")
    assert found["status"] == "below_target"
    assert max(each["lr_psnr"] for each in found["samples"]) < 30


def test_a_folder_mixes_faces_and_others(prior):
    Path("in").mkdir()
    truth = to_uint8(prior.sample([20_000_003])[0].double().numpy())
    save("in/face.png", degrade(truth, "bicubic", 8))
    for name in ("cat", "noise"):
        save(f"in/{name}.png", NO_FACES[name]())
    config = SearchConfig(samples=1, steps=3, batch=1, operator="auto")
    records = list(run(["in"], "out", config, prior, align="never"))
    assert [record.status for record in records] == ["done"] * 3
    assert all(record.note.startswith("operator auto: ") for record in records)
    assert read_image("out/cat/grid.png").width > 0
