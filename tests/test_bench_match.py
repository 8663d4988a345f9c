"""How long a search takes to its target: sides in turn, and what the report says of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from random_priors import random_stylegan2

from pulse_sr.bench import match
from pulse_sr.bench.match import Matched, bench_match, match_rows
from pulse_sr.bench.options import MatchBench
from pulse_sr.cli import main
from pulse_sr.errors import UsageError
from pulse_sr.images.read import read_image


@pytest.fixture(scope="module")
def prior():
    return random_stylegan2(0)


def written(folder, width, height):
    path = folder / "input.png"
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return read_image(path)


def test_a_side_ends_with_the_step_in_which_its_last_sample_is_there(prior, monkeypatch):
    """The targets are 38 dB (ours) and 26.99 dB (the others); `strict-pulse` never gets there."""
    given = match.Input("x", torch.zeros(1, 3, 4, 4))
    sides = {
        "phased": [[37.9, 38.0], [38.0, 38.0], [99.0, 99.0]],
        "strict-pulse": [[26.98, 40.0], [26.98, 40.0], [26.98, 40.0]],
    }
    taken = []

    def steps(name):
        for best_db in sides[name]:
            taken.append(name)
            yield best_db

    monkeypatch.setattr(match, "_ours", lambda *rest: steps(rest[-1]))
    monkeypatch.setattr(match, "_baseline", lambda *rest: iter([[26.99, 27.5]]))
    found = match._race(prior, given, 2)
    counted = {side: (each.steps, each.reached) for side, each in found.items()}
    assert counted == {"phased": (2, 2), "baseline": (1, 2), "strict-pulse": (3, 1)}
    assert taken == ["phased", "strict-pulse", "phased", "strict-pulse", "strict-pulse"]


def test_rows_are_medians_over_the_inputs():
    """By hand: ratios 5, 2 and 4 against the original's loop, 2, 1 and 3 against strict."""
    ours = (Matched(2.0, 60, 8), Matched(3.0, 70, 8), Matched(1.0, 50, 7))
    baseline = (Matched(10.0, 100, 4), Matched(6.0, 90, 8), Matched(4.0, 100, 0))
    strict = (Matched(4.0, 100, 3), Matched(3.0, 80, 8), Matched(3.0, 100, 1))
    found = [
        {"phased": a, "baseline": b, "strict-pulse": c}
        for a, b, c in zip(ours, baseline, strict, strict=True)
    ]
    first, second = match_rows(found, 8)
    assert first["name"] == "phased to 38 dB, baseline to 26.99 dB"
    assert (first["ratio"], first["ratio_range"]) == (4, [2, 5])
    assert (first["ours_s"], first["baseline_s"], first["ours_steps"]) == (2, 6, 60)
    assert (first["ours_reached"], first["baseline_reached"], first["samples"]) == (23, 12, 24)
    assert (second["ratio"], second["ratio_range"]) == (2, [1, 3])


def test_a_race_on_drawn_faces_is_reported(prior, monkeypatch):
    """A random network has few colours to match: 38 dB and 26.99 dB are near for all sides."""
    monkeypatch.setitem(match.DEFAULT_STEPS, "phased", 6)
    monkeypatch.setitem(match.DEFAULT_STEPS, "pulse", 4)
    report = bench_match(prior, options=MatchBench(samples=2, repeats=1))
    assert report["environment"]["inputs"] == ["seed 0 (4 px)"]
    row = report["rows"][0]
    assert report["ratio"] == row["ratio"] == row["baseline_s"] / row["ours_s"]
    assert 1 <= row["ours_steps"] <= 6
    assert 1 <= row["baseline_steps"] <= 4
    assert row["ours_reached"] == 2 or row["ours_steps"] == 6


@pytest.mark.parametrize("size", [(8, 4), (12, 12), (32, 32)])
def test_inputs_that_do_not_suit_the_prior_are_refused(prior, tmp_path, size):
    with pytest.raises(UsageError, match=f"{size[0]} x {size[1]}"):
        bench_match(prior, [written(tmp_path, *size)])


def test_other_priors_are_refused():
    with pytest.raises(UsageError, match="StyleGAN2"):
        bench_match(object())


def test_the_command_prints_a_table_or_only_json(monkeypatch, fake_api, tmp_path):
    sides = {"phased": Matched(2.0, 60, 8), "baseline": Matched(10.0, 100, 4)}
    rows = match_rows([sides | {"strict-pulse": Matched(4.0, 100, 3)}], 8)
    report = {"ratio": 5.0, "rows": rows, "environment": {"torch": "2"}}

    def fake(prior, images, options, progress):
        assert ([each.width for each in images], options) == ([8], MatchBench(samples=4))
        return report

    monkeypatch.setattr(match, "bench_match", fake)
    words = ["bench", "match", written(tmp_path, 8, 8).path, "--samples", "4"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert json.loads(done.stdout) == report
    shown = CliRunner().invoke(main, words).stdout
    assert "5.00x" in shown
    assert "8 and 4 of 8" in shown
