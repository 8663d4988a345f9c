"""The supervised networks of the package: what they are, and that they do better than bicubic.

The picture is drawn here: edges, letters' strokes and a gradient, none of it seen in training.
"""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.metrics.psnr import luma_psnr
from pulse_sr.models import networks
from pulse_sr.models.networks import bundled_networks, list_networks, load_network
from pulse_sr.operators.degrading import degrade
from pulse_sr.sr.enlarging import bicubic, by_network

CPU = torch.device("cpu")


def drawing(side=128):
    image = Image.new("RGB", (4 * side, 4 * side), (200, 180, 160))
    draw = ImageDraw.Draw(image)
    for i in range(12):
        draw.line((40 * i, 0, 512 - 20 * i, 512), (20 * i, 40, 90), 6 + i)
    draw.ellipse((120, 150, 400, 420), (230, 220, 90), (30, 30, 30), 9)
    small = image.resize((side, side), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def test_the_default_enlarges_photos_by_four():
    assert next(iter(bundled_networks())) == "compact-x4"
    model = load_network(None, CPU)
    assert (model.name, model.scale) == ("compact-x4", 4)


@pytest.mark.parametrize("name", bundled_networks())
def test_a_network_is_small_and_says_where_it_comes_from(name):
    model = load_network(name, CPU)
    assert model.file.stat().st_size < 4e6
    assert {"data", "licence", "use", "training"} <= model.card.keys()
    assert model.card["training"]["images"] > 50_000


def test_the_default_does_better_than_bicubic():
    truth = drawing()
    low = degrade(truth, "matlab", 4)
    made = by_network(load_network("compact-x4", CPU))(low)
    assert luma_psnr(made, truth, 4) > luma_psnr(bicubic(4)(low), truth, 4) + 1.0


def test_names_and_damage_are_told_apart(tmp_path, monkeypatch):
    assert [card["name"] for card in list_networks()] == list(bundled_networks())
    with pytest.raises(UsageError, match="no network 'compact-x5'"):
        load_network("compact-x5", CPU)
    folder = tmp_path / "bundled"
    shutil.copytree(networks.FOLDER, folder)
    monkeypatch.setattr(networks, "FOLDER", folder)
    (folder / "compact-x4.safetensors").write_bytes(b"other")
    with pytest.raises(SetupError, match="has checksum"):
        load_network(None, CPU)
    (folder / "compact-x4.safetensors").unlink()
    with pytest.raises(SetupError, match="is missing"):
        load_network(None, CPU)
    (folder / "registry.json").unlink()
    with pytest.raises(SetupError, match="list of bundled networks"):
        load_network(None, CPU)


def test_luma_is_that_of_studio_range():
    """White is 219 levels above black: 20 log10(219/255) = -1.3219 dB against full range."""
    black, white = (np.full((3, 9, 9), value, np.uint8) for value in (0, 255))
    assert luma_psnr(black, white, 2) == pytest.approx(1.32190, abs=1e-4)
    spoiled = black.copy()
    spoiled[:, :2] = 255  # in the border, which does not count
    assert luma_psnr(spoiled, black, 2) == np.inf
    green = np.zeros((3, 9, 9), np.uint8)
    green[1] = 255
    expected = -20 * np.log10(128.553 / 255)
    assert luma_psnr(green, black, 0) == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="leaves nothing"):
        luma_psnr(black, white, 5)
