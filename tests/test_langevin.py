"""Annealed Langevin dynamics, against Gaussian posteriors in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from toy_priors import LinearPrior

from pulse_sr.operators.building import make_operator
from pulse_sr.search.curvature import ws_root
from pulse_sr.search.engine import Last, Start, search
from pulse_sr.search.langevin import (
    Langevin,
    LangevinSettings,
    input_sigma,
    measure_curvature,
    principal_axes,
)

SIGMA, ROWS, WIDTH, CHAINS = 0.03, 3, 16, 200


def identity(u):
    return u


def make_chains(prior, operator, seeds, steps, sigma=SIGMA, low_side=8, **constants):
    settings = LangevinSettings(**constants)
    curvature = measure_curvature(prior, identity, operator, low_side, settings)
    chains = Langevin(prior, identity, curvature, sigma, low_side, len(seeds), steps, settings)
    target = torch.zeros(1, 3, 8, 8)
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    chains.start(range(len(seeds)), [Start(rng, target) for rng in rngs])
    return chains


def run_chains(chains, operator, target):
    """The last images and their low-res error."""
    for record in search(chains, operator, target, Last()):
        last = record
    return last.images, last.mse


def linear_problem(seed=5):
    """The low-res image is `B u + c`; the area operator undoes the enlargement."""
    prior = LinearPrior(ROWS, WIDTH)
    rng = torch.Generator().manual_seed(seed)
    w = torch.randn(1, ROWS, WIDTH, generator=rng)
    operator = make_operator("area", 8, prior.resolution)
    y = operator(prior.synthesize(w)) + SIGMA * torch.randn(1, 3, 8, 8, generator=rng)
    return prior, operator, y


def closed_form(prior, y, correlation):
    """Mean and covariance of the rows `[L D]` given y, float64 (Bishop, PRML, eq. 2.116)."""
    shared = correlation * torch.ones(ROWS, ROWS, dtype=torch.float64)
    rows = (1 - correlation) * torch.eye(ROWS, dtype=torch.float64) + shared
    covariance = torch.kron(rows, torch.eye(WIDTH, dtype=torch.float64))
    B = prior.B.double()
    posterior = torch.linalg.inv(torch.linalg.inv(covariance) + B.t() @ B / SIGMA**2)
    return posterior @ B.t() @ (y.double().flatten() - prior.c) / SIGMA**2, posterior


@pytest.mark.parametrize("momentum", [0.0, 0.8])
def test_linear_generator_has_the_gaussian_posterior(momentum):
    """Whitened by the closed form, the last iterates are standard normal.

    The start is a draw of the prior, so nothing is met by chance: the deviations of the posterior
    lie between 0.13 and 0.33, those of the prior are 1. The splitting is exact here at any stable
    step size, so a long one is taken.
    """
    correlation = 0.5
    prior, operator, y = linear_problem()
    chains = make_chains(
        prior,
        operator,
        range(CHAINS),
        150,
        ws_correlation=correlation,
        momentum=momentum,
        step_size=1.0,
        margin=2.0,
        noise_reach=0.0,
    )
    run_chains(chains, operator, y)
    rows = torch.matmul(chains.root, chains.ws.detach()).flatten(1).double()
    mean, covariance = closed_form(prior, y, correlation)
    scales = covariance.diagonal().sqrt()
    assert scales.max() < 0.4
    white = torch.linalg.solve_triangular(
        torch.linalg.cholesky(covariance), (rows - mean).t(), upper=False
    )  # [48, CHAINS]
    size = ROWS * WIDTH
    # Five Monte Carlo deviations each: of a mean of chi-squares, of a chi-square, of correlations.
    assert white.square().mean() == pytest.approx(1, abs=5 * math.sqrt(2 / white.numel()))
    off = CHAINS * white.mean(dim=1).square().sum()
    assert off == pytest.approx(size, abs=5 * math.sqrt(2 * size))
    found = white @ white.t() / CHAINS
    apart = (found - torch.eye(size, dtype=torch.float64)).abs()
    assert apart.fill_diagonal_(0).max() < 5 / math.sqrt(CHAINS)
    assert torch.allclose(chains.sigmas, torch.tensor(SIGMA))


def test_noise_that_does_not_reach_the_input_stays_a_draw_of_the_prior():
    prior, operator, y = linear_problem()
    chains = make_chains(prior, operator, range(100), 60, noise_reach=1.0)
    starts = [map_.detach().clone() for map_ in chains.moved]
    run_chains(chains, operator, y)
    assert [map_.shape[-1] for map_ in chains.moved] == [4, 8, 8]
    for start, end in zip(starts, chains.moved, strict=True):
        end = end.detach()
        assert end.square().mean() == pytest.approx(1, abs=5 * math.sqrt(2 / end.numel()))
        correlation = (start * end).mean()
        assert abs(correlation) < 0.5  # it moved


def test_noise_that_reaches_the_input_is_inferred():
    """Each map adds `strength * mean` to all pixels: the sum of means is known to sigma / 14."""
    prior, operator = LinearPrior(1, 4, noise_strength=0.5), make_operator("area", 8, 16)
    y = torch.full((1, 3, 8, 8), 0.62)
    chains = make_chains(prior, operator, range(40), 300, noise_reach=1.0, margin=2.0)
    _, mse = run_chains(chains, operator, y)
    resting = sum(map_.mean(dim=[1, 2, 3]) for map_ in chains.noise[3:])
    moved = sum(map_.mean(dim=[1, 2, 3]) for map_ in chains.moved).detach()
    rows = chains.ws.detach()
    explained = 0.5 * (moved + resting) + (rows.flatten(1) @ prior.B.t()).mean(dim=1)
    # 0.12 is what the prior's mean lacks; the start is off by 0.5 * 0.3 in the mean.
    assert (explained - 0.12).abs().max() < 5 * SIGMA / math.sqrt(192)
    assert mse.mean() < 2 * SIGMA**2 + 0.12**2


def test_chains_do_not_feel_their_company():
    prior, operator, y = linear_problem()
    pairs = [make_chains(prior, operator, seeds, 30) for seeds in ((3, 4), (3, 8))]
    images = [run_chains(chains, operator, y)[0] for chains in pairs]
    assert torch.equal(images[0][0], images[1][0])
    assert not torch.equal(images[0][1], images[1][1])


def test_a_slot_starts_as_if_it_were_new_and_steps_are_its_own():
    prior, operator, y = linear_problem()
    used = make_chains(prior, operator, (3, 4), 30)
    run_chains(used, operator, y)
    used.start([1], [Start(torch.Generator().manual_seed(8), y)])
    fresh = make_chains(prior, operator, (3, 8), 30)
    for old, new in zip(
        [*used.variables(), *used.velocities], [*fresh.variables(), *fresh.velocities], strict=True
    ):
        assert torch.equal(old[1], new[1])
    used.image([29, 0])
    used.loss(torch.zeros(2, 3, 8, 8))
    torch.testing.assert_close(used.sigmas, torch.tensor([SIGMA, used.settings.first_sigma]))


def test_a_target_out_of_range_does_not_heat_the_chains():
    """Black and white squares are far beyond this prior: sigma stays at its share of the error."""
    prior, operator, _ = linear_problem()
    y = (torch.arange(64).view(8, 8) % 2).float().expand(1, 3, 8, 8)
    sizes = {}
    for lag in (0.7, 1e-3):
        chains = make_chains(prior, operator, range(10), 100, sigma=1e-3, lag=lag)
        _, mse = run_chains(chains, operator, y)
        sizes[lag] = chains.ws.detach().square().mean().item()
        if lag == 0.7:
            assert torch.allclose(chains.sigmas, lag * mse.sqrt())
    # d / m = 48 / 192 of the energy at sigma = 0.7 error: rows within a few of the prior's 1.
    assert sizes[0.7] < 3
    assert sizes[1e-3] > 10 * sizes[0.7]


def test_traces_are_those_of_the_final_sigma():
    prior, operator, y = linear_problem()
    chains = make_chains(prior, operator, range(4), 50, anneal=0.6)
    _, mse = run_chains(chains, operator, y)
    traces = torch.stack([chains.chain(slot).trace for slot in range(4)])
    assert traces.shape == (4, 20, 9)
    torch.testing.assert_close(traces[:, -1, 0], mse.sqrt() / SIGMA)
    chains.start([2], [Start(torch.Generator().manual_seed(9), y)])
    assert chains.chain(2).trace.shape == (0, 9)
    assert chains.chain(1).trace.shape == (20, 9)


def test_principal_axes_are_eigenvectors_of_the_style_covariance():
    prior = LinearPrior()
    rng = torch.Generator().manual_seed(1)
    root = torch.randn(WIDTH, WIDTH, generator=rng, dtype=torch.float64)
    covariance = root @ root.t()
    object.__setattr__(prior.statistics, "cholesky", torch.linalg.cholesky(covariance).float())
    axes = principal_axes(prior.statistics).double()
    values, vectors = torch.linalg.eigh(covariance)
    u = torch.randn(30, WIDTH, generator=rng, dtype=torch.float64)
    styles = u @ torch.linalg.cholesky(covariance).t()
    expected = (styles @ vectors / values.sqrt()).flip(1)[:, :8]
    sign = torch.sign((expected * (u @ axes)).sum(dim=0))  # an eigenvector has no sign
    torch.testing.assert_close(u @ axes * sign, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_row_root_gives_the_correlation(correlation):
    root = ws_root(5, correlation)
    expected = torch.full((5, 5), correlation).fill_diagonal_(1.0)
    torch.testing.assert_close(root @ root.t(), expected, rtol=0, atol=1e-6)


def test_tied_rows_have_one_component():
    assert torch.equal(ws_root(4, 1.0), torch.ones(4, 1))


def test_curvature_of_a_linear_generator():
    """`M = B' B` seen through the components: blocks of `(R x I)' B' B (R x I)`."""
    prior, operator, _ = linear_problem()
    settings = LangevinSettings(probes=4000, noise_reach=0.0)
    found = measure_curvature(prior, identity, operator, 8, settings)
    root = ws_root(ROWS, settings.ws_correlation)
    jacobian = torch.einsum("pld,lb->bpd", prior.B.view(-1, ROWS, WIDTH), root)
    expected = jacobian.transpose(1, 2) @ jacobian
    blocks = found.vectors * found.values[:, None] @ found.vectors.transpose(1, 2)
    error = (blocks - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    # A Wishart matrix of 4000 draws and width 16 is off by about sqrt(17 / 4000) = 7 %.
    assert (error < 0.1).all()
    assert len(found.noise) == 0


def test_curvature_of_noise_is_that_of_its_stiffest_direction():
    """A map of side r that adds `s mean(map)` to 192 values: `192 s^2 / r^2`."""
    prior, operator = LinearPrior(noise_strength=0.5), make_operator("area", 8, 16)
    settings = LangevinSettings(probes=1000, noise_reach=1.0)
    found = measure_curvature(prior, identity, operator, 8, settings)
    expected = torch.tensor([192 * 0.25 / 16, 192 * 0.25 / 64, 192 * 0.25 / 64])
    torch.testing.assert_close(found.noise, expected, rtol=0.22, atol=0)  # 5 of sqrt(2 / 1000)


def test_sigma_of_an_input():
    """Uniform rounding by one 255th has variance 1 / 12 of its square; noise adds its own."""
    clean = input_sigma(make_operator("bicubic", 8, 16))
    assert clean == pytest.approx(1 / 255 / math.sqrt(12))
    noisy = input_sigma(make_operator("bicubic|noise:0.02", 8, 16))
    assert noisy == pytest.approx(math.hypot(clean, 0.02))
