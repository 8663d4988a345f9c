"""`pulse-sr train-sr`: what it writes, what it refuses."""

from __future__ import annotations

import json
import math

import pytest
import tiny_sr_training
from click.testing import CliRunner
from packed_images import encoded, pack
from PIL import Image

from pulse_sr.cli import main
from pulse_sr.sr.files import read_model
from pulse_sr.training.sr.step import SrStep

RECIPE = """
title = "tiny"
source = "tests"
patch = 16
batch = 4
[network]
architecture = "compact"
scale = 2
width = 8
convolutions = 1
[[phases]]
kimg = 0.08
lr = 1e-3
losses = { l1 = 1 }
"""


@pytest.fixture
def folder(tmp_path):
    tiny_sr_training.write_photos(tmp_path / "photos")
    (tmp_path / "own.toml").write_text(RECIPE, "utf-8-sig")  # as some editors do
    return tmp_path


def run(*words):
    return CliRunner().invoke(main, ["train-sr", *map(str, words)])


def test_a_run_writes_network_pictures_scores_and_card(folder):
    out = folder / "run"
    words = [folder / "photos", "-o", out, "--config", folder / "own.toml", "--device", "cpu"]
    words += ["--snapshot", 0.04, "--held-back", folder / "photos", "--licence", "CC0-1.0"]
    result = run(*words, "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["images"] == 80
    assert read_model(out).card["licence"] == "CC0-1.0"
    with Image.open(out / "enlarged-000000.png") as grid:
        assert grid.size == (4 * 24, 6 * 24)
    scores = [json.loads(line) for line in (out / "scores.jsonl").read_text().splitlines()]
    assert [record["images"] for record in scores] == [40, 80]
    assert read_model(out / "best.safetensors").scale == 2
    assert "PSNR Y" in (out / "README.md").read_text()
    assert (out / "curves.png").is_file()
    log = (out / "log.jsonl").read_text()
    assert run(*words).exit_code == 0  # nothing is left to do
    assert (out / "log.jsonl").read_text() == log
    left = {each.name: each.read_bytes() for each in out.glob("*.[pj][ns][go]*")}
    (out / "enlarged-000000.png").unlink()  # as if a kill had come between the state and the look
    (out / "scores.jsonl").write_text(json.dumps(scores[0]) + "\n")
    card = (out / "README.md").read_text()
    (out / "README.md").write_text(card.replace("80 patches in", "40 patches in"))
    assert run(*words).exit_code == 0
    assert {each.name: each.read_bytes() for each in out.glob("*.[pj][ns][go]*")} == left
    assert (out / "README.md").read_text() == card
    longer = run(*words, "--kimg", 0.16)
    assert longer.exit_code == 2
    assert "kimg was 0.08, is 0.16" in longer.stderr


def test_a_run_inside_its_data_does_not_learn_from_itself(folder):
    words = [folder / "photos", "-o", folder / "photos" / "run", "--config", folder / "own.toml"]
    assert run(*words, "--snapshot", 0.04, "--device", "cpu").exit_code == 0
    assert (folder / "photos" / "run" / "enlarged-000000.png").is_file()
    again = run(*words, "--snapshot", 0.04, "--device", "cpu")
    assert again.exit_code == 0, again.output


@pytest.mark.parametrize("kind", ["tar", "zip", "nested"])
def test_held_back_photos_are_read_as_the_data_are(folder, kind):
    """An archive or a nested folder scores as the folder of the same photos does."""
    photos = {each.name: each.read_bytes() for each in sorted((folder / "photos").iterdir())}
    if kind == "nested":
        held_back = folder / "more"
        for number, (name, data) in enumerate(photos.items()):
            (held_back / str(number)).mkdir(parents=True)
            (held_back / str(number) / name).write_bytes(data)
    else:
        held_back = pack(folder / f"more.{kind}", photos)
    scores = []
    for out, given in (("a", folder / "photos"), ("b", held_back)):
        words = ["--config", folder / "own.toml", "--device", "cpu", "--held-back", given]
        result = run(folder / "photos", "-o", folder / out, *words)
        assert result.exit_code == 0, result.output
        scores.append(json.loads((folder / out / "scores.jsonl").read_text())["scores"])
    assert scores[0] == scores[1]
    assert "6 photos" in (folder / "b" / "README.md").read_text()


def test_no_photos_held_back(folder):
    (folder / "none").mkdir()
    words = ["--config", folder / "own.toml", "--device", "cpu", "--held-back", folder / "none"]
    result = run(folder / "photos", "-o", folder / "run", *words)
    assert result.exit_code == 2, result.output
    assert "none holds no photo to score" in result.stderr
    assert not (folder / "run").exists()


def test_a_dry_run_shows_the_recipe_and_writes_nothing(folder):
    result = run(folder / "photos", "-o", folder / "run", "--config", "srgan-mse", "--dry-run")
    settings = json.loads(result.stdout)["settings"]
    assert settings["network"]["architecture"] == "srresnet"
    assert settings["phases"]["1"]["adversarial"] == "logistic"
    assert not (folder / "run").exists()


def test_recipes_are_listed_with_their_sources():
    listed = json.loads(run("--list", "--json").stdout)
    assert {"name", "title", "source"} == set(listed[0])
    assert "Ledig" in run("--list").stdout


def test_a_zip_of_samples_gives_the_chosen_field(folder):
    files = {f"{i}.image.png": encoded(i, size=(40, 40)) for i in range(6)}
    files |= {f"{i}.mask.png": b"broken" for i in range(6)}
    words = [pack(folder / "photos.zip", files), "-o", folder / "run", "--device", "cpu"]
    words += ["--config", folder / "own.toml", "--member", "image.png"]
    assert json.loads(run(*words, "--dry-run").stdout)["settings"]["member"] == "image.png"
    result = run(*words, "--kimg", 0.008)
    assert result.exit_code == 0, result.output
    assert result.stderr.count("6 photos (left out: 6 .mask.png), batch 4 of 16 px") == 1
    assert read_model(folder / "run").card["data"] == "6 photos of photos"


def test_a_run_that_diverges_ends_with_1_and_keeps_what_was_good(folder, monkeypatch):
    real = SrStep.run

    def broken(self, low, high, shown):
        found = real(self, low, high, shown)
        return found if shown < 20 else found | {"l1": found["l1"] * math.nan}

    monkeypatch.setattr(SrStep, "run", broken)
    words = [folder / "photos", "-o", folder / "run", "--config", folder / "own.toml"]
    result = run(*words, "--device", "cpu", "--checkpoint-every", "0s")
    assert result.exit_code == 1, result.output
    error, hint = result.stderr.splitlines()[-2:]
    assert "the training diverged at 0.06 kimg: l1 not finite in 10 of the last 15 steps" in error
    assert error.endswith("run keeps the state at 0.02 kimg")
    assert hint.startswith("hint: try a recipe with a smaller lr")
    assert read_model(folder / "run").card["training"]["images"] == 20


@pytest.mark.parametrize(
    ("words", "code", "expected"),
    [
        (["{photos}", "-o", "{out}"], 2, "--config"),
        (["{photos}", "--config", "srresnet"], 2, "--out"),
        (["-o", "{out}", "--config", "srresnet"], 2, "DATA"),
        (["{photos}", "-o", "{out}", "--config", "srresnett"], 2, "no recipe 'srresnett'"),
        (["{photos}/no", "-o", "{out}", "--config", "{own}"], 2, "no"),
        (["{photos}", "-o", "{out}", "--config", "{own}", "--kimg", "0"], 2, "kimg"),
        (["{photos}", "-o", "{out}", "--config", "{own}", "--kimg", "nan"], 2, "--kimg expects"),
        (["{photos}", "-o", "{out}", "--config", "{own}", "--batch", "1e9"], 2, "--batch expects"),
        (["{photos}", "-o", "{out}", "--config", "{own}", "--member", "x"], 2, "png (6)"),
        (
            ["{photos}", "-o", "{out}", "--config", "{own}", "--max-memory", "0.01MB"],
            2,
            "too little",
        ),
        (["{photos}", "-o", "{out}", "--config", "compact-x4"], 1, "smaller than a patch"),
        (["{photos}", "-o", "{out}", "--config", "{own}", "--device", "cuda:99"], 3, "CUDA"),
        (
            ["{photos}", "-o", "{out}", "--config", "{vgg}", "--weights-dir", "{photos}"],
            3,
            "VGG-19",
        ),
    ],
)
def test_a_wrong_call_is_one_line(folder, words, code, expected):
    (folder / "vgg.toml").write_text(RECIPE.replace("l1 = 1", "vgg54 = 1"))
    places = {"photos": folder / "photos", "out": folder / "run"}
    places |= {"own": folder / "own.toml", "vgg": folder / "vgg.toml"}
    result = run(*(word.format(**places) for word in words))
    assert result.exit_code == code, result.output
    assert expected in result.stderr


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"compact"', '"swinir"', "network is 'swinir'"),
        ("width = 8", "widht = 8", "unexpected keyword argument 'widht'"),
        ("width = 8", "width = 0", "width expects a whole number from 1 on, got 0"),
        ("width = 8", 'width = "8"', "'width': '8'"),
        ("width = 8", "channels = 1", "network: patches of 16 px do not go through"),
        ("scale = 2", 'scale = "2"', "network.scale expects a whole number from 1 to 256, got '2'"),
        ("l1 = 1", "dssim = 1", None),
        ("patch = 16", "patch = 8", "loss dssim can not see patches of 8 px"),
        ("l1 = 1", "l7 = 1", "no loss 'l7'"),
        ("lr = 1e-3", "lr = 1e-3\nlr_end = 1e-4", "lr_end does nothing without decay"),
        ("lr = 1e-3", "lr = 1e-3\ngradient_penalty = 1", "does nothing without adversarial"),
        ("lr = 1e-3", 'lr = 1e-3\ndecay = "cosine"\nhalve_at = [1]', "halve_at does nothing"),
        ("patch = 16", "patch = [16]", "patch expects a whole number, got [16]"),
        ("[network]", '[discriminator]\narchitecture = "vgg19"\n[network]', "'vgg19' is none of"),
        ("[network]", '[discriminator]\narchitecture = "ssd"\nwidth = 4\n[network]', None),
        ("[network]", '[discriminator]\narchitecture = "unet"\nwidth = 4\n[network]', None),
        (
            "[network]",
            '[discriminator]\narchitecture = "vgg"\nchannels = 1\n[network]',
            "discriminator: patches of 16 px do not go through",
        ),
    ],
)
def test_what_no_run_could_follow_is_refused_before_there_is_a_folder(folder, old, new, said):
    recipe = RECIPE.replace("l1 = 1", "dssim = 1") if said and "dssim" in said else RECIPE
    (folder / "own.toml").write_text(recipe.replace(old, new))
    words = [folder / "photos", "-o", folder / "run", "--config", folder / "own.toml"]
    for way in ([], ["--dry-run"])[said is None :]:
        result = run(*words, *way)
        assert result.exit_code == (0 if said is None else 2), result.output
        assert said is None or (f"recipe {folder}" in result.stderr and said in result.stderr)
    assert not (folder / "run").exists()


def test_refused_runs_leave_no_folder(folder, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(folder))
    (folder / "own.toml").write_text(RECIPE.replace("l1 = 1", "vgg22 = 1"))
    for way in ([], ["--dry-run"]):
        result = run(folder / "photos", "-o", folder / "run", "--config", folder / "own.toml", *way)
        assert result.exit_code == 3
        assert "VGG-19 weights" in result.stderr
    (folder / "own.toml").write_text(RECIPE.replace("patch = 16", "patch = 64"))
    result = run(folder / "photos", "-o", folder / "run", "--config", folder / "own.toml")
    assert result.exit_code == 1
    assert "holds no photo to learn from" in result.stderr
    assert not (folder / "run").exists()


def test_too_few_patches_for_the_phases_name_the_least(folder):
    words = [folder / "photos", "-o", folder / "run", "--config", "srgan-mse", "--dry-run"]
    result = run(*words, "--kimg", 0.008)
    assert result.exit_code == 2
    assert "--kimg 0.008 leaves a phase without a patch" in result.stderr
    assert "--kimg 0.012" in result.stderr
    assert run(*words, "--kimg", 0.012).exit_code == 0
