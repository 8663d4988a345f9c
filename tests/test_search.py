"""The search loop and its methods, against stored runs of PULSE and against known optima."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_priors import LinearPrior, SigmoidPrior, standard_statistics

from pulse_sr.operators import make_operator
from pulse_sr.priors.base import LatentStatistics
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
from pulse_sr.search.engine import Best, Last, search
from pulse_sr.search.latents import diagonal_map, draw_noise, full_map, radius, to_sphere_
from pulse_sr.search.losses import (
    cosine_1cycle,
    geocross,
    linear_1cycle,
    linear_1cycle_drop,
    mean_square,
    mse_of,
    psnr,
)
from pulse_sr.search.phased import Phased, PhasedSettings
from pulse_sr.search.pulse import EPS, Pulse

FOLDER = Path(__file__).parent / "data"
LOSSES = np.load(FOLDER / "pulse_losses.npz", allow_pickle=False)
TRAJECTORY = np.load(FOLDER / "pulse_trajectory.npz", allow_pickle=False)


def losses(name):
    return torch.from_numpy(LOSSES[name])


def trajectory(name):
    return torch.from_numpy(TRAJECTORY[name])


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
    errors = mean_square(low, losses("ref_lr"))
    clamped = errors.clamp_min(losses("eps").item())
    for i in range(3):
        assert clamped[i].item() == pytest.approx(losses(f"l2_sample{i}").item(), rel=1e-5)
    assert clamped[2].item() == pytest.approx(EPS)
    assert clamped.sum().item() == pytest.approx(losses("l2").item(), rel=1e-5)
    (gradient,) = torch.autograd.grad(clamped.sum(), low)
    expected = losses("l2_grad")
    assert (gradient - expected).abs().max() <= 1e-5 * expected.abs().max()


@pytest.mark.parametrize(
    ("schedule", "name"),
    [(linear_1cycle, "sched_linear1cycle"), (linear_1cycle_drop, "sched_linear1cycledrop")],
)
def test_schedules_are_the_original_ones(schedule, name):
    found = [schedule(step, 100) for step in range(101)]
    assert np.abs(np.array(found) - LOSSES[name]).max() < 1e-12


def test_cosine_1cycle_rises_over_a_tenth_and_falls_to_a_tenth():
    rates = [cosine_1cycle(step, 100) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == max(rates) == pytest.approx(1)
    assert rates[100] == pytest.approx(0.1)
    assert sorted(rates[:11]) == rates[:11]
    assert sorted(rates[10:], reverse=True) == rates[10:]
    assert cosine_1cycle(0, 1) == pytest.approx(0.5)


def test_psnr_and_its_inverse():
    assert psnr(torch.tensor([0.01, 1.0])).tolist() == pytest.approx([20, 0])
    assert psnr(torch.zeros(1)).item() == float("inf")
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


# PULSE, golden trajectories

TOLERANCE = {1: 2e-5, 2: 2e-5, 3: 2e-5, 5: 1e-4, 10: 1e-4, 20: 5e-4, 50: 5e-4, 100: 5e-4}


def golden_search(variant):
    """The stored problem; the fitted variant searches through PULSE's latent map."""
    width = TRAJECTORY["M"].shape[2]
    statistics, to_style, eps = standard_statistics(width), lambda u: u, 2e-3
    if variant == "fitted":
        cholesky = trajectory("fit_std").diag()
        statistics = LatentStatistics(trajectory("fit_mean"), trajectory("fit_std"), cholesky, 1)
        to_style, eps = diagonal_map(statistics), 1e-8
    prior = SigmoidPrior(trajectory("M"), statistics)
    method = Pulse(prior, to_style, trajectory("latent_init"), (), steps=100, eps=eps)
    best = Best(target_mse=0.0)
    operator = make_operator("bicubic", 8, 32)
    return method, best, search(method, operator, trajectory(f"{variant}_ref_lr"), best)


@pytest.mark.parametrize("variant", ["plain", "fitted"])
def test_pulse_follows_the_original_step_by_step(variant):
    """Latents to `TOLERANCE` absolute, loss curves 2e-5 relative, rates 1e-12."""
    method, _, records = golden_search(variant)
    curves = {"TOTAL": [], "L2": [], "GEOCROSS": []}
    latents, rates = {}, []
    for record in records:  # before the update: the state after `step` updates
        latents[record.step] = method.latent.detach().clone()
        if record.step == 1:
            expected = trajectory(f"{variant}_grad_step1")
            assert (method.latent.grad - expected).abs().max() <= 1e-4 * expected.abs().max()
        curves["TOTAL"].append(record.loss.sum().item())
        curves["L2"].append(record.mse.clamp_min(method.eps).sum().item())
        curves["GEOCROSS"].append(geocross(method.w).sum().item())
        rates.append(method.rates(record.step)[0])
    latents[100] = method.latent.detach()
    for step, tolerance in TOLERANCE.items():
        expected = trajectory(f"{variant}_latent_step{step}")
        assert (latents[step] - expected).abs().max() < tolerance, step
    for name, curve in curves.items():
        expected = TRAJECTORY[f"{variant}_loss_{name}"]
        assert curve == pytest.approx(expected, rel=2e-5), name
    assert np.abs(np.array(rates) - TRAJECTORY[f"{variant}_lr"]).max() < 1e-12


# the search in general

METHODS = ["pulse", "phased"]


def make(name, prior, seeds, steps, **settings):
    """A method with the identity as its latent map: linear priors stay linear."""
    if name == "pulse":
        method = Pulse.from_generators(prior, lambda u: u, generators(*seeds), steps)
        method.eps = settings.pop("eps", method.eps)
        return method
    settings = PhasedSettings(**settings) if settings else None
    return phased(prior, seeds, steps, settings)


def phased(prior, seeds, steps, settings=None):
    """The method from random rows, one per seed, in the style space itself."""
    rngs = generators(*seeds)
    row = torch.stack([torch.randn(prior.latent_dim, generator=g) for g in rngs])
    noise = draw_noise(prior.noise_shapes, rngs)
    return Phased(prior, lambda u: u, row, noise, 8, steps, settings)


def known_target(prior, seed=5):
    """The low-res image of tied rows on the sphere: both terms of the loss are zero there."""
    row = torch.randn(1, 1, prior.latent_dim, generator=generators(seed)[0])
    to_sphere_(row, torch.full((1, 1, 1), prior.latent_dim**0.5))
    w = row.expand(-1, prior.num_rows, -1)
    operator = make_operator("area", 8, prior.resolution)
    return w, operator, operator(prior.synthesize(w))


def on_known_spheres(method, prior):
    """PULSE keeps the radii it starts with: put it on the sphere of the optimum."""
    sphere = torch.full((1, 1, 1), prior.latent_dim**0.5)
    with torch.no_grad():
        to_sphere_(method.latent, sphere)
    method.radii[0] = radius(method.latent.detach(), 2)


@pytest.mark.parametrize("name", METHODS)
def test_a_linear_prior_is_solved_to_its_known_optimum(name):
    """At least 60 dB for each of three starts, and the styles of the target (1 % in the norm)."""
    prior = LinearPrior()
    w, operator, target = known_target(prior)
    method = make(name, prior, (1, 2, 3), 300, **({"eps": 0.0} if name == "pulse" else {}))
    if name == "pulse":
        on_known_spheres(method, prior)
    best = Best(target_mse=0.0)
    list(search(method, operator, target, best))
    assert psnr(best.mse).min() >= 60
    assert (method.to_style(method.latent) - w).norm() < 0.01 * 3**0.5 * w.norm()


def test_an_offset_reaches_what_the_rows_can_not():
    """A target off the range of B: rows alone stay below 30 dB, the offset exceeds 45."""
    prior = LinearPrior()
    _, operator, target = known_target(prior)
    rng = generators(9)[0]
    target = target + 0.05 * torch.randn(target.shape, generator=rng)
    found = {}
    for start in (0.5, 2.0):  # 2.0: never
        best = Best(target_mse=0.0)
        method = make("phased", prior, (1, 2), 300, offset_start=start)
        list(search(method, operator, target, best))
        found[start] = psnr(best.mse)
    assert found[2.0].max() < 30
    assert found[0.5].min() > 45


def run(name, seeds, steps=12, target_db=100.0, wanted=None, prior=None, **settings):
    prior = prior or LinearPrior(noise_strength=0.1)
    _, operator, target = known_target(prior)
    method = make(name, prior, seeds, steps, **settings)
    best = Best(mse_of(target_db))
    return method, best, search(method, operator, target, best, wanted)


@pytest.mark.parametrize("name", METHODS)
def test_the_spheres_hold_after_every_step(name):
    """Rows and trained noise maps stay on the spheres they start on, to 1e-5 relative."""
    method, _, records = run(name, (1, 2))
    variables = [method.latent, *method.trained]
    start = [radius(v.detach(), 2) for v in variables]
    for _ in records:
        for variable, radii in zip(variables, start, strict=True):
            assert (radius(variable.detach(), 2) / radii - 1).abs().max() < 1e-5
    if name == "phased":
        assert (start[0] - 16**0.5).abs().max() < 1e-5


@pytest.mark.parametrize("name", METHODS)
def test_every_variable_moves(name):
    method, _, records = run(name, (1, 2))
    before = [v.detach().clone() for v in method.variables()]
    list(records)
    assert all(not torch.equal(v, b) for v, b in zip(method.variables(), before, strict=True))


def test_pulse_trains_the_first_five_noise_maps_and_silences_the_last():
    method, _, records = run("pulse", (1, 2))
    before = [n.detach().clone() for n in method.noise]
    list(records)
    moved = [not torch.equal(n, b) for n, b in zip(method.noise, before, strict=True)]
    assert moved == [True] * 5 + [False] * 2
    assert method.noise[5].std() > 0.9
    assert method.noise[6].abs().max() == 0


def test_phased_trains_the_noise_maps_up_to_twice_the_input():
    method, _, _ = run("phased", (1, 2))
    assert [n.shape[-1] for n in method.trained] == [4, 8, 8, 16, 16]


def test_phased_starts_at_ordinary_samples_of_the_prior():
    method, _, _ = run("phased", (1, 2))
    assert torch.equal(method.latent, method.latent[:, :1].expand_as(method.latent))
    assert not torch.equal(method.latent[0], method.latent[1])


def test_the_offset_waits_for_its_phase_and_stays_in_its_ball():
    """A target far off pushes it to the border: RMS 0.05 there, never beyond (1e-5 relative)."""
    prior = LinearPrior()
    settings = PhasedSettings(offset_radius=0.05, offset_rate=0.05)
    method = phased(prior, (1, 2), 40, settings)
    operator = make_operator("area", 8, prior.resolution)
    largest = 0.0
    for record in search(method, operator, torch.full((1, 3, 8, 8), 3.0), Best(0.0)):
        rms = method.offset.detach().square().mean(dim=[1, 2, 3]).sqrt().max().item()
        assert rms <= 0.05 * (1 + 1e-5)
        assert (rms == 0) == (record.step <= 20)
        largest = max(largest, rms)
    assert largest == pytest.approx(0.05, rel=1e-4)


@pytest.mark.parametrize("name", METHODS)
def test_the_best_iterate_only_improves_and_is_what_was_seen(name):
    method, best, records = (
        run(name, (1, 2, 3), steps=30, eps=0.0)
        if name == "pulse"
        else run(name, (1, 2, 3), steps=30)
    )
    _, operator, target = known_target(LinearPrior(noise_strength=0.1))
    last = torch.full((3,), -torch.inf)
    for record in records:
        assert (record.best_db >= last).all()
        last = record.best_db
        seen = mean_square(operator(best.images), target)
        assert (psnr(seen) - record.best_db).abs().max() < 1e-3
        assert best.images.min() >= 0
        assert best.images.max() <= 1
    assert (last > 20).all()
    assert method.steps == 30


def test_a_frozen_sample_never_changes():
    _, best, records = run("phased", (1, 2, 3), steps=60, target_db=26.0)
    kept = {}
    for record in records:
        for i in range(3):
            if i in kept:
                assert record.frozen[i]
                assert torch.equal(best.images[i], kept[i][0])
                assert best.step[i] == kept[i][1]
            elif record.frozen[i]:
                assert record.best_db[i] >= 26
                kept[i] = best.images[i].clone(), best.step[i].clone()
    assert sorted(kept) == [0, 1, 2]
    assert len({step.item() for _, step in kept.values()}) > 1


def test_the_records_of_a_search_stay_as_they_were():
    """A record is what one step found: later steps do not write into it."""
    records = list(run("phased", (1, 2, 3), steps=60, target_db=26.0)[2])
    frozen = [record.frozen.sum().item() for record in records]
    assert frozen[0] == 0
    assert frozen[-1] == 3
    assert frozen == sorted(frozen)


def test_a_search_ends_when_all_samples_or_all_wanted_ones_are_frozen():
    every = list(run("phased", (1, 2, 3), steps=60, target_db=26.0)[2])
    assert every[-1].frozen.all()
    assert not every[-2].frozen.all()
    first = [min(r.step for r in every if r.frozen[i]) for i in range(3)]
    for i in range(3):
        wanted = torch.arange(3) == i
        steps = [r.step for r in run("phased", (1, 2, 3), 60, 26.0, wanted)[2]]
        assert steps == list(range(first[i] + 1))


def test_last_keeps_the_last_iterate():
    prior = LinearPrior()
    _, operator, target = known_target(prior)
    method, last = make("pulse", prior, (1, 2), 5), Last()
    images = []
    for record in search(method, operator, target, last):
        images.append(method.image(record.step).detach().clamp(0, 1))
        assert not record.frozen.any()
    assert torch.equal(last.images, images[-1])
    assert last.step.tolist() == [4, 4]


@pytest.fixture(scope="module")
def network():
    """A random StyleGAN2 of 16 px."""
    state = torch.get_rng_state()
    torch.manual_seed(0)
    generator = Generator(StyleGAN2Config(16, 16, 16, 2, (8, 8, 8)))
    for block in generator.synthesis.blocks:
        for layer in block.layers:
            torch.nn.init.constant_(layer.noise_strength, 0.1)
    torch.set_rng_state(state)
    return StyleGAN2Prior("random", generator, fit_statistics(generator, 2000))


@pytest.mark.parametrize("name", METHODS)
def test_a_sample_does_not_feel_its_batch_mates(network, name):
    """Bit for bit, in a real network: sample 7 beside others, and in another slot its start."""
    operator = make_operator("bicubic", 8, 16)
    target = operator(network.sample([99]))

    def images(seeds):
        if name == "pulse":
            to_style = diagonal_map(network.statistics)
            method = Pulse.from_generators(network, to_style, generators(*seeds), 8)
        else:
            to_style = full_map(network.statistics)
            method = Phased.from_generators(
                network, to_style, generators(*seeds), operator, target, 8, 8
            )
        best = Best(0.0)
        records = list(search(method, operator, target, best))
        return best.images, records[0].loss

    first, start = images((7, 1, 2))
    second, again = images((7, 8, 9))
    assert torch.equal(first[0], second[0])
    assert torch.equal(start[:1], again[:1])
    assert not torch.equal(first[1], second[1])
    assert torch.equal(images((5, 1, 2))[0][1], first[1])


def test_phased_starts_at_the_best_of_its_candidates():
    """Each sample takes the nearest to the input of K rows that its own generator draws."""
    prior = LinearPrior()
    _, operator, target = known_target(prior)
    errors = {}
    for starts in (1, 16):
        method = Phased.from_generators(
            prior,
            lambda u: u,
            generators(1, 2, 3),
            operator,
            target,
            8,
            settings=PhasedSettings(starts=starts),
        )
        low = operator(method.image(0).clamp(0, 1)).detach()
        errors[starts] = mean_square(low, target)
    rows = torch.randn(16, prior.latent_dim, generator=generators(2)[0])
    rows *= prior.latent_dim**0.5 / rows.norm(dim=1, keepdim=True)
    images = prior.synthesize(rows[:, None].expand(-1, prior.num_rows, -1))
    candidates = mean_square(operator(images.clamp(0, 1)), target)
    assert errors[16][1].item() == pytest.approx(candidates.min().item(), rel=1e-5)
    assert (errors[16] <= errors[1] + 1e-6).all()
    assert (errors[16] < errors[1]).any()
