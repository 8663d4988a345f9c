"""Diagnostics of chains, against formulas in plain Python and AR(1) chains of known size."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from pulse_sr.search.diagnostics import (
    describe_chains,
    effective_sample_size,
    plain_r_hat,
    rank_normalised,
    split_r_hat,
)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def ar1(chains, length, phi, seed=0):
    """Stationary AR(1) chains with variance 1."""
    noise = normal(chains, length, seed=seed)
    draws = [noise[:, 0]]
    for t in range(1, length):
        draws.append(phi * draws[-1] + math.sqrt(1 - phi**2) * noise[:, t])
    return torch.stack(draws, dim=1)


def r_hat_by_definition(chains):
    """Gelman et al., Bayesian Data Analysis, 3rd edition, equations 11.1 to 11.4."""
    length = len(chains[0])
    between = length * statistics.variance(statistics.fmean(c) for c in chains)
    within = statistics.fmean(statistics.variance(c) for c in chains)
    return math.sqrt(((length - 1) / length * within + between / length) / within)


def scores_by_definition(values):
    """Normal scores of mean ranks, Blom's offset (Vehtari et al., 2021, equation 14)."""
    ranks = [(sum(w < v for w in values) + 1 + sum(w <= v for w in values)) / 2 for v in values]
    inverse = statistics.NormalDist().inv_cdf
    return [inverse((rank - 3 / 8) / (len(values) + 1 / 4)) for rank in ranks]


def test_plain_r_hat_is_its_definition():
    draws = ar1(4, 50, 0.7) + torch.tensor([0.0, 0.1, 0.5, -0.3])[:, None]
    assert plain_r_hat(draws) == pytest.approx(r_hat_by_definition(draws.tolist()), rel=1e-12)


def test_scores_are_their_definition_ties_included():
    draws = (2 * normal(3, 20)).round()
    expected = torch.tensor(scores_by_definition(draws.flatten().tolist()), dtype=torch.float64)
    torch.testing.assert_close(rank_normalised(draws).flatten(), expected, rtol=0, atol=1e-9)


def test_split_r_hat_is_its_definition_on_halves():
    draws = ar1(3, 40, 0.5) + torch.tensor([0.0, 2.0, 0.0])[:, None]  # means decide, not spreads
    halves = [half for chain in draws.tolist() for half in (chain[:20], chain[20:])]
    flat = scores_by_definition([value for half in halves for value in half])
    scores = [flat[i : i + 20] for i in range(0, len(flat), 20)]
    assert split_r_hat(draws) == pytest.approx(r_hat_by_definition(scores), rel=1e-9)


def test_independent_draws_have_mixed():
    # R-hat - 1 of 8 halves of 1000 draws is about 1 / 2000; 0.01 is the bound in use.
    assert split_r_hat(normal(4, 2000)) < 1.003


@pytest.mark.parametrize(
    "spoil",
    [
        lambda x: x + torch.tensor([0.0, 0.0, 0.0, 1.0])[:, None],  # another mean
        lambda x: x * torch.tensor([1.0, 1.0, 1.0, 3.0])[:, None],  # another spread, same mean
        lambda x: x + torch.linspace(-1, 1, x.shape[1]),  # all chains drift alike
    ],
)
def test_chains_that_differ_or_drift_are_seen(spoil):
    assert split_r_hat(spoil(normal(4, 400))) > 1.05


@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9, -0.4])
def test_size_of_ar1_chains(phi):
    # The closed form N (1 - phi) / (1 + phi); over 12 seeds the estimate scatters by up to 6 %,
    # ranks move it by less than 3 %.
    chains, length = 8, 4000
    found = effective_sample_size(ar1(chains, length, phi))
    assert found == pytest.approx(chains * length * (1 - phi) / (1 + phi), rel=0.15)


def test_chains_that_disagree_count_little():
    apart = normal(4, 500) + 10 * torch.arange(4.0)[:, None]
    assert effective_sample_size(apart) < 10


def test_constants():
    same, apart = torch.ones(3, 8), torch.arange(3.0)[:, None].expand(3, 8)
    assert split_r_hat(same) == 1.0
    assert effective_sample_size(same) == 24
    assert split_r_hat(apart) == math.inf
    assert effective_sample_size(apart) == 6  # one draw for each half


def test_too_few_draws():
    with pytest.raises(ValueError, match=r"T >= 4.*\(2, 3\)"):
        split_r_hat(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="T >= 4"):
        effective_sample_size(torch.zeros(8))


def test_too_few_draws_are_described_as_such():
    assert describe_chains(torch.zeros(2, 3, 9)) == {"draws": 3, "r_hat": None, "ess": None}


def test_description_keeps_the_residual_apart():
    traces = normal(3, 40, 5)
    traces[:, :, 0] += 5 * torch.arange(3.0)[:, None]
    found = describe_chains(traces)
    assert found["draws"] == 40
    assert found["r_hat"]["residual"] == split_r_hat(traces[:, :, 0]) > 2
    assert found["r_hat"]["coordinates"] == [split_r_hat(traces[:, :, k]) for k in range(1, 5)]
    assert found["ess"]["coordinates"][3] == effective_sample_size(traces[:, :, 4])
