"""`--save-steps` and `--cluster` in runs: what is written, what is searched again."""

from __future__ import annotations

import json

import fake_search
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from random_priors import random_stylegan2

from pulse_sr.api import search_image
from pulse_sr.cli import main
from pulse_sr.config import SearchConfig
from pulse_sr.errors import InputError
from pulse_sr.images.read import read_image
from pulse_sr.jobs import searching, store
from pulse_sr.jobs.steps import ANIMATION, FOLDER
from pulse_sr.operators.building import make_operator
from pulse_sr.operators.degrading import degrade
from pulse_sr.report.animation import frames_of, read_matches

STEPS = 6


@pytest.fixture(scope="module")
def prior():
    """A StyleGAN2 of 32 px with random weights."""
    return random_stylegan2(5, name="tiny", sha256="5" * 64)


@pytest.fixture
def small(tmp_path, prior):
    """An 8-px input that the prior can explain."""
    pixels = (prior.sample([77])[0].numpy() * 255).round().astype(np.uint8)
    path = tmp_path / "small.png"
    Image.fromarray(degrade(pixels, "bicubic", 4).transpose(1, 2, 0)).save(path)
    return path


def run(path, out, prior, samples=2, **switches):
    config = SearchConfig(samples=samples, steps=STEPS, batch=4)
    [record] = searching.run([path], out, config, prior, align="never", **switches)
    return record


def document_of(out):
    return json.loads((out / "small" / "result.json").read_text())


def test_steps_that_are_told_match_the_input_as_said(small, prior):
    """Independent: the operator in float64 on the image of every step; told in float32, 0.01 dB."""
    config = SearchConfig(steps=STEPS, batch=4)
    told = []
    image = read_image(small)
    result = search_image(image, prior, config, [1, 3], on_step=lambda *each: told.append(each))
    operator = make_operator("bicubic", 8, 32)
    y = torch.from_numpy(image.pixels / 255.0)
    assert {index for index, *_ in told} == {1, 3}
    for sample in result.samples_list:
        mine = [each for each in told if each[0] == sample.index]
        assert [step for _, step, *_ in mine] == list(range(len(mine)))
        decibels = [db for *_, db in mine]
        for _, _, found, db in mine:
            assert found.shape == (3, 32, 32)
            assert 0 <= float(found.min()) <= float(found.max()) <= 1
            assert db == pytest.approx(float(operator.lr_psnr(found.double(), y)), abs=0.01)
        # The sample is the best of them; the record is of the image rounded to 8 bits.
        assert sample.steps == int(np.argmax(decibels)) + 1
        assert sample.lr_psnr_search == pytest.approx(max(decibels), abs=0.2)


def test_a_frozen_sample_is_told_no_more(small, prior):
    config = SearchConfig(steps=40, batch=4, target_db=20.0)
    told = []
    search_image(
        read_image(small), prior, config, [0, 1, 2], on_step=lambda *each: told.append(each)
    )
    for index in range(3):
        decibels = [db for k, _, _, db in told if k == index]
        assert all(db < 20.0 for db in decibels[:-1])
    assert any(db >= 20.0 for *_, db in told)


def test_a_run_keeps_frames_and_makes_an_animation_that_the_page_shows(small, prior, tmp_path):
    out = tmp_path / "out"
    run(small, out, prior, save_steps=True)
    folder = out / "small"
    document = document_of(out)
    for entry in document["samples"]:
        found = frames_of(folder / FOLDER, entry["index"])
        assert len(found) == entry["frames"] == STEPS
        assert "synthetic" in Image.open(found[0]).text["Comment"]
    assert set(read_matches(folder / FOLDER)) == {0, 1}
    assert Image.open(folder / ANIMATION).n_frames == STEPS + 1
    page = (out / "index.html").read_text()
    assert "data:image/gif;base64," in page
    assert "--save-steps" in page


def test_the_samples_are_the_same_as_without(small, prior, tmp_path):
    run(small, tmp_path / "with", prior, save_steps=True)
    run(small, tmp_path / "without", prior)
    for k in (0, 1):
        name = f"small/sample_{k:02d}.png"
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()
    assert not (tmp_path / "without" / "small" / FOLDER).exists()
    assert not (tmp_path / "without" / "small" / ANIMATION).exists()


def test_resuming_with_save_steps_searches_only_what_has_no_frames(small, prior, tmp_path):
    out = tmp_path / "out"
    run(small, out, prior)
    assert run(small, out, prior, save_steps=True).searched == 2  # found without: once more
    assert run(small, out, prior, save_steps=True).status == "skipped"
    assert run(small, out, prior, samples=3, save_steps=True).searched == 1
    assert [each["frames"] for each in document_of(out)["samples"]] == [STEPS] * 3
    (out / "small" / ANIMATION).unlink()
    assert run(small, out, prior, samples=3, save_steps=True).searched == 3
    assert run(small, out, prior, samples=3).status == "skipped"
    assert (out / "small" / ANIMATION).is_file()


def test_other_settings_remove_the_frames(small, prior, tmp_path):
    out = tmp_path / "out"
    run(small, out, prior, save_steps=True)
    folder = out / "small"
    (folder / FOLDER / "mine.txt").write_text("a file of the user")
    config = SearchConfig(samples=1, steps=STEPS, batch=4, seed=9)
    list(searching.run([small], out, config, prior, align="never"))
    assert [path.name for path in (folder / FOLDER).iterdir()] == ["mine.txt"]
    assert not (folder / ANIMATION).exists()


def test_a_failed_search_leaves_no_frames(face, tmp_path):
    def search(image, prior, config, indices, progress=None, on_step=None):
        on_step(0, 0, torch.zeros(3, 64, 64), 10.0)
        raise InputError("no face", "--fit pad")

    stream = fake_search.one_by_one(search)
    config = SearchConfig(samples=1, steps=STEPS)
    out = tmp_path / "out"
    path = face("small.png")
    [record] = searching.run([path], out, config, fake_search.PRIOR, search=stream, save_steps=True)
    assert record.status == "failed"
    assert sorted(each.name for each in (out / "small").iterdir()) == ["result.json"]


def test_cluster_on_a_complete_input_changes_the_order_and_searches_nothing(face, tmp_path):
    path, out = face("small.png"), tmp_path / "out"
    config, stream = SearchConfig(samples=4), fake_search.one_by_one(fake_search.search)

    def again(**switches):
        [record] = searching.run([path], out, config, fake_search.PRIOR, search=stream, **switches)
        return record

    again()
    grid = (out / "small" / "grid.png").read_bytes()
    assert again(cluster=True).status == "skipped"
    assert sorted(document_of(out)["cluster"]["order"]) == [0, 1, 2, 3]
    assert (out / "small" / "grid.png").read_bytes() != grid
    assert "most typical" in (out / "index.html").read_text()
    assert again().status == "skipped"
    assert "cluster" not in document_of(out)
    assert (out / "small" / "grid.png").read_bytes() == grid


def test_the_command_line_has_both(face, fake_api, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def search(image, prior, config, indices, progress=None, on_step=None):
        for index in indices:
            on_step(index, 0, torch.full((3, 64, 64), 0.5), 12.0)
        return fake_search.search(image, prior, config, indices, progress)

    fake_api.search_image = search
    face("small.png")
    words = ["run", "small.png", "--samples", "3", "--cluster", "--save-steps"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.stderr
    document = document_of(tmp_path / "pulse_out")
    assert len(document["cluster"]["order"]) == 3
    assert [each["frames"] for each in document["samples"]] == [1, 1, 1]
    assert store.done_indices(
        tmp_path / "pulse_out" / "small", document["fingerprint"], with_steps=True
    ) == (0, 1, 2)
    planned = CliRunner().invoke(main, [*words, "--dry-run", "--json"])
    settings = json.loads(planned.stdout)["settings"]
    assert (settings["cluster"], settings["save_steps"]) == (True, True)


def test_a_sample_with_a_damaged_frame_is_searched_again(small, prior, tmp_path):
    out = tmp_path / "out"
    run(small, out, prior, save_steps=True)
    whole = {path.name: path.read_bytes() for path in (out / "small" / FOLDER).iterdir()}
    (out / "small" / FOLDER / "sample_01_step_0002.png").write_bytes(b"")
    assert run(small, out, prior, save_steps=True).searched == 1
    assert {p.name: p.read_bytes() for p in (out / "small" / FOLDER).iterdir()} == whole
