"""Intervals of a few samples, against tables and draws of known distributions."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from random_priors import random_stylegan2

from pulse_sr.search.seedbank import latent_of


@pytest.fixture
def script(monkeypatch):
    """scripts/bench/coverage.py, under a name that the package `coverage` does not have."""
    folder = Path(__file__).parent.parent / "scripts" / "bench"
    monkeypatch.syspath_prepend(str(folder))
    spec = importlib.util.spec_from_file_location("bench_coverage", folder / "coverage.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("count", [3, 8, 16])
def test_one_more_draw_lies_in_the_intervals_as_often_as_promised(script, count):
    """Truth and samples are draws of one normal distribution for every pixel."""
    rng = torch.Generator().manual_seed(count)
    centre = torch.rand(1, 3, 200, 200, generator=rng, dtype=torch.float64)
    draws = centre + 5 * torch.randn(count + 1, 3, 200, 200, generator=rng, dtype=torch.float64)
    found = script.coverage(draws[1:], draws[0])
    # Five Monte Carlo deviations of 120,000 pixels; half a grey level is 0.0004 deviations here.
    assert found["interval_90"] == pytest.approx(0.9, abs=0.005)
    assert found["range"] == pytest.approx((count - 1) / (count + 1), abs=0.0075)
    assert found["range_promised"] == (count - 1) / (count + 1)


def test_a_rounded_truth_lies_in_the_interval_of_equal_samples(script):
    samples = torch.full((4, 3, 8, 8), 0.5, dtype=torch.float64)
    truth = torch.full((3, 8, 8), 0.5, dtype=torch.float64)
    truth[0] += 0.4 / 255
    truth[1] += 0.6 / 255
    found = script.coverage(samples, truth)
    assert found["interval_90"] == found["range"] == pytest.approx(2 / 3)


def test_faces_of_the_model_have_the_rows_that_langevin_assumes(script, monkeypatch):
    """Standard normal rows that correlate by c: 64 faces, 1,024 values for each pair of rows."""
    prior, styles = random_stylegan2(0), []

    def synthesize(w, noise):
        styles.append(w)
        assert [each.shape[1:] for each in noise] == [(1, *shape) for shape in prior.noise_shapes]
        return w.new_full((1, 3, 32, 32), 0.5)

    monkeypatch.setattr(prior, "synthesize", synthesize)
    faces = list(script.model_faces(prior, 0.8, 64))
    assert len({face.name for face in faces}) == 64
    assert (faces[0].truth == 128).all()
    rows = torch.stack([latent_of(prior.statistics, w[0]) for w in styles])  # [64, L, D]
    flat = rows.transpose(0, 1).flatten(1).double()
    covariance = flat @ flat.mT / flat.shape[1]
    expected = torch.full((prior.num_ws,) * 2, 0.8).double().fill_diagonal_(1)
    assert (covariance - expected).abs().max() < 0.15
