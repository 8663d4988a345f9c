"""Intermediate layer optimisation and its l1 ball, against closed forms and known optima."""

from __future__ import annotations

import pytest
import torch
from toy_priors import LinearPrior

from pulse_sr.operators.building import make_operator
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
from pulse_sr.search.engine import Best, Start, search
from pulse_sr.search.ilo import Ilo, IloSettings, feature_sides, ramp, stage_ends
from pulse_sr.search.l1_ball import project_l1
from pulse_sr.search.losses import mse_of


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def make(prior, seeds, steps, settings=None):
    """Samples of these seeds, with the identity as latent map: linear priors stay linear."""
    method = Ilo(prior, lambda u: u, len(seeds), steps, settings)
    target = torch.zeros(1, 3, 8, 8)
    method.start(range(len(seeds)), [Start(rng, target) for rng in generators(*seeds)])
    return method


def by_bisection(x, radius):
    """The same projection from its optimality condition: one float64 threshold, by bisection."""
    size = x.double().abs()
    if size.sum() <= radius:
        return x.double()
    low, high = 0.0, float(size.max())
    for _ in range(200):
        middle = (low + high) / 2
        above = float((size - middle).clamp_min(0).sum()) > radius
        low, high = (middle, high) if above else (low, middle)
    return torch.sign(x) * (size - low).clamp_min(0)


@pytest.mark.parametrize(
    ("x", "radius", "expected"),
    [
        ([3.0, 1.0], 2.0, [2.0, 0.0]),
        ([3.0, -2.0], 3.0, [2.0, -1.0]),
        ([-1.0, 1.0, 1.0, 1.0], 2.0, [-0.5, 0.5, 0.5, 0.5]),
        ([0.25, -0.5], 1.0, [0.25, -0.5]),
    ],
)
def test_projection_of_vectors_by_hand(x, radius, expected):
    found = project_l1(torch.tensor([x]), radius)
    torch.testing.assert_close(found, torch.tensor([expected]))


@pytest.mark.parametrize("radius", [0.1, 5.0, 40.0, 1000.0])
def test_projection_meets_its_optimality_condition(radius):
    x = torch.randn(4, 3, 5, 5, generator=generators(0)[0])
    x *= torch.tensor([0.1, 1.0, 3.0, 9.0]).view(4, 1, 1, 1)
    found = project_l1(x, radius)
    expected = torch.stack([by_bisection(each, radius) for each in x])
    # float32 sums of 75 values up to 30
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    assert project_l1(x.double(), radius) == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_samples_are_projected_apart():
    x = torch.randn(3, 20, generator=generators(1)[0])
    alone = torch.cat([project_l1(x[i : i + 1], 2.0) for i in range(3)])
    assert torch.equal(project_l1(x, 2.0), alone)


def test_published_stages():
    assert stage_ends(150, 4) == [50, 100, 125, 150]
    assert stage_ends(300, 4) == [100, 200, 250, 300]
    assert stage_ends(60, 2) == [30, 60]
    assert ramp(0.05) == 1.0
    assert ramp(0.025) == 0.5
    assert ramp(0.25) == pytest.approx(1.0)
    assert ramp(0.625) == pytest.approx(0.5)
    assert ramp(1.0) == 0.0


@pytest.fixture(scope="module")
def face_prior():
    state = torch.get_rng_state()
    torch.manual_seed(3)
    config = StyleGAN2Config(32, z_dim=16, w_dim=16, mapping_layers=2, channels=(8, 8, 8, 8))
    generator = Generator(config)
    torch.set_rng_state(state)
    return StyleGAN2Prior("tiny", generator, fit_statistics(generator, 500))


def test_what_moves_in_which_stage(face_prior):
    """Noise maps have sides 4, 8, 8, 16, 16, 32, 32."""
    method = make(face_prior, [0], 150)
    assert feature_sides(face_prior) == [4, 8, 16, 32]
    assert method.sides == [4, 8, 16]
    moving = {
        0: [1, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0],
        60: [0, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1],
        110: [0, 0, 1, 0, 0, 0, 0, 1, 1, 1, 1],
        140: [0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 1],
    }
    for step, expected in moving.items():
        assert [int(rate > 0) for rate in method.rates(step)] == expected
    assert len(method.variables()) == len(method.rates(0))


def test_maps_below_the_moving_one_rest_and_balls_hold(face_prior):
    operator = make_operator("area", 8, 32)
    settings = IloSettings(ball=0.01)
    method = make(face_prior, [0, 1], 24, settings)
    target, rows = torch.rand(1, 3, 8, 8, generator=generators(5)[0]), None
    for record in search(method, operator, target, Best(0.0)):
        if record.step == method.ends[0]:
            rows = method.latent.detach().clone()
        for feature_delta in method.feature_deltas:
            assert (feature_delta.flatten(1).abs().mean(dim=1) <= 0.01 * (1 + 1e-5)).all()
    assert torch.allclose(method.latent, rows, rtol=1e-5)  # its sphere is met anew: last bits
    assert all(bool((feature_delta != 0).any()) for feature_delta in method.feature_deltas)


def test_an_offset_reaches_what_rows_can_not():
    """Targets beyond the rows' range by a map inside the ball: the optimum is zero error."""
    prior, operator = LinearPrior(), make_operator("area", 8, 16)
    away = 0.02 * torch.randn(1, 3, 8, 8, generator=generators(7)[0])
    w = torch.randn(1, 3, 16, generator=generators(8)[0])
    target = operator(prior.synthesize(w)) + away
    errors = {}
    for ball in (1e-6, 1.0):
        best = Best(mse_of(80))
        settings = IloSettings(rate=0.02, tie=0.0, ball=ball)
        for _ in search(make(prior, [1, 2], 200, settings), operator, target, best):
            pass
        errors[ball] = best.mse
    assert (errors[1e-6] > mse_of(45)).all()
    assert (errors[1.0] < mse_of(60)).all()


def test_same_seed_same_bits(face_prior):
    operator = make_operator("area", 8, 32)
    target = torch.rand(1, 3, 8, 8, generator=generators(5)[0])
    images = []
    for seeds in ((1, 2), (1, 9)):
        best = Best(0.0)
        method = make(face_prior, seeds, 12)
        for _ in search(method, operator, target, best):
            pass
        images.append(best.images)
    assert torch.equal(images[0][0], images[1][0])
    assert not torch.equal(images[0][1], images[1][1])


def test_a_slot_starts_as_if_it_were_new(face_prior):
    operator, best = make_operator("area", 8, 32), Best(0.0)
    target = torch.rand(1, 3, 8, 8, generator=generators(5)[0])
    used, fresh = make(face_prior, [1, 2], 12), make(face_prior, [1, 3], 12)
    for _ in search(used, operator, target, best):
        pass
    used.start([1], [Start(generators(3)[0], target)])
    for old, new in zip(
        used.variables() + used.radii, fresh.variables() + fresh.radii, strict=True
    ):
        assert torch.equal(old[1], new[1])
