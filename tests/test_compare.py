"""`compare`: the table against numbers from other libraries, records, resuming, wrong calls."""

from __future__ import annotations

import json

import fake_search
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from scipy.ndimage import gaussian_filter
from searched import pixels as read
from searched import psnr, save

import pulse_sr
from pulse_sr.cli import main
from pulse_sr.cli.compare import mean_methods
from pulse_sr.config import SearchConfig
from pulse_sr.jobs.comparing import compare
from pulse_sr.operators.degrading import degrade
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.files import SrModel, save_model

METHODS = ["nearest", "bicubic", "supervised", "supervised-projected", "sample", "mean"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A network of scale 4 that enlarges by nearest neighbours: its picture is known."""
    network = build_network("compact", {"scale": 4, "width": 4, "convolutions": 1})
    torch.nn.init.zeros_(network.body[-1].weight)
    torch.nn.init.zeros_(network.body[-1].bias)
    file = tmp_path_factory.mktemp("model") / "own.safetensors"
    save_model(file, SrModel("own", "compact", network, {"licence": "CC0-1.0"}))
    return file


@pytest.fixture
def pair(tmp_path):
    """Writes a truth of 64 px and what PULSE's bicubic makes of it: names and bytes by seed."""

    def make(name="a", seed=0, size=(64, 64)):
        noise = np.random.default_rng(seed).normal(0, 1, (3, *size))
        truth = np.clip(gaussian_filter(noise, (0, 3, 3)) * 400 + 128, 0, 255).astype(np.uint8)
        for folder in ("truth", "low"):
            (tmp_path / folder).mkdir(exist_ok=True)
        save(tmp_path / "truth" / f"{name}.png", truth)
        save(tmp_path / "low" / f"{name}.png", degrade(truth, "bicubic", 4))
        return tmp_path / "low" / f"{name}.png", tmp_path / "truth" / f"{name}.png"

    return make


@pytest.fixture
def run(fake_api):
    """The command with a prior and a search that take no time."""
    return lambda *words: CliRunner().invoke(main, ["compare", *map(str, words)])


def record(folder):
    return json.loads((folder / "compare.json").read_text())


def test_the_table_holds_what_the_files_do(tmp_path, run, pair, model):
    """PSNR by NumPy on the files, match through `degrade`; the projected network fits the input."""
    low, truth = pair()
    out = tmp_path / "out"
    result = run(low, "--truth", truth, "-o", out, "--model", model, "--samples", 3, "--json", "-q")
    assert result.exit_code == 0, result.output
    found = record(out / "a")
    assert [each["method"] for each in found["methods"]] == METHODS
    seen = {each["method"]: read(out / "a" / each["file"]) for each in found["methods"]}
    small = read(low)
    for each in found["methods"]:
        picture = seen[each["method"]]
        assert each["psnr"] == pytest.approx(psnr(picture, read(truth)), abs=1e-3)
        # `degrade` rounds to 8 bits, the record does not: they differ by that at most.
        error = degrade(picture, "bicubic", 4) / 255.0 - small / 255.0
        unrounded = 10 ** (-each["lr_psnr"] / 20)
        assert abs(np.sqrt(np.mean(error**2)) - unrounded) < 0.5 / 255 / np.sqrt(3) + 1e-3
    nearest = small.repeat(4, axis=1).repeat(4, axis=2)
    assert np.array_equal(seen["nearest"], nearest)
    assert np.array_equal(seen["supervised"], nearest)
    numbers = {each["method"]: each for each in found["methods"]}
    assert numbers["supervised"]["lr_psnr"] < 45 < numbers["supervised-projected"]["lr_psnr"]
    assert numbers["sample"]["lr_psnr"] > 50
    assert numbers["bicubic"]["distance"] < numbers["nearest"]["distance"]
    [image] = json.loads(result.stdout)["images"]
    assert image["methods"] == found["methods"]
    [row] = json.loads((out / "manifest.json").read_text())
    assert row == image


def test_samples_and_mean_are_those_of_run(tmp_path, run, pair, model):
    low, _ = pair()
    run(low, "-o", tmp_path / "out", "--model", model, "--samples", 3)
    words = ["run", str(low), "-o", str(tmp_path / "run"), "--samples", "3"]
    assert CliRunner().invoke(main, words).exit_code == 0
    for own, theirs in (("sample.png", "sample_00.png"), ("mean.png", "mean.png")):
        expected = read(tmp_path / "run" / "a" / theirs)
        assert np.array_equal(read(tmp_path / "out" / "a" / own), expected)


def test_the_picture_shows_every_method_and_the_truth(tmp_path, run, pair, model):
    """Each picture stands in it enlarged by a whole number, in its cell."""
    low, truth = pair()
    run(low, "--truth", truth, "-o", tmp_path / "out", "--model", model, "--samples", 2)
    folder = tmp_path / "out" / "a"
    sheet = read(folder / "compare.png")
    cell, step_x, step_y = 192, 192 + 12, 192 + 56
    names = [f"{name}.png" for name in METHODS]
    for place, file in enumerate([*(folder / name for name in names), truth]):
        row, column = divmod(place, 4)
        top, left = 40 + row * step_y, 18 + column * step_x
        shown = sheet[:, top : top + cell, left : left + cell]
        assert np.array_equal(shown[:, ::3, ::3], read(file)), file
        assert sheet[:, top + cell : top + cell + 20, left : left + cell].min() < 100  # its title
    with Image.open(folder / "compare.png") as image:
        assert "synthetic" in image.info["Comment"]
    with Image.open(folder / "bicubic.png") as image:
        assert "Comment" not in image.info


def test_the_bundled_network_of_the_scale_is_taken(tmp_path, run, pair):
    low, _ = pair()
    eight = fake_search.make_face(tmp_path / "eight.png", size=(8, 8))
    two = fake_search.make_face(tmp_path / "two.png", size=(32, 32))
    out = tmp_path / "out"
    result = run(low, eight, two, "-o", out, "--samples", 1)
    assert result.exit_code == 0, result.output
    names = [record(out / stem)["model"] for stem in ("a", "eight", "two")]
    assert [each and each["name"] for each in names] == ["compact-x4", "compact-face-x8", None]
    methods = [each["method"] for each in record(out / "two")["methods"]]
    assert methods == ["nearest", "bicubic", "sample", "mean"]
    assert "no bundled network enlarges by 2" in record(out / "two")["input"]["notes"][-1]
    assert "mean of 3 inputs" in result.output


def test_padding_does_not_count(tmp_path, run, pair, model):
    """An input that is not square lies in the middle of the prior's grid."""
    low, truth = pair(size=(64, 40))
    result = run(low, "--truth", truth, "-o", tmp_path / "out", "--model", model, "--samples", 1)
    assert result.exit_code == 0, result.output
    for each in record(tmp_path / "out" / "a")["methods"]:
        picture = read(tmp_path / "out" / "a" / each["file"])
        assert picture.shape == (3, 64, 64)
        assert each["psnr"] == pytest.approx(psnr(picture[:, :, 12:52], read(truth)), abs=1e-3)


def test_without_projection_there_is_none(tmp_path, run, pair, model):
    low, _ = pair()
    run(low, "-o", tmp_path / "out", "--model", model, "--samples", 1, "--project", "off")
    methods = [each["method"] for each in record(tmp_path / "out" / "a")["methods"]]
    assert "supervised-projected" not in methods


def test_what_is_complete_is_skipped(tmp_path, run, pair, model):
    """Other settings, another truth, a lost picture or a damaged record are work again."""
    (low, truth), (other, _) = pair("a"), pair("b", 1)
    out = tmp_path / "out"
    words = (low, other, "-o", out, "--model", model, "--samples", 2)
    assert "2 compared, 0 complete" in run(*words).stderr
    before = {file: file.read_bytes() for file in out.glob("*/*")}
    (out / "manifest.json").unlink()  # a killed run does not come to write it
    assert "0 compared, 2 complete" in run(*words).stderr
    assert {file: file.read_bytes() for file in out.glob("*/*")} == before
    assert len(json.loads((out / "manifest.json").read_text())) == 2
    (out / "a" / "mean.png").unlink()
    (out / "b" / "compare.json").write_text('{"methods": 1}')
    assert "2 compared, 0 complete" in run(*words).stderr
    assert (out / "a" / "mean.png").read_bytes() == before[out / "a" / "mean.png"]
    assert "2 compared, 0 complete" in run(*words[:-1], 3).stderr
    assert "2 compared" in run(*words[:-1], 3, "--truth", truth.parent).stderr
    planned = run(*words[:-1], 3, "--truth", truth.parent, "--dry-run", "--json").stdout
    images = json.loads(planned)["images"]
    assert [(each["action"], each["truth"]) for each in images] == [
        ("skip", str(truth.parent / f"{name}.png")) for name in "ab"
    ]
    assert "2 compared" in run(*words[:-1], 3, "--overwrite").stderr


def test_one_bad_input_does_not_stop_the_others(tmp_path, run, pair, model):
    low, truth = pair("good")
    (low.parent / "bad.png").write_bytes(b"no picture")
    pair("small", 2)
    save(truth.parent / "small.png", np.zeros((3, 32, 32), np.uint8))
    save(truth.parent / "bad.png", np.zeros((3, 64, 64), np.uint8))
    out = tmp_path / "out"
    result = run(low.parent, "--truth", truth.parent, "-o", out, "--model", model, "--samples", 1)
    assert result.exit_code == 1
    assert "bad.png is not an image" in result.stderr
    assert "small.png has 32x32 px, expected 64x64 px" in result.stderr
    rows = json.loads((out / "manifest.json").read_text())
    assert [row["status"] for row in rows] == ["failed", "ok", "failed"]
    assert sorted(file.name for file in out.iterdir()) == ["good", "manifest.json"]


def test_files_of_others_are_left_alone(tmp_path, run, pair, model):
    low, _ = pair()
    mine = tmp_path / "out" / "a" / "mean.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    result = run(low, "-o", tmp_path / "out", "--model", model, "--samples", 1)
    assert result.exit_code == 1
    assert "was not made by pulse-sr" in result.stderr
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["{low}", "--truth", "{tmp}/none.png"], 2, "--truth expects a path that exists"),
        (["{low}", "{other}", "--truth", "{truth}"], 2, "is one picture, there are 2 inputs"),
        (["{low}", "--truth", "{tmp}/empty"], 2, "has no images"),
        (["{other}", "--truth", "{tmp}/one"], 2, "has no picture named b"),
        (["{low}", "--truth", "{tmp}/truths"], 2, "two pictures named a"),
        (["{low}", "--model", "compact-face-x8"], 1, "enlarges by 8"),
        (["{low}", "--model", "compact-x5"], 2, "no network 'compact-x5'"),
        (["{low}", "--scale", "3"], 2, "does not suit prior"),
        ([], 2, "INPUT"),
    ],
)
def test_a_wrong_call_is_one_line(tmp_path, run, pair, words, code, expected):
    (low, truth), (other, _) = pair("a"), pair("b")
    (tmp_path / "empty").mkdir()
    for file in ("one/a.png", "truths/a.png", "truths/a.bmp"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        Image.open(truth).save(tmp_path / file)
    names = {"low": low, "other": other, "truth": truth, "tmp": tmp_path}
    result = run(*(word.format(**names) for word in words), "-o", tmp_path / "out")
    assert result.exit_code == code
    assert expected in result.stderr
    assert code == 1 or not (tmp_path / "out").exists()


def test_results_do_not_lie_among_inputs(run, pair):
    low, _ = pair()
    result = run(low, "-o", low.parent)
    assert result.exit_code == 2
    assert "lies where the results go" in result.stderr


def test_means_are_over_the_inputs_that_have_the_number():
    methods = [
        {"method": "sample", "title": "x", "lr_psnr": 40.0, "psnr": 20.0, "ssim": None},
        {"method": "sample", "title": "x", "lr_psnr": 60.0},
    ]
    found = mean_methods([{"methods": [each]} for each in methods])
    expected = {"method": "sample", "title": "x", "inputs": 2, "lr_psnr": 50.0, "psnr": 20.0}
    assert found == [expected]


def test_a_real_search_from_python(tmp_path, model):
    """With a prior of random weights, nothing stands in for anything."""
    from toy_priors import LinearPrior

    face = fake_search.make_face(tmp_path / "face.png", size=(8, 8))
    config = SearchConfig(samples=2, steps=3, batch=2, operator="area")
    assert pulse_sr.compare is compare
    prior = LinearPrior(resolution=32)
    [row] = compare([face], tmp_path / "out", config, prior, model)
    assert row["status"] == "ok", row
    assert {each["method"]: each for each in row["methods"]}["sample"]["lr_psnr"] > 45
