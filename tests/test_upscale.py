"""`upscale`: what is kept of a picture, records, resuming, errors of the command."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image, ImageCms

import pulse_sr
from pulse_sr.cli import main
from pulse_sr.images.original import read_original
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.files import SrModel, read_model, save_model

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network that only enlarges, by nearest neighbours: what comes out is known beforehand."""
    network = build_network("compact", {"scale": 2, "width": 4, "convolutions": 1})
    torch.nn.init.zeros_(network.body[-1].weight)
    torch.nn.init.zeros_(network.body[-1].bias)
    file = tmp_path_factory.mktemp("model") / "nearest.safetensors"
    save_model(file, SrModel("nearest", "compact", network, {"licence": "CC0-1.0"}))
    return file


def doubled(pixels):
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def values(height=20, width=30, channels=3, dtype=np.uint8):
    rng = np.random.default_rng(0)
    shape = (height, width, channels) if channels > 1 else (height, width)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def run(*words):
    return CliRunner().invoke(main, ["upscale", *map(str, words)])


def test_eight_bits_of_any_mode_stay(tmp_path, model):
    pictures = {
        "rgb": Image.fromarray(values()),
        "grey": Image.fromarray(values(channels=1)),
        "rgba": Image.fromarray(values(channels=4), "RGBA"),
        "la": Image.fromarray(values(channels=4), "RGBA").convert("LA"),
        "palette": Image.fromarray(values()).quantize(16),
    }
    for name, image in pictures.items():
        image.save(tmp_path / f"{name}.png")
    rows = list(pulse_sr.upscale([tmp_path], tmp_path / "out", model, tile=32, device="cpu"))
    assert [row["status"] for row in rows] == ["ok"] * 5
    for name, image in pictures.items():
        expected = image.convert("RGB") if name == "palette" else image
        with Image.open(tmp_path / "out" / f"{name}.png") as found:
            assert found.mode == expected.mode
            assert np.array_equal(np.asarray(found), doubled(np.asarray(expected)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_stay(tmp_path, model, channels):
    pixels = values(channels=channels, dtype=np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), pixels)
    [row] = pulse_sr.upscale([tmp_path / "deep.png"], tmp_path / "out", model)
    assert row["notes"] == []
    found = cv2.imread(str(tmp_path / "out" / "deep.png"), cv2.IMREAD_UNCHANGED)
    assert found.dtype == np.uint16
    assert np.array_equal(found, doubled(pixels))
    record = json.loads((tmp_path / "out" / "deep.json").read_text())
    assert (record["output"]["bits"], record["output"]["channels"]) == (16, channels)


def test_the_colour_profile_stays_and_a_photo_stands_upright(tmp_path, model):
    pixels = values()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pixels).save(tmp_path / "p.png", icc_profile=SRGB, exif=exif)
    assert read_original(tmp_path / "p.png").about.profile == SRGB
    [row] = pulse_sr.upscale([tmp_path / "p.png"], tmp_path / "out", model)
    assert row["notes"] == ["rotated by EXIF"]
    with Image.open(tmp_path / "out" / "p.png") as found:
        assert found.info["icc_profile"] == SRGB
        assert np.array_equal(np.asarray(found), doubled(np.rot90(pixels, -1)))


def test_colours_of_another_space_become_rgb(tmp_path, model):
    Image.fromarray(values()).convert("CMYK").save(tmp_path / "c.tif", icc_profile=SRGB)
    [row] = pulse_sr.upscale([tmp_path / "c.tif"], tmp_path / "out", model)
    assert row["notes"] == ["CMYK: converted to RGB"]
    with Image.open(tmp_path / "out" / "c.png") as found:
        assert found.mode == "RGB"
        assert "icc_profile" not in found.info


def test_the_record_says_what_was_done(tmp_path, model):
    Image.fromarray(values()).save(tmp_path / "a.png")
    result = run(tmp_path / "a.png", "-o", tmp_path / "out", "--model", model, "--json")
    assert result.exit_code == 0, result.output
    row = json.loads(result.stdout)["images"][0]
    assert (row["stem"], row["status"], row["width"], row["height"]) == ("a", "ok", 60, 40)
    record = json.loads((tmp_path / "out" / "a.json").read_text())
    assert record["input"]["sha256"] == read_original(tmp_path / "a.png").sha256
    assert record["model"] == {"name": "nearest", "scale": 2, "sha256": read_model(model).sha256}
    assert record["fingerprint"] == row["fingerprint"]
    [listed] = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert listed == row
    with Image.open(tmp_path / "out" / "a.png") as found:
        assert json.loads(found.info["pulse-sr:upscale"])["model"] == record["model"]


def test_a_network_without_a_licence_says_so(tmp_path, model):
    Image.fromarray(values()).save(tmp_path / "a.png")
    own = run(tmp_path / "a.png", "-o", tmp_path / "own", "--model", model)
    assert "licence" not in own.stderr
    bundled = run(tmp_path / "a.png", "-o", tmp_path / "out")
    assert "compact-x4: no licence of the weights is stated. BSDS500" in bundled.stderr
    assert "unstated" in run("--list").stdout


def test_what_is_complete_is_skipped(tmp_path, model):
    """A changed input, a missing record or another network is work again; equal bytes come out."""
    for name in "ab":
        Image.fromarray(values(width=30 + ord(name))).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    words = (tmp_path / "a.png", tmp_path / "b.png", "-o", out, "--model", model)
    assert run(*words).exit_code == 0
    before = (out / "a.png").read_bytes()
    assert "2 complete before" in run(*words).stderr
    (out / "a.json").unlink()
    Image.fromarray(values(40)).save(tmp_path / "b.png")
    assert "2 enlarged, 0 complete" in run(*words).stderr
    assert (out / "a.png").read_bytes() == before
    other = tmp_path / "other.safetensors"
    network = build_network("compact", {"scale": 3, "width": 4, "convolutions": 1})
    save_model(other, SrModel("other", "compact", network))
    assert "2 enlarged, 0 complete" in run(*words[:-1], other).stderr
    planned = json.loads(run(*words, "--dry-run", "--json").stdout)
    assert [image["action"] for image in planned["images"]] == ["upscale"] * 2
    shown = run(*words, "--dry-run").stdout.splitlines()
    assert shown[0].split() == ["model", planned["settings"]["model"]["name"]]
    assert "2 enlarged" in run(*words[:-1], other, "--overwrite").stderr


def test_a_killed_run_goes_on(tmp_path, model):
    """Killed before the manifest: the record counts. Before the record: the picture is ours."""
    for name in "ab":
        Image.fromarray(values(width=30 + ord(name))).save(tmp_path / f"{name}.png")
    out = tmp_path / "out"
    words = (tmp_path / "a.png", tmp_path / "b.png", "-o", out, "--model", model)
    assert run(*words).exit_code == 0
    manifest = (out / "manifest.json").read_bytes()
    (out / "manifest.json").unlink()
    (out / "b.json").unlink()
    planned = json.loads(run(*words, "--dry-run", "--json").stdout)["images"]
    assert [image["action"] for image in planned] == ["skip", "upscale"]
    assert "1 enlarged, 1 complete before" in run(*words).stderr
    rows = json.loads((out / "manifest.json").read_text())
    kept = [{k: v for k, v in row.items() if k != "seconds"} for row in rows]
    assert kept == [
        {k: v for k, v in row.items() if k != "seconds"} for row in json.loads(manifest)
    ]
    (out / "manifest.json").unlink()  # another input of the same name is not taken for it
    (tmp_path / "other").mkdir()
    Image.fromarray(values(50)).save(tmp_path / "other" / "a.png")
    words = (tmp_path / "other" / "a.png", "-o", out, "--model", model)
    before = (out / "a.png").read_bytes()
    result = run(*words)
    assert result.exit_code == 1
    assert "by a run that was killed" in result.stderr
    assert run(*words).exit_code == 0
    assert (out / "a.png").read_bytes() == before
    assert (out / "a-2.png").is_file()


def test_one_bad_input_does_not_stop_the_others(tmp_path, model):
    Image.fromarray(values()).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no picture")
    result = run(tmp_path, "-o", tmp_path / "out", "--model", model)
    assert result.exit_code == 1
    assert "bad.png is not an image" in result.stderr
    assert "hint:" in result.stderr
    rows = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [(row["stem"], row["status"]) for row in rows] == [("bad", "failed"), ("good", "ok")]


def test_one_path_is_one_input_not_its_letters(tmp_path, model):
    Image.fromarray(values()).save(tmp_path / "a.png")
    for given in (str(tmp_path / "a.png"), tmp_path / "a.png"):
        (row,) = pulse_sr.upscale(given, tmp_path / "out", model)
        assert row["stem"] == "a"


def test_a_damaged_network_is_not_called_a_prior(tmp_path, model):
    Image.fromarray(values()).save(tmp_path / "a.png")
    half = tmp_path / "half.safetensors"
    half.write_bytes(model.read_bytes()[:-8])
    (tmp_path / "empty").mkdir()
    for named, code, said in ((half, 3, "not a readable network"), ("empty", 2, "no network at")):
        words = [tmp_path / "a.png", "-o", tmp_path / "out", "--model", tmp_path / named]
        result = run(*words)
        assert result.exit_code == code
        assert said in result.stderr
        assert "prior" not in result.stderr.replace(str(tmp_path), "")


def test_files_of_others_are_left_alone(tmp_path, model):
    Image.fromarray(values()).save(tmp_path / "a.png")
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.png").write_bytes(b"mine")
    result = run(tmp_path / "a.png", "-o", out, "--model", model)
    assert result.exit_code == 1
    assert "was not made by pulse-sr" in result.stderr
    assert (out / "a.png").read_bytes() == b"mine"
    result = run(tmp_path / "a.png", "-o", tmp_path, "--model", model)
    assert result.exit_code == 2
    assert "lies where the results go" in result.stderr


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["nowhere.png"], 2, "nowhere.png does not exist"),
        (["{photo}", "--model", "compact-x5"], 2, "no network 'compact-x5'"),
        (["{photo}", "--model", "{photo}"], 2, "is no file of a network"),
        (["{photo}", "--model", "{model}", "--tile", "8"], 2, "tile"),
        (["{photo}", "--model", "{model}", "--device", "cuda:99"], 3, "CUDA devices"),
        ([], 2, "INPUT"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, model, words, code, expected):
    Image.fromarray(values()).save(tmp_path / "photo.png")
    words = [w.format(photo=tmp_path / "photo.png", model=model) for w in words]
    result = run(*words, "-o", tmp_path / "out")
    assert result.exit_code == code
    assert expected in result.stderr
    assert not (tmp_path / "out").exists()
