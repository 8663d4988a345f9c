"""Making low-res pictures, finding out how one was made, and the two commands that do it."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

import pulse_sr
from pulse_sr.cli import main
from pulse_sr.errors import InputError
from pulse_sr.images.read import read_image
from pulse_sr.operators.building import make_operator
from pulse_sr.operators.degrading import degrade, degrade_picture
from pulse_sr.operators.ranking import CANDIDATE_SPECS, rank_operators

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A real photograph, uint8 [3, 64, 64]."""
    with np.load(DATA / "imresize.npz", allow_pickle=False) as file:
        return np.rint(file["x_photo"][:, :64].transpose(2, 0, 1) * 255).astype(np.uint8)


@pytest.fixture
def hr(photo, tmp_path, monkeypatch):
    """The photograph as `hr.png` in the working directory."""
    monkeypatch.chdir(tmp_path)
    picture(photo).save("hr.png")
    return Path("hr.png")


def picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray(pixels.transpose(1, 2, 0).copy())


def call(*words):
    return CliRunner().invoke(main, [str(word) for word in words])


# --- degrade ----------------------------------------------------------------------------------


def test_degrade_clips_and_rounds():
    pixels = np.zeros((3, 16, 16), np.uint8)
    pixels[:, :, 8:] = 255  # an edge: bicubic overshoots on both sides
    raw = make_operator("bicubic", 4, 16)(torch.from_numpy(pixels.astype(np.float64))).numpy()
    assert raw.min() < -0.5
    assert raw.max() > 255.5
    made = degrade(pixels, "bicubic", 4)
    assert made.dtype == np.uint8
    np.testing.assert_array_equal(made, np.clip(np.rint(raw), 0, 255))
    with pytest.raises(InputError, match=r"16x16.*3"):
        degrade(pixels, "bicubic", 3)


def test_noise_has_its_level_is_seeded_and_left_out_without_a_generator(photo):
    grey = np.full((3, 64, 64), 128, np.uint8)
    noisy = degrade(grey, "area|noise:0.05", 2, np.random.default_rng(0))
    # 3072 numbers: the standard error of their deviation is 1.3 %.
    assert noisy.std() / 255 == pytest.approx(0.05, rel=0.05)
    assert (noisy == degrade(grey, "area|noise:0.05", 2, np.random.default_rng(0))).all()
    assert (noisy != degrade(grey, "area|noise:0.05", 2, np.random.default_rng(1))).any()
    assert (degrade(photo, "area|noise:0.05", 2) == degrade(photo, "area", 2)).all()


def test_a_last_jpeg_gives_the_file_that_decodes_to_the_picture(photo):
    made = degrade_picture(photo, "pillow:box|jpeg:40", 4)
    low = degrade(photo, "pillow:box", 4)
    buffer = io.BytesIO()
    picture(low).save(buffer, "JPEG", quality=40, comment=f"pulse-sr {pulse_sr.__version__}")
    assert made.jpeg == buffer.getvalue()
    decoded = np.asarray(Image.open(buffer)).transpose(2, 0, 1)
    np.testing.assert_array_equal(made.pixels, decoded)
    assert degrade_picture(photo, "jpeg:40|area", 4).jpeg is None


def test_degraded_pictures_match_through_their_operator(photo, tmp_path):
    """What `degrade` writes is what A says of the truth, rounded: at least 55 dB."""
    Image.fromarray(((np.indices((16, 16)).sum(0) % 3 > 0) * 255).astype(np.uint8)).save(
        tmp_path / "m.png"
    )
    x = torch.from_numpy(photo / 255.0)
    for spec in (
        "bicubic",
        "gaussian:1.5|pillow|gray",
        f"area|mask:{tmp_path / 'm.png'}",
        "matlab|jpeg:60",
        "jpeg:30|area",
        "gray|area|jpeg:80",
    ):
        made = torch.from_numpy(degrade(photo, spec, 4) / 255.0)
        assert made.shape == (3, 16, 16)
        assert make_operator(spec, 16, 64).lr_psnr(x, made) > 55, spec


def test_unknown_pixels_are_black(photo, tmp_path):
    known = np.zeros((64, 64), np.uint8)
    known[10:30, 5:60] = 255
    Image.fromarray(known).save(tmp_path / "m.png")
    made = degrade(photo, f"mask:{tmp_path / 'm.png'}", 1)
    np.testing.assert_array_equal(made, photo * (known > 0))


def test_degrade_command_writes_jpeg_files_and_seeded_noise(hr, photo):
    assert (
        call("degrade", hr, "-o", "lr", "--operator", "area|jpeg:35", "--scale", 4).exit_code == 0
    )
    assert Path("lr/hr.jpg").read_bytes() == degrade_picture(photo, "area|jpeg:35", 4).jpeg
    words = ["degrade", hr, "--operator", "area|noise:0.1", "--scale", 4]
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert call(*words, "-o", out, "--seed", seed).exit_code == 0
    first, again, other = (read_image(f"{out}/hr.png").pixels for out in "abc")
    assert (first == again).all()
    assert (first != other).any()
    assert (first != degrade(photo, "area", 4)).any()
    assert call(*words, "-o", "d", "--seed", -1).exit_code == 2


def test_degrade_command_knows_the_scale_of_operators_that_keep_the_size(hr, photo):
    result = call("degrade", hr, "-o", "lr", "--operator", "gray", "--json")
    assert json.loads(result.stdout)["scale"] == 1
    np.testing.assert_array_equal(read_image("lr/hr.png").pixels, degrade(photo, "gray", 1))
    plan = call("degrade", hr, "-o", "lr", "--dry-run", "--json")
    assert json.loads(plan.stdout)["settings"]["scale"] == 8


# --- rank -------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["bicubic", "matlab", "pillow", "area", "gaussian:2.4"])
def test_rank_finds_the_operator(photo, spec):
    ranking = rank_operators(photo, degrade(photo, spec, 4))
    assert ranking[0] == (spec, np.inf)
    decibels = [db for _, db in ranking]
    assert decibels == sorted(decibels, reverse=True)
    same = {spec, "pillow:box"} if spec == "area" else {spec}  # equal for integer factors
    assert {name for name, db in ranking if db > 60} == same
    assert set(CANDIDATE_SPECS) <= {name for name, _ in ranking}


@pytest.mark.parametrize("sigma", [0.9, 1.37, 2.05, 2.9])
def test_rank_finds_the_width_of_a_gaussian(photo, sigma):
    spec, db = rank_operators(photo, degrade(photo, f"gaussian:{sigma}", 4))[0]
    assert float(spec.removeprefix("gaussian:")) == pytest.approx(sigma, abs=0.021)
    assert db > 60


def test_rank_finds_grey_and_a_known_file(photo):
    low = degrade(photo, "matlab|gray|jpeg:70", 4)
    spec, db = rank_operators(photo, low, ["jpeg:70"])[0]
    assert (spec, db) == ("matlab|gray|jpeg:70", np.inf)


def test_rank_finds_pillow_itself_and_refuses_swapped_pictures(photo):
    small = picture(photo).resize((20, 20), Image.Resampling.LANCZOS)
    small = np.asarray(small).transpose(2, 0, 1)
    spec, db = rank_operators(photo, small)[0]
    assert spec == "pillow:lanczos"
    assert db > 50
    with pytest.raises(InputError, match="20x20"):
        rank_operators(small, photo)


def test_check_op_reads_the_quality_of_a_jpeg(hr):
    call("degrade", hr, "-o", "lr", "--operator", "pillow|jpeg:55", "--scale", 4)
    document = json.loads(call("check-op", hr, "lr/hr.jpg", "--json").stdout)
    assert document["best"] == "pillow|jpeg:55"
    assert document["operators"][0]["db"] == 200.0  # identical


@pytest.mark.parametrize(
    "words",
    [
        ["degrade", "a.png", "--scale", "2"],
        ["train-prior", "."],
        ["align", "a.png"],
        ["run", "a.png"],
    ],
)
def test_a_place_that_can_not_be_written_is_exit_3_in_every_command(tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save("a.png")
    Path("file").write_text("no folder")
    result = CliRunner().invoke(main, [*words, "-o", "file/out"])
    assert result.exit_code == 3
    assert "file/out can not be written: file is a file, not a folder" in result.stderr
