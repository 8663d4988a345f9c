"""Losses, schedules and the latent space of a search: stored values of PULSE, and formulas."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pulse_sr.operators.base import psnr_of
from pulse_sr.priors.base import LatentStatistics
from pulse_sr.search.latents import diagonal_map, draw_noise, full_map, to_sphere_
from pulse_sr.search.losses import (
    FACE_COLOURS,
    colour_balance,
    geocross,
    linear_1cycle,
    linear_1cycle_drop,
    mean_square,
    mse_of,
)
from pulse_sr.search.pulse import PULSE_EPS

LOSSES = np.load(Path(__file__).parent / "data" / "pulse_losses.npz", allow_pickle=False)


def losses(name):
    return torch.from_numpy(LOSSES[name])


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


# losses, golden: values and gradients 1e-5 relative


@pytest.mark.parametrize(
    ("latent", "value"), [("latent", "geocross"), ("latent_near", "geocross_near")]
)
def test_geocross_is_the_original_one(latent, value):
    w = losses(latent).requires_grad_()
    total = geocross(w).sum()
    assert total.item() == pytest.approx(losses(value).item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(total, w)
    expected = losses(f"{value}_grad")
    assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_geocross_of_parallel_rows_is_nothing():
    assert geocross(losses("latent_tiled")).item() == pytest.approx(
        losses("geocross_tiled").item(), abs=1e-8
    )
    assert geocross(losses("latent")[:1, :1]).item() == pytest.approx(0, abs=1e-8)


def test_geocross_judges_every_sample_alone():
    w = losses("latent")
    assert torch.equal(geocross(w)[:1], geocross(w[:1]))


def test_mean_square_is_the_original_l2_before_its_clamp():
    """The original clamps each sample at eps and sums: image 2 lies below eps."""
    low = losses("gen_lr").requires_grad_()
    errors = mean_square(low - losses("ref_lr"))
    clamped = errors.clamp_min(losses("eps").item())
    for i in range(3):
        assert clamped[i].item() == pytest.approx(losses(f"l2_sample{i}").item(), rel=1e-5)
    assert clamped[2].item() == pytest.approx(PULSE_EPS)
    assert clamped.sum().item() == pytest.approx(losses("l2").item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(clamped.sum(), low)
    expected = losses("l2_grad")
    assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_colours_are_balanced_by_the_fourth_root_of_their_covariance():
    balance, covariance = colour_balance(), torch.tensor(FACE_COLOURS, dtype=torch.float64)
    torch.testing.assert_close(balance, balance.mT, rtol=0, atol=1e-14)
    product = torch.linalg.matrix_power(balance, 4) @ covariance
    torch.testing.assert_close(
        product, product.diagonal().mean() * torch.eye(3).double(), rtol=0, atol=1e-10
    )
    assert balance.square().sum().item() == pytest.approx(3)  # white residuals keep their square
    light, colour = (
        torch.ones(3).double() / 3**0.5,
        torch.tensor([1.0, -2.0, 1.0]).double() / 6**0.5,
    )
    assert (balance @ colour).norm() > 3 * (balance @ light).norm()


@pytest.mark.parametrize(
    ("schedule", "name"),
    [(linear_1cycle, "sched_linear1cycle"), (linear_1cycle_drop, "sched_linear1cycledrop")],
)
def test_schedules_are_the_original_ones(schedule, name):
    found = [schedule(step, 100) for step in range(101)]
    assert np.abs(np.array(found) - LOSSES[name]).max() < 1e-12


def test_psnr_and_its_inverse():
    assert psnr_of(torch.tensor([0.01, 1.0])).tolist() == pytest.approx([20, 0])
    assert psnr_of(torch.zeros(1)).item() == float("inf")
    assert mse_of(20) == pytest.approx(0.01)


# latent space


def statistics_of(width, seed=0):
    rng = torch.Generator().manual_seed(seed)
    matrix = torch.randn(width, width, generator=rng)
    covariance = matrix @ matrix.t() + torch.eye(width)
    mean = torch.randn(width, generator=rng)
    return LatentStatistics(
        mean, covariance.diagonal().sqrt(), torch.linalg.cholesky(covariance), 1
    )


def test_the_diagonal_map_is_its_formula():
    """Dimension by dimension: scale, shift, leaky ReLU of slope 0.2."""
    statistics = statistics_of(5)
    u = torch.randn(2, 3, 5, generator=generators(1)[0])
    w = diagonal_map(statistics)(u)
    for index in np.ndindex(2, 3, 5):
        v = u[index] * statistics.std[index[2]] + statistics.mean[index[2]]
        assert w[index].item() == pytest.approx((v if v > 0 else 0.2 * v).item(), abs=1e-6)


def test_the_full_map_is_its_formula():
    statistics = statistics_of(5)
    u = torch.randn(2, 3, 5, generator=generators(1)[0])
    w = full_map(statistics)(u)
    for index in np.ndindex(2, 3):
        v = statistics.cholesky @ u[index] + statistics.mean
        expected = torch.where(v > 0, v, 0.2 * v)
        assert (w[index] - expected).abs().max() < 1e-5


def test_the_maps_agree_where_nothing_is_correlated():
    statistics = statistics_of(5)
    statistics = LatentStatistics(statistics.mean, statistics.std, statistics.std.diag(), 1)
    u = torch.randn(2, 3, 5, generator=generators(1)[0])
    assert (diagonal_map(statistics)(u) - full_map(statistics)(u)).abs().max() < 1e-6


def test_noise_of_a_sample_comes_from_its_own_generator():
    together = draw_noise([(4, 4), (8, 8)], generators(1, 2))
    alone = draw_noise([(4, 4), (8, 8)], generators(2))
    assert [m.shape for m in together] == [(2, 1, 4, 4), (2, 1, 8, 8)]
    assert all(torch.equal(a[1], b[0]) for a, b in zip(together, alone, strict=True))


def test_to_sphere_scales_each_row_to_its_radius():
    x = torch.randn(2, 3, 5, generator=generators(0)[0])
    direction = F.normalize(x, dim=2)
    radii = torch.rand(2, 3, 1, generator=generators(1)[0]) + 1
    to_sphere_(x, radii)
    assert (x.norm(dim=2, keepdim=True) - radii).abs().max() < 1e-6
    assert (F.normalize(x, dim=2) - direction).abs().max() < 1e-6
