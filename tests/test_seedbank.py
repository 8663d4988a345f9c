"""Where searches start: the seed bank as an input sees it, and the points drawn without one."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from random_priors import random_stylegan2
from toy_priors import LinearPrior

from pulse_sr.operators.building import make_operator
from pulse_sr.priors.bank import draw_bank
from pulse_sr.priors.base import LatentStatistics, SeedBank, standard_normal
from pulse_sr.search import seedbank
from pulse_sr.search.engine import started
from pulse_sr.search.latents import full_map
from pulse_sr.search.losses import mean_square
from pulse_sr.search.methods import Settings
from pulse_sr.search.phased import Phased, PhasedSettings
from pulse_sr.search.records import Observed
from pulse_sr.search.samples import find_samples
from pulse_sr.search.seedbank import SeenBank, ShuffledBank, latent_of

pytestmark = pytest.mark.kernels

SHA256 = "0" * 64


def generators(*seeds):
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def low_res(prior, operator, seed):
    """The low-res image of the sample of a seed, `[1, 3, h, w]`."""
    return operator(prior.sample([seed]))


# how near the bank is to an input


def test_errors_are_those_of_the_thumbnails_through_the_operator():
    """At 16 px thumbnails are whole images; the operator is the mean over 2 x 2 pixels."""
    prior = LinearPrior()
    bank, operator = draw_bank(prior, 6), make_operator("area", 8, 16)
    target = low_res(prior, operator, 5)
    small = bank.thumbnails.double().view(6, 3, 8, 2, 8, 2).mean(dim=[3, 5]) / 255
    expected = (small - target.double()).square().mean(dim=[1, 2, 3])
    found = SeenBank(bank, operator, 16).errors(target)
    assert found.tolist() == pytest.approx(expected.tolist())


def test_errors_count_only_what_the_operator_observes():
    prior = LinearPrior()
    bank, whole = draw_bank(prior, 6), make_operator("area", 8, 16)
    operator = whole.observed((2, 6), (0, 8))
    target = low_res(prior, whole, 5)
    small = bank.thumbnails.double().view(6, 3, 8, 2, 8, 2).mean(dim=[3, 5]) / 255
    expected = (small - target.double())[:, :, 2:6].square().mean(dim=[1, 2, 3])
    found = SeenBank(bank, operator, 16).errors(target[:, :, 2:6])
    assert found.tolist() == pytest.approx(expected.tolist())


@pytest.fixture(scope="module")
def network():
    """A random StyleGAN2 of 32 px with mild colours."""
    return random_stylegan2(0, noise_strength=0.1)


@pytest.fixture(scope="module")
def bank(network):
    return draw_bank(network, 64)


OPERATORS = {
    "8 px": make_operator("bicubic", 8, 32),
    "16 px": make_operator("bicubic", 16, 32),
    "a part of the image": make_operator("bicubic", 8, 32).observed((0, 5), (1, 8)),
    "heavy blur": make_operator("gaussian:3.2", 8, 32),
    "no colour": make_operator("bicubic|gray", 8, 32),
    "a JPEG file": make_operator("bicubic|jpeg:70", 16, 32),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_the_nearest_thumbnail_is_that_of_the_input_itself(network, bank, name):
    """The input is a bank sample made low-res by the operator: all other samples are farther."""
    for index in (3, 40):
        target = low_res(network, OPERATORS[name], bank.first_seed + index)
        errors = SeenBank(bank, OPERATORS[name], 32).errors(target)
        assert errors.argmin().item() == index
        assert errors.isfinite().all()


@pytest.mark.parametrize("kept_bytes", [0, 2**26])
def test_one_input_after_the_other_is_compared_as_if_alone(network, bank, monkeypatch, kept_bytes):
    """Whether what the operator sees of the bank is kept for the next input, or seen again."""
    monkeypatch.setattr(seedbank, "_KEPT_BYTES", kept_bytes)
    operator = OPERATORS["8 px"]
    targets = [low_res(network, operator, seed) for seed in (1, 2)]
    seen = SeenBank(bank, operator, 32)
    for target in targets:
        assert torch.equal(seen.errors(target), SeenBank(bank, operator, 32).errors(target))


# latents


@pytest.mark.parametrize("slope", [0.2, 1.0])
def test_latent_of_is_the_inverse_of_the_full_map(slope):
    """To 1e-4 for well-conditioned covariances, both ways."""
    rng = generators(1)[0]
    factor = torch.randn(5, 5, generator=rng).tril()
    factor.diagonal().abs_().add_(1)
    mean = torch.randn(5, generator=rng)
    statistics = LatentStatistics(mean, factor.norm(dim=1), factor, 1, slope)
    u = torch.randn(7, 5, generator=rng)
    w = full_map(statistics)(u[:, None])[:, 0]
    assert (latent_of(statistics, w) - u).abs().max() < 1e-4
    assert (full_map(statistics)(latent_of(statistics, w)[:, None])[:, 0] - w).abs().max() < 1e-4


# shares


@pytest.fixture
def identity():
    """A prior whose styles are its latents, with statistics that say so."""
    prior = LinearPrior()
    prior.statistics = replace(prior.statistics, slope=1.0)
    return prior


def shuffled(prior, errors, seed=0, share=4):
    errors = torch.as_tensor(errors, dtype=torch.float32)
    thumbnails = torch.zeros(len(errors), 3, 16, 16, dtype=torch.uint8)
    return ShuffledBank(prior, SeedBank(500, thumbnails), errors, seed, share)


def seeds_of(bank, members, count):
    """The bank seeds of their candidates, of a prior whose styles are its latents."""
    known = {tuple(standard_normal(seed, (16,)).tolist()): seed for seed in range(500, 700)}
    return [[known[tuple(u.tolist())] for u in bank.candidates(m, count)] for m in members]


def test_the_shares_of_the_first_samples_have_nothing_in_common(identity):
    """Twelve in shares of four: three samples see each of them once, the nearest first."""
    errors = np.random.default_rng(0).permutation(12)
    shares = seeds_of(shuffled(identity, errors), range(3), 4)
    assert sorted(itertools.chain(*shares)) == list(range(500, 512))
    for share in shares:
        distances = [errors[seed - 500] for seed in share]
        assert distances == sorted(distances)


def test_samples_beyond_the_shares_take_what_is_next_nearest(identity):
    errors = np.random.default_rng(0).permutation(12)
    bank = shuffled(identity, errors)
    whole = seeds_of(bank, range(3), 4)
    for place in range(3):
        pairs = seeds_of(bank, [place, place + 3], 2)
        assert pairs == [whole[place][:2], whole[place][2:]]
        assert seeds_of(bank, [place + 6], 2) == [whole[place][:2]]


def test_another_seed_makes_other_shares(identity):
    errors = np.random.default_rng(0).permutation(40)
    first, again, other = (
        seeds_of(shuffled(identity, errors, seed), range(4), 2) for seed in (1, 1, 2)
    )
    assert first == again != other


def test_a_bank_smaller_than_a_share_is_one_share(identity):
    bank = shuffled(identity, [3.0, 1.0, 2.0], share=128)
    first, second = seeds_of(bank, [0, 1], 8)
    assert first == [501, 502, 500]
    assert sorted(second) == sorted(first)


def test_candidates_are_the_samples_of_the_bank(network, bank):
    """Through the latent map they are the styles of their seeds, to 1e-3 of their size."""
    shuffled = ShuffledBank(network, bank, torch.arange(64.0), 0, 64)
    w = full_map(network.statistics)(shuffled.candidates(0, 3)[None])[0]
    expected = network.map(bank.latents(torch.tensor([0, 1, 2]), 16))
    assert (w - expected).norm() < 1e-3 * expected.norm()


# the starts of a search


def test_phased_starts_at_the_best_of_its_random_points():
    """Each sample takes the nearest to the input of K rows that its own generator draws."""
    prior = LinearPrior()
    operator = make_operator("area", 8, 16)
    target = low_res(prior, operator, 5)
    errors = {}
    for starts in (1, 16):
        settings = PhasedSettings(starts=starts)
        method = Phased(prior, lambda u: u, operator, 8, 3, settings=settings)
        started(method, generators(1, 2, 3), target)
        errors[starts] = mean_square(operator(method.image([0] * 3).clamp(0, 1)).detach() - target)
    rows = torch.randn(16, prior.latent_dim, generator=generators(2)[0])
    rows *= prior.latent_dim**0.5 / rows.norm(dim=1, keepdim=True)
    images = prior.synthesize(rows[:, None].expand(-1, prior.num_ws, -1))
    candidates = mean_square(operator(images.clamp(0, 1)) - target)
    assert errors[16][1].item() == pytest.approx(candidates.min().item(), rel=1e-5)
    assert (errors[16] <= errors[1] + 1e-6).all()
    assert (errors[16] < errors[1]).any()


def test_phased_starts_at_the_best_of_its_candidates():
    """The start of sample s is its candidate with the least low-res error, on the sphere."""
    prior = LinearPrior()
    operator = make_operator("area", 8, 16)
    target = low_res(prior, operator, 5)
    points = torch.randn(2, 6, 16, generator=generators(4)[0])
    points *= 4 / points.norm(dim=2, keepdim=True)
    images = prior.synthesize(points.view(12, 1, 16).expand(-1, prior.num_ws, -1))
    best = mean_square(operator(images) - target).view(2, 6).argmin(dim=1)
    method = Phased(prior, lambda u: u, operator, 8, 2)
    started(method, generators(1, 2), target, points.clone())
    for sample in range(2):
        expected = points[sample, best[sample]]
        assert (method.latent[sample] - expected).abs().max() < 1e-5


def find(prior, indices, bank, seed=0, method="phased", steps=6):
    operator = make_operator("bicubic", 8, 32)
    target = low_res(prior, operator, 99)[0]
    constants = PhasedSettings(share=8, candidates=2)
    settings = Settings(method, False, steps, 60.0, 2, seed, constants)
    given = Observed(y=target, operator=operator, side=8, sha256=SHA256, indices=indices)
    return {each.job.index: each.image for each in find_samples(prior, given, settings, bank)}


def test_a_sample_from_the_bank_does_not_depend_on_what_is_asked_for_with_it(network, bank):
    """Bit for bit: four samples, then six, then one alone."""
    four, six = find(network, range(4), bank), find(network, range(6), bank)
    assert all(torch.equal(four[i], six[i]) for i in range(4))
    assert torch.equal(find(network, [5], bank)[5], six[5])
    images = list(six.values())
    assert all(not torch.equal(a, b) for i, a in enumerate(images) for b in images[:i])


def test_another_seed_starts_elsewhere(network, bank):
    """After one step the best iterate is the start itself."""
    first, other = (find(network, range(4), bank, seed, steps=1) for seed in (0, 1))
    assert all(not torch.equal(a, b) for a in first.values() for b in other.values())


def test_the_bank_starts_nearer_than_one_random_point_and_is_for_phased_alone(network, bank):
    operator = make_operator("bicubic", 8, 32)
    target = low_res(network, operator, 99)

    def error(found):
        return mean_square(operator(torch.stack(list(found.values()))) - target)

    near = error(find(network, range(4), bank, steps=1))
    nothing = error({i: network.sample([1000 + i])[0] for i in range(64)})
    assert near.max() < nothing.median()
    pulse = [find(network, range(2), each, method="pulse") for each in (bank, None)]
    assert all(torch.equal(pulse[0][i], pulse[1][i]) for i in range(2))
