"""Precision and recall on point sets whose manifolds are plain to see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from pulse_sr.metrics import manifold
from pulse_sr.metrics.manifold import precision_recall


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def clusters(centres, count, seed):
    return torch.cat([normal(count, 2, seed=seed + i) + c for i, c in enumerate(centres)])


def test_a_lost_mode_costs_recall_and_a_wrong_mode_costs_precision():
    """Two clusters far apart; the second set has only one of them, or a third one more."""
    here, there, elsewhere = 0.0, 100.0, 300.0
    reals = clusters([here, there], 100, seed=0)
    precision, recall = precision_recall(clusters([here, here], 100, seed=10), reals)
    assert precision > 0.9
    assert 0.4 < recall <= 0.5
    precision, recall = precision_recall(clusters([here, there], 100, seed=20), reals)
    assert min(precision, recall) > 0.9
    precision, recall = precision_recall(clusters([here, elsewhere], 100, seed=30), reals)
    assert max(precision, recall) <= 0.5


def test_against_the_definition(monkeypatch):
    monkeypatch.setattr(manifold, "_BLOCK", 16)
    samples, reals = normal(50, 4, seed=1) * 1.5, normal(50, 4, seed=2)

    def covered(points, centres):
        radii = np.sort(cdist(centres, centres), axis=1)[:, 3]
        return float((cdist(points, centres) <= radii).any(axis=1).mean())

    expected = covered(samples, reals), covered(reals, samples)
    assert precision_recall(samples, reals) == pytest.approx(expected)
    assert 0 < expected[0] < 1


def test_the_larger_set_is_thinned_evenly():
    samples, reals = normal(20, 3, seed=3), normal(60, 3, seed=4)
    assert precision_recall(samples, reals) == precision_recall(samples, reals[::3])


def test_too_few_points_have_no_radius():
    with pytest.raises(ValueError, match="3 images have no neighbour number 3"):
        precision_recall(normal(3, 2), normal(10, 2))
