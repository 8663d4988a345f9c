"""The diversity score of NTIRE's "learning the super-resolution space", and its distance."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pulse_sr.metrics.diversity import distance_maps, diversity_score
from pulse_sr.metrics.squeezenet import squeezenet_features


def linear_rows(size, target):
    """Bilinear enlargement as a matrix: pixel centres at half places, clamped at the border."""
    place = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
    below = np.floor(place).astype(int)
    above = np.minimum(below + 1, size - 1)
    rows = np.zeros((target, size))
    rows[np.arange(target), below] += 1 - (place - below)
    rows[np.arange(target), above] += place - below
    return rows


def test_score_is_the_formula_in_float64():
    maps = np.random.default_rng(1).random((5, 12, 9))
    global_best = min(maps[k].mean() for k in range(5))
    local_best = maps.min(axis=0).mean()
    wanted = 100 * (global_best - local_best) / global_best
    assert diversity_score(torch.from_numpy(maps)) == pytest.approx(wanted, abs=1e-10)
    assert wanted > 10


def test_score_of_samples_that_are_right_in_another_half_each_is_100():
    maps = torch.zeros(2, 4, 4)
    maps[0, :, :2] = maps[1, :, 2:] = 1.0
    assert diversity_score(maps) == 100.0


def test_equal_samples_have_no_diversity():
    maps = torch.rand(1, 6, 6, generator=torch.Generator().manual_seed(0)).expand(4, 6, 6)
    assert diversity_score(maps) == pytest.approx(0.0, abs=1e-12)
    assert diversity_score(torch.zeros(3, 2, 2)) == 0.0  # the truth itself: nothing left to gain


def test_another_sample_never_lowers_the_local_best():
    maps = torch.rand(6, 8, 8, generator=torch.Generator().manual_seed(5))
    maps[4:] += 1.0  # worse than the best of all, so the global best stays
    assert diversity_score(maps) >= diversity_score(maps[:4]) - 1e-12


def test_distance_maps_in_float64():
    """Independent: unit vectors, squares and bilinear matrices in numpy; float32 inside: 1e-5."""
    images = torch.rand(3, 3, 24, 32, generator=torch.Generator().manual_seed(2))
    wanted = np.zeros((2, 24, 32))
    for maps in squeezenet_features(images):
        x = maps.double().numpy()
        x = x / np.maximum(np.sqrt((x**2).sum(axis=1, keepdims=True)), 1e-10)
        rows, columns = linear_rows(x.shape[2], 24), linear_rows(x.shape[3], 32)
        for k in (0, 1):
            square = ((x[k] - x[2]) ** 2).sum(axis=0)
            wanted[k] += rows @ square @ columns.T / 4
    found = distance_maps(images[:2], images[2]).numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    assert wanted.mean() > 0.05


def test_distance_is_where_the_difference_is():
    truth = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(3))
    sample = truth.clone()
    sample[:, :, 22:] = 1 - sample[:, :, 22:]
    same, changed = distance_maps(torch.stack([truth, sample]), truth)
    assert not same.any()
    assert changed[:, 24:].mean() > 20 * changed[:, :4].mean()


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match="differ"):
        distance_maps(torch.rand(2, 3, 8, 8), torch.rand(3, 8, 9))
    with pytest.raises(ValueError, match="expected distances"):
        diversity_score(torch.rand(0, 4, 4))
