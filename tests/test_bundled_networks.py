"""The supervised networks of the package: what they are, and that they do better than bicubic.

The picture is drawn here: edges, letters' strokes and a gradient, none of it seen in training.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageDraw

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.metrics.psnr import luma_psnr
from pulse_sr.models import registry
from pulse_sr.models.registry import bundled, list_networks, load_network
from pulse_sr.operators.degrading import degrade
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.enlarging import bicubic, by_network
from pulse_sr.sr.files import SrModel, save_model
from pulse_sr.training.sr.losses import build_loss

CPU = torch.device("cpu")
SCRIPTS = Path(__file__).parents[1] / "scripts"


def script(name):
    spec = importlib.util.spec_from_file_location(Path(name).stem, SCRIPTS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def drawing(side=128):
    image = Image.new("RGB", (4 * side, 4 * side), (200, 180, 160))
    draw = ImageDraw.Draw(image)
    for i in range(12):
        draw.line((40 * i, 0, 512 - 20 * i, 512), (20 * i, 40, 90), 6 + i)
    draw.ellipse((120, 150, 400, 420), (230, 220, 90), (30, 30, 30), 9)
    small = image.resize((side, side), Image.Resampling.BOX)
    return np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))


def test_the_default_enlarges_photos_by_four():
    assert next(iter(bundled("sr"))) == "compact-x4"
    model = load_network(None, CPU)
    assert (model.name, model.scale) == ("compact-x4", 4)


@pytest.mark.parametrize("name", bundled("sr"))
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
    assert [model.name for model in list_networks()] == list(bundled("sr"))
    with pytest.raises(UsageError, match="no network 'compact-x5'"):
        load_network("compact-x5", CPU)
    folder = tmp_path / "bundled"
    shutil.copytree(registry.FOLDERS["sr"], folder)
    monkeypatch.setitem(registry.FOLDERS, "sr", folder)
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


def test_scores_are_means_over_photos(tmp_path, monkeypatch, capsys):
    """By the script: every photo cut, made small, enlarged and compared for itself."""
    photos = [drawing(), drawing()[:, :126, :67][:, :, ::-1].copy()]
    for i, photo in enumerate(photos):
        Image.fromarray(photo.transpose(1, 2, 0)).save(tmp_path / f"{i}.png")
    model = str(registry.FOLDERS["sr"] / "compact-x4.safetensors")
    monkeypatch.setattr("sys.argv", ["sr_scores", str(tmp_path), "--model", model, "--json"])
    script("bench/sr_scores.py").main()
    plain, network = json.loads(capsys.readouterr().out)
    expected = []
    for photo in photos:
        truth = photo[:, : photo.shape[1] // 4 * 4, : photo.shape[2] // 4 * 4]
        expected.append(luma_psnr(bicubic(4)(degrade(truth, "matlab", 4)), truth, 4))
    assert plain["y"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert (plain["method"], plain["photos"]) == ("bicubic", 2)
    assert network["method"] == "compact-x4"
    assert network["y"] > plain["y"] + 0.5


def test_a_run_is_bundled(tmp_path, monkeypatch):
    """In half precision, beside what is there, with its card and its training."""
    module = script("bundle_network.py")
    monkeypatch.setitem(registry.FOLDERS, "sr", tmp_path)
    network = build_network("compact", {"scale": 2, "width": 4, "convolutions": 1})
    save_model(
        tmp_path / "model.safetensors", SrModel("run", "compact", network, {"training": {"a": 1}})
    )
    (tmp_path / "card.json").write_text('{"licence": "CC0-1.0"}')
    for name in ("first", "second"):
        words = [str(tmp_path), "--name", name, "--card", str(tmp_path / "card.json")]
        assert CliRunner().invoke(module.main, words).exit_code == 0
    assert list(bundled("sr")) == ["first", "second"]
    model = load_network("second", CPU)
    assert model.card == {"licence": "CC0-1.0", "training": {"a": 1}}


def test_the_digit_classifier_learns(tmp_path):
    """Ten drawn patterns instead of digits, in the files' format; `train-sr` finds the weights."""
    rng = np.random.default_rng(0)
    patterns = rng.integers(0, 256, (10, 28, 28))
    labels = rng.integers(0, 10, 1500)
    images = (patterns[labels] * 0.8 + rng.integers(0, 50, (1500, 28, 28))).astype(np.uint8)
    files = {"images": (images, (1500, 28, 28)), "labels": (labels.astype(np.uint8), (1500,))}
    for name, (array, shape) in files.items():
        head = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(head + array.tobytes()))
    words = [str(tmp_path / "images.gz"), str(tmp_path / "labels.gz"), "-o", str(tmp_path / "w")]
    result = CliRunner().invoke(script("train_digit_classifier.py").main, words)
    assert result.exit_code == 0, result.output
    assert "100.00% of 150" in result.output.splitlines()[-1]
    loss = build_loss("digits", tmp_path / "w", CPU)
    right = torch.from_numpy(images[:4] / 255.0).float()[:, None].expand(-1, 3, -1, -1)
    assert float(loss(right, right)) < 0.1
