"""The order in which samples soonest show all that is possible."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from pulse_sr.metrics import covering
from pulse_sr.metrics.covering import covering_order, feature_distances
from pulse_sr.metrics.squeezenet import feature_distance


def on_a_line(*places):
    x = torch.tensor(places, dtype=torch.float64)
    return (x[:, None] - x).abs()


def test_the_medoid_is_first_and_then_always_the_farthest():
    """On a line by hand: sums 31, 23, 21, 21, 45; of the two medoids the lower index."""
    found = covering_order(on_a_line(0.0, 4.0, 5.0, 6.0, 16.0))
    assert found.order == (2, 4, 0, 1, 3)
    assert found.radii == (11.0, 5.0, 1.0, 1.0, 0.0)


def test_three_groups_are_found_by_the_first_three():
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 12.0]])
    group = np.array([0, 0, 1, 2, 0, 2, 1, 0, 0])
    points = torch.from_numpy(centres[group] + rng.normal(0, 0.2, (9, 2)))
    found = covering_order(torch.cdist(points, points))
    assert {int(group[k]) for k in found.order[:3]} == {0, 1, 2}
    assert group[found.order[0]] == 0  # the typical one is of the largest group
    assert found.radii[2] < 1.5 < found.radii[1]


def test_radii_are_the_distance_that_is_left_and_at_most_twice_the_best():
    """Gonzalez' bound, against all choices of k of 9 points; a free first point allows it too."""
    points = torch.rand(9, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    distances = torch.cdist(points, points)
    found = covering_order(distances)
    for k in range(1, 9):
        left = distances[list(found.order[:k])].amin(0).max().item()
        assert found.radii[k - 1] == pytest.approx(left, abs=1e-12)
        best = min(
            distances[list(chosen)].amin(0).max().item() for chosen in combinations(range(9), k)
        )
        assert left <= 2 * best + 1e-12
    assert sorted(found.order) == list(range(9))


def test_equal_samples_are_all_in_the_order():
    assert covering_order(torch.zeros(4, 4)).order == (0, 1, 2, 3)
    assert covering_order(torch.zeros(1, 1)).order == (0,)


@pytest.mark.parametrize("distances", [torch.zeros(2, 3), torch.zeros(0, 0)])
def test_what_is_no_matrix_of_distances_is_refused(distances):
    with pytest.raises(ValueError, match="expected distances"):
        covering_order(distances)
    with pytest.raises(ValueError, match="not finite"):
        covering_order(torch.full((2, 2), torch.nan))


def test_distances_are_squeezenets_whatever_the_size_of_a_block(monkeypatch):
    """Against the distance of two images at a time; float32 sums of 2.3 million terms: 1e-5."""
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(4))
    whole = feature_distances(images)
    for i, j in combinations(range(3), 2):
        wanted = feature_distance(images[i : i + 1], images[j : j + 1]).item()
        assert whole[i, j].item() == pytest.approx(wanted, abs=1e-5)
        assert wanted > 0.01
    assert torch.equal(whole, whole.mT)
    assert not whole.diagonal().any()
    monkeypatch.setattr(covering, "_BLOCK", 2)
    torch.testing.assert_close(feature_distances(images), whole, rtol=0, atol=1e-5)
