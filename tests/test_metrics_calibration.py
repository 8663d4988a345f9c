"""Coverage, ranks and resampling, against what is known of distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pulse_sr.metrics.bootstrap import interval_of_mean, largest_gap, resampled_means
from pulse_sr.metrics.calibration import coverage, exact_levels, rank_histogram
from pulse_sr.metrics.interval import highest_coverage


def draws(count, scale=1.0, seed=0):
    """A truth and samples of it, rounded to 8 bits, around a mean of its own for every value."""
    rng = np.random.default_rng(seed)
    mean = rng.uniform(0.3, 0.7, (3, 100, 100))
    values = mean + 0.2 * rng.standard_normal((count + 1, 3, 100, 100))
    values[1:] = mean + scale * (values[1:] - mean)
    return torch.from_numpy(np.round(255 * values) / 255)


@pytest.mark.parametrize("count", [2, 3, 8, 30])
def test_draws_of_one_distribution_are_calibrated(count):
    """30,000 values: standard error below 0.003; half a level at each end adds up to 0.008."""
    truth, samples = draws(count)[0], draws(count)[1:]
    levels = exact_levels(count)
    np.testing.assert_allclose(coverage(samples, truth, levels).numpy(), levels, atol=0.018)
    assert levels[-1] == pytest.approx(highest_coverage(count, 0.999))
    ranks = rank_histogram((255 * samples).round(), (255 * truth).round())
    np.testing.assert_allclose(ranks.numpy(), 1 / (count + 1), atol=0.012)


def test_samples_that_differ_too_little():
    values = draws(8, scale=0.3)
    truth, samples = values[0], values[1:]
    assert float(coverage(samples, truth, [0.7])) < 0.4
    ranks = rank_histogram(samples, truth)
    assert float(ranks[0] + ranks[-1]) > 0.5


def test_ranks_by_hand():
    """Below: one of two samples; equal to both: every rank to a third; above both: the last."""
    samples = torch.tensor([[1, 4, 0], [3, 4, 1]], dtype=torch.uint8)
    truth = torch.tensor([2, 4, 9], dtype=torch.uint8)
    wanted = np.array([1 / 3, 1 + 1 / 3, 1 + 1 / 3]) / 3
    np.testing.assert_allclose(rank_histogram(samples, truth).numpy(), wanted)


def test_other_shapes_are_refused():
    samples, truth = torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 5)
    for measure in (
        lambda: coverage(samples, truth, [0.5]),
        lambda: rank_histogram(samples, truth),
    ):
        with pytest.raises(ValueError, match="differ"):
            measure()


def test_interval_of_a_mean():
    """The standard error of 400 values of deviation 2 is 0.1: 1.96 of them to either side."""
    values = np.random.default_rng(0).normal(5, 2, 400)
    error = values.std(ddof=1) / 20
    low, high = interval_of_mean(values)
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)
    assert interval_of_mean(values) == (low, high)
    assert interval_of_mean(values[:1]) is None


def test_resampling_in_parts_is_of_all_values():
    values = np.arange(5000, dtype=np.float64)
    means = resampled_means(values, np.random.default_rng(1))
    assert means.shape == (2000,)
    assert means.mean() == pytest.approx(2499.5, abs=4 * 1443 / 5000**0.5 / 2000**0.5)
    assert means.std() == pytest.approx(1443.4 / 5000**0.5, rel=0.06)


def test_the_gap_of_groups_that_differ():
    rng = np.random.default_rng(2)
    groups = {name: rng.normal(mean, 1, 300) for name, mean in (("a", 0), ("b", 1), ("c", 0.1))}
    gap = largest_gap({**groups, "one": np.array([99.0])})
    assert (gap.least, gap.most) == ("a", "b")
    assert gap.value == pytest.approx(groups["b"].mean() - groups["a"].mean())
    assert gap.low < gap.value < gap.high
    assert gap.low > gap.by_chance


def test_the_gap_of_groups_that_do_not():
    """A gap above what chance alone makes comes up in 5 % of cases: in none of 3 seeds here."""
    for seed in range(3):
        rng = np.random.default_rng(seed)
        gap = largest_gap({str(i): rng.normal(0, 1, 50) for i in range(8)})
        assert 0 < gap.value < gap.by_chance
    assert largest_gap({"a": np.ones(30), "b": np.ones(9)}) is None
