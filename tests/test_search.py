"""The search loop and its methods, against known optima; starts are in test_seedbank.py."""

from __future__ import annotations

import pytest
import torch
from toy_priors import LinearPrior

from pulse_sr.operators.base import psnr_of
from pulse_sr.operators.building import make_operator
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
from pulse_sr.search.engine import Best, Last, search, started
from pulse_sr.search.latents import diagonal_map, draw_noise, full_map, radius, to_sphere_
from pulse_sr.search.losses import colour_balance, geocross, mean_square, mse_of
from pulse_sr.search.phased import Phased, PhasedSettings
from pulse_sr.search.pulse import Pulse


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


METHODS = ["pulse", "phased"]


def make(name, prior, seeds, steps, **settings):
    """A method with the identity as its latent map: linear priors stay linear."""
    if name == "pulse":
        method = Pulse.with_slots(prior, lambda u: u, len(seeds), steps)
        started(method, generators(*seeds), torch.empty(0))
        method.eps = settings.pop("eps", method.eps)
        return method
    settings = PhasedSettings(**settings) if settings else None
    return phased(prior, seeds, steps, settings)


def phased(prior, seeds, steps, settings=None):
    """The method from random rows, one per seed, in the style space itself."""
    rngs = generators(*seeds)
    rows = torch.stack([torch.randn(prior.latent_dim, generator=g) for g in rngs])
    noise = draw_noise(prior.noise_shapes, rngs)
    operator = make_operator("area", 8, prior.resolution)
    method = Phased(prior, lambda u: u, operator, 8, len(seeds), steps, settings)
    method.place(range(len(seeds)), rows, noise)
    return method


def known_target(prior, seed=5):
    """The low-res image of tied rows on the sphere: both terms of the loss are zero there."""
    row = torch.randn(1, 1, prior.latent_dim, generator=generators(seed)[0])
    to_sphere_(row, torch.full((1, 1, 1), prior.latent_dim**0.5))
    w = row.expand(-1, prior.num_ws, -1)
    operator = make_operator("area", 8, prior.resolution)
    return w, operator, operator(prior.synthesize(w))


def on_known_spheres(method, prior):
    """PULSE keeps the radii it starts with: put it on the sphere of the optimum."""
    sphere = torch.full((1, 1, 1), prior.latent_dim**0.5)
    with torch.no_grad():
        to_sphere_(method.latent, sphere)
    method.radii[0] = radius(method.latent.detach(), 2)


#: Settings with which the rows have time to get there before anything else explains the rest.
ROWS_ALONE = {"pulse": {"eps": 0.0}, "phased": {"delta_start": 0.5}}


@pytest.mark.parametrize("name", METHODS)
def test_a_linear_prior_is_solved_to_its_known_optimum(name):
    """At least 60 dB for each of three starts, and the styles of the target (1 % in the norm)."""
    prior = LinearPrior()
    w, operator, target = known_target(prior)
    method = make(name, prior, (1, 2, 3), 300, **ROWS_ALONE[name])
    if name == "pulse":
        on_known_spheres(method, prior)
    best = Best(target_mse=0.0)
    list(search(method, operator, target, best))
    assert psnr_of(best.mse).min() >= 60
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
        method = make("phased", prior, (1, 2), 300, delta_start=start)
        list(search(method, operator, target, best))
        found[start] = psnr_of(best.mse)
    assert found[2.0].max() < 30
    assert found[0.5].min() > 45


@pytest.mark.parametrize("spec", ["bicubic", "bicubic|gray", "gaussian:2|bicubic|noise:0.05"])
def test_phased_measures_a_residual_as_the_high_res_change_that_it_needs(spec):
    """Weighted by the operator's inverse root, damped more where it is noisy; colours balanced."""
    prior = LinearPrior()
    operator = make_operator(spec, 8, prior.resolution)
    method = Phased(prior, lambda u: u, operator, 8, 2)
    method.image([0, 0])
    white = torch.randn(2, 1 if "gray" in spec else 3, 8, 8, generator=generators(3)[0]).double()
    damping = 0.01 + (0.05**2 / 10**-2.5 if "noise" in spec else 0)
    expected = operator.whiten(white, damping * operator.gain)
    if expected.shape[1] == 3:
        expected = (colour_balance() @ expected.flatten(2)).view_as(expected)
    expected = 100 * expected.square().mean(dim=[1, 2, 3]) + 0.1 * geocross(method.w)
    torch.testing.assert_close(method.loss(white.float()), expected.float(), rtol=1e-4, atol=0)
    smooth = torch.ones(2, *white.shape[1:])  # the same square, but grey and without detail
    assert (method.loss(smooth) < 0.75 * method.loss(white.float())).all()


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
    settings = PhasedSettings(delta_radius=0.05, delta_rate=0.05, delta_start=0.5)
    method = phased(prior, (1, 2), 40, settings)
    operator = make_operator("area", 8, prior.resolution)
    largest = 0.0
    for record in search(method, operator, torch.full((1, 3, 8, 8), 3.0), Best(0.0)):
        rms = method.feature_delta.detach().square().mean(dim=[1, 2, 3]).sqrt().max().item()
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
        seen = mean_square(operator(best.images) - target)
        assert (psnr_of(seen) - record.best_db).abs().max() < 1e-3
        assert best.images.min() >= 0
        assert best.images.max() <= 1
    assert (last > 20).all()
    assert method.steps == 30


def test_a_frozen_sample_never_changes():
    _, best, records = run("phased", (1, 2, 3), steps=60, target_db=45.0)
    kept = {}
    for record in records:
        for i in range(3):
            if i in kept:
                assert record.frozen[i]
                assert torch.equal(best.images[i], kept[i][0])
                assert best.step[i] == kept[i][1]
            elif record.frozen[i]:
                assert record.best_db[i] >= 45
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
        images.append(method.image([record.step] * 2).detach().clamp(0, 1))
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
            method = Pulse.with_slots(network, to_style, len(seeds), 8)
        else:
            to_style = full_map(network.statistics)
            method = Phased(network, to_style, operator, 8, len(seeds), 8)
        started(method, generators(*seeds), target)
        best = Best(0.0)
        records = list(search(method, operator, target, best))
        return best.images, records[0].loss

    first, start = images((7, 1, 2))
    second, again = images((7, 8, 9))
    assert torch.equal(first[0], second[0])
    assert torch.equal(start[:1], again[:1])
    assert not torch.equal(first[1], second[1])
    assert torch.equal(images((5, 1, 2))[0][1], first[1])
