"""The evaluation script: its table and its variants."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import click
import numpy as np
import pytest
import torch
from PIL import Image

from pulse_sr.metrics.diversity import distance_maps, diversity_score
from pulse_sr.metrics.kernel import kernel_distance
from pulse_sr.metrics.niqe import niqe_features, niqe_of_set
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
from pulse_sr.report.table import markdown
from pulse_sr.search.phased import PhasedSettings


@pytest.fixture(scope="module")
def prior():
    """A random StyleGAN2 of 32 px."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    generator = Generator(StyleGAN2Config(32, 12, 12, 2, (8, 8, 8, 8)))
    torch.set_rng_state(state)
    return StyleGAN2Prior("tiny", generator, fit_statistics(generator, 1000))


@pytest.fixture
def modules(monkeypatch):
    """A function that imports a module of scripts/bench as the script does."""
    folder = Path(__file__).parent.parent / "scripts" / "bench"
    monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module


# the table


def features(seed, count=2):
    return torch.rand(count, 8, generator=torch.Generator().manual_seed(seed))


def record(face, method, search_db, seconds=1.0, seed=0):
    one = {"lr_psnr": [60.0, 50.0], "hr_rms_change": [0.01, 0.03], "psnr": [20.0, 22.0]}
    one |= {"psnr_mean": 23.0, "feature_distance": [0.5, 0.7], "diversity": 0.04}
    one |= {"face": face, "method": method, "lr_psnr_search": search_db, "cpu_seconds": seconds}
    one |= {"coverage": 0.25 * seconds, "features": features(seed)}
    return one | {"ntire_diversity": 10.0 * seconds}


def test_aggregation(modules):
    table = modules("search_table")
    records = [
        record("a.png", "phased", [40.0, 30.0], seconds=2.0, seed=1),
        record("b.png", "phased", [26.0, 27.0], seconds=4.0, seed=2),
        {"face": "c.png", "method": "phased", "error": "RuntimeError: broken"},
        record("a.png", "strict-pulse", [28.0, 28.0]),
    ]
    reference = features(9, 5)
    first, second = table.aggregate(records, reference)
    assert (first["method"], first["faces"], first["failed"]) == ("phased", 2, 1)
    assert first["lr_psnr_search_median"] == 28.5
    assert (first["lr_psnr_search_min"], first["lr_psnr_min"]) == (26.0, 50.0)
    # Within 2e-3 all but 26 dB, within 1e-3 (30 dB) half.
    assert (first["eps_share"], first["paper_eps_share"]) == (0.75, 0.5)
    assert first["hr_rms_change_median"] == pytest.approx(0.02)
    assert (first["psnr_median"], first["psnr_mean_median"]) == (21.0, 23.0)
    assert (first["cpu_seconds_median"], first["diversity_median"]) == (3.0, 0.04)
    assert (first["coverage_mean"], first["ntire_diversity_median"]) == (0.75, 30.0)
    expected = 1000 * kernel_distance(torch.cat([features(1), features(2)]), reference)
    assert first["kernel_distance"] == pytest.approx(expected)
    assert (second["eps_share"], second["paper_eps_share"]) == (1.0, 0.0)
    lines = markdown({"columns": table.COLUMNS, "rows": [first, second]}).splitlines()
    assert "| phased | 2 | 1 | 28.50 |" in lines[2]
    assert len({line.count("|") for line in lines}) == 1


def test_niqe_is_one_distance_of_all_blocks(modules):
    table = modules("search_table")
    images = torch.rand(6, 3, 96, 96, generator=torch.Generator().manual_seed(4))
    blocks = niqe_features(images)
    records = [
        record(f"{i}.png", "phased", [30.0, 30.0], seed=i)
        | {"niqe_features": blocks[2 * i : 2 * i + 2]}
        for i in range(3)
    ]
    (row,) = table.aggregate(records, features(9, 5))
    assert row["niqe"] == pytest.approx(niqe_of_set(blocks), abs=1e-4)
    records[1].pop("niqe_features")
    (row,) = table.aggregate(records, features(9, 5))
    assert "niqe" not in row


def test_the_truth_has_only_its_realism(modules):
    table = modules("search_table")
    records = [
        {"face": name, "method": "truth", "features": features(seed, 1)}
        for seed, name in enumerate(("a.png", "b.png", "c.png"))
    ]
    (row,) = table.aggregate(records, features(9, 5))
    wanted = {"method", "faces", "failed", "kernel_distance", "kernel_distance_error"}
    assert set(row) == wanted
    every = torch.cat([features(seed, 1) for seed in range(3)])
    expected = 1000 * kernel_distance(every, features(9, 5))
    assert row["kernel_distance"] == pytest.approx(expected)
    line = markdown({"columns": table.COLUMNS, "rows": [row]}).splitlines()[2]
    assert line.startswith("| truth | 3 | 0 |  |")


def test_the_error_of_the_kernel_distance_is_the_jackknifes(modules):
    """Of n values, each left out once: sqrt((n - 1) / n * sum of squares around the mean)."""
    table = modules("search_table")
    records = [record(f"{i}.png", "phased", [30.0, 30.0], seed=i) for i in range(4)]
    (row,) = table.aggregate(records, features(9, 5))
    without = []
    for i in range(4):
        (part,) = table.aggregate(records[:i] + records[i + 1 :], features(9, 5))
        without.append(part["kernel_distance"])
    expected = (3 / 4 * sum((x - np.mean(without)) ** 2 for x in without)) ** 0.5
    assert row["kernel_distance_error"] == pytest.approx(expected)


# what is measured


def test_samples_are_measured_against_the_truth(modules):
    table = modules("search_table")
    generator = torch.Generator().manual_seed(6)
    samples = torch.rand(2, 3, 100, 100, generator=generator)
    truth = torch.rand(1, 3, 100, 100, generator=generator)
    found = table.measure(samples, truth)
    assert found["ntire_diversity"] == diversity_score(distance_maps(samples, truth[0]))
    torch.testing.assert_close(found["niqe_features"], niqe_features(samples))
    assert found["laplacian"] == pytest.approx([1.0, 1.0], abs=0.1)  # all three are white noise
    softer = (samples + samples.roll(1, dims=3)) / 2
    assert max(table.measure(softer, truth)["laplacian"]) < 0.5
    # One sample has no diversity, and less than 96 px no NIQE.
    small = table.measure(samples[:1, :, :48, :48], truth[:, :, :48, :48])
    assert not {"ntire_diversity", "niqe_features"} & set(small)
    assert set(small) < set(found)


# variants


def test_a_variant_is_a_method_a_name_of_the_table_or_its_constants(modules):
    variants = modules("search_variants")
    assert variants.named("strict-pulse").strict
    assert variants.named("strict-pulse").method == "pulse"
    assert variants.named("tie 1").phased == PhasedSettings(tie=1.0)
    own = variants.named("tie=1,bank=7,share=3")
    assert (own.bank, own.phased) == (7, PhasedSettings(tie=1.0, share=3))
    assert variants.named("phased").bank == variants.COUNT
    assert variants.named("target_db=45").target_db == 45.0
    assert {variants.named(name).target_db for name in ("phased", "pulse", "tie 1")} == {38.0}
    for wrong in ("best", "best=1", "tie", "share=many", "target_db=high"):
        with pytest.raises(ValueError, match=r"best|tie|many|high"):
            variants.named(wrong)


def test_every_variant_of_the_table_is_another_search(modules):
    variants = modules("search_variants")
    found = {dataclasses.replace(variants.named(name), name="") for name in variants.TRIED}
    assert len(found) == len(variants.TRIED)


# the script


def write_faces(folder, count=5):
    rng = np.random.default_rng(0)
    folder.mkdir()
    for name in "abcde"[:count]:
        pixels = rng.integers(90, 170, (48, 48, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")


def table_of(script, words, out):
    script.main([*words, "-o", str(out)], standalone_mode=False)
    return json.loads(out.read_text())


def test_real_faces_are_searched_with_each_method(modules, prior, tmp_path, monkeypatch):
    script = modules("evaluate_search")
    write_faces(tmp_path / "faces")
    monkeypatch.setattr(script, "load_prior", lambda name, device: prior)
    words = [str(tmp_path / "faces"), "--count", "2", "--steps", "2"]
    words += ["--method", "phased", "--method", "pulse", "--method", "bank=0,starts=2"]
    found = table_of(script, words, tmp_path / "out.json")
    names = ["truth", "bicubic", "phased", "pulse", "bank=0,starts=2"]
    assert [(row["method"], row["faces"]) for row in found["rows"]] == [(n, 2) for n in names]
    assert not found["settings"]["in_range"]


def test_a_variants_target_ends_its_search(modules, prior, tmp_path, monkeypatch):
    """One dB is reached at once; a hundred never, so the search takes all its steps."""
    script = modules("evaluate_search")
    monkeypatch.setattr(script, "load_prior", lambda name, device: prior)
    monkeypatch.setattr(modules("search_inputs"), "REFERENCES", 4)
    words = ["--in-range", "--count", "2", "--steps", "4", "--scale", "4"]
    words += ["--method", "bank=8,target_db=1", "--method", "bank=0,target_db=100"]
    found = table_of(script, words, tmp_path / "out.json")
    assert found["settings"]["in_range"]
    assert [row["faces"] for row in found["rows"]] == [2] * 4
    near, far = (row["steps_median"] for row in found["rows"][2:])
    assert near < far == 4


def test_a_folder_and_faces_of_the_prior_are_never_mixed(modules, tmp_path):
    script = modules("evaluate_search")
    for words in ([], [str(tmp_path), "--in-range"]):
        with pytest.raises(click.UsageError, match="a folder of faces or --in-range"):
            table_of(script, words, tmp_path / "out.json")
