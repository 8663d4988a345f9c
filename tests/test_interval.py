"""The interval of a pixel over a few samples, and how often it holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pulse_sr.metrics.interval import highest_coverage, sample_interval


@pytest.mark.parametrize("count", [1, 2, 3, 8, 19, 40])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.99])
def test_ends_are_the_quantiles_of_type_6(count, level):
    """Independent: numpy's quantiles at the places q (n + 1), known there as "weibull"."""
    samples = np.random.default_rng(count).random((count, 3, 4, 5))
    low, high = sample_interval(torch.from_numpy(samples), level)
    for end, quantile in ((low, (1 - level) / 2), (high, (1 + level) / 2)):
        wanted = np.quantile(samples, quantile, axis=0, method="weibull")
        np.testing.assert_allclose(end.numpy(), wanted, rtol=0, atol=1e-12)


def test_ninety_percent_of_few_samples_is_their_range():
    samples = torch.rand(18, 2, 2, generator=torch.Generator().manual_seed(1))
    low, high = sample_interval(samples, 0.9)
    assert torch.equal(low, samples.amin(0))
    assert torch.equal(high, samples.amax(0))


@pytest.mark.parametrize("count", [3, 8, 19, 39])
def test_coverage_of_draws_like_the_truth_is_what_is_promised(count):
    """Continuous draws, the truth one of them: (S - 1) / (S + 1), or the level from 19 on.

    120,000 trials: standard error below 0.0015, tolerance four of them.
    """
    rng = np.random.default_rng(7)
    draws = torch.from_numpy(rng.normal(size=(count + 1, 120_000)))
    low, high = sample_interval(draws[1:], 0.9)
    covered = ((low <= draws[0]) & (draws[0] <= high)).double().mean().item()
    assert covered == pytest.approx(min(0.9, (count - 1) / (count + 1)), abs=0.006)
    assert highest_coverage(count, 0.9) == pytest.approx(covered, abs=0.006)


def test_eight_samples_promise_78_percent_and_nineteen_90():
    assert highest_coverage(8) == 7 / 9
    assert highest_coverage(18) < 0.9
    assert highest_coverage(19) == 0.9
    assert highest_coverage(1000) == 0.9
    assert highest_coverage(1) == 0.0


def test_the_order_of_the_samples_does_not_matter():
    samples = torch.rand(21, 6, generator=torch.Generator().manual_seed(3))
    assert torch.equal(
        torch.stack(sample_interval(samples)), torch.stack(sample_interval(samples.flip(0)))
    )


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, float("nan")])
def test_a_level_outside_0_to_1_is_refused(level):
    with pytest.raises(ValueError, match="level"):
        sample_interval(torch.rand(3, 2), level)
    with pytest.raises(ValueError, match="level"):
        highest_coverage(3, level)


def test_no_samples_and_integers_are_refused():
    with pytest.raises(ValueError, match="no float samples"):
        sample_interval(torch.rand(0, 3))
    with pytest.raises(ValueError, match="no float samples"):
        sample_interval(torch.ones(2, 3, dtype=torch.uint8))
    with pytest.raises(ValueError, match="0 samples"):
        highest_coverage(0)
