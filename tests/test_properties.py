"""Laws of operators over random chains of the grammar, and of the search in random company."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_priors import random_stylegan2

from pulse_sr.errors import UsageError
from pulse_sr.operators.building import make_operator
from pulse_sr.operators.spec import KERNELS, parse_operator
from pulse_sr.priors.bank import draw_bank
from pulse_sr.search.methods import METHODS, Settings
from pulse_sr.search.phased import PhasedSettings
from pulse_sr.search.records import Observed
from pulse_sr.search.samples import search_samples

#: The same chains in every run; what a failure was is printed by hypothesis.
same = settings(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

sigmas = st.floats(0.3, 2.0).map(lambda sigma: f"gaussian:{sigma:.3g}")
blurs, some_blurs = (st.lists(sigmas, min_size=least, max_size=2) for least in (0, 1))
sides = st.tuples(st.integers(3, 7), st.integers(3, 7))
seeds = st.integers(0, 2**32 - 1)


@st.composite
def chains(draw, kernels=KERNELS, noisy=True):
    """Text, low-res size and high-res size of an operator that builds."""
    stages = [*draw(blurs), draw(st.sampled_from(kernels)), *draw(blurs)]
    if draw(st.booleans()):
        stages.insert(draw(st.integers(0, len(stages))), "gray")
    if noisy and draw(st.booleans()):
        stages.append(f"noise:{draw(st.floats(0.001, 0.2)):.3g}")
    if noisy and draw(st.booleans()):
        stages.append(f"jpeg:{draw(st.integers(1, 95))}")
    low, factor = draw(sides), draw(st.integers(2, 4))
    return "|".join(stages), low, tuple(side * factor for side in low)


def uniform(seed, *shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def same_within(found, expected, tolerance):
    """Largest deviation below `tolerance` times the largest value."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= tolerance * max(1.0, float(expected.abs().max()))


def built(chain):
    text, low, high = chain
    return make_operator(text, low, high)


@given(chains(), seeds)
@same
def test_adjoint(chain, seed):
    """<A x, y> = <x, A' y> to 1e-11 of the larger norms' product."""
    A = built(chain)
    x = uniform(seed, 2, 3, *chain[2])
    Ax = A.linear(x) - A.linear(torch.zeros_like(x))
    y = uniform(seed + 1, *Ax.shape)
    difference = (Ax * y).sum() - (x * A.adjoint(y)).sum()
    assert abs(difference) <= 1e-11 * float(x.norm() * y.norm())


@given(chains(noisy=False), seeds)
@same
def test_pseudo_inverse_and_projection(chain, seed):
    """A A+ y = y, A+ A A+ = A+, P P x = P x, A P x = y, all to 1e-6: A+ amplifies rounding."""
    A = built(chain)
    x = uniform(seed, 3, *chain[2])
    y = A(uniform(seed + 1, 3, *chain[2]))
    try:
        inverse = A.pinv(y)
    except UsageError:  # it blurs so much that there is no inverse
        assume(False)
    same_within(A(inverse), y, 1e-6)
    same_within(A.pinv(A(inverse)), inverse, 1e-6)
    once = A.project(x, y)
    same_within(A(once), y, 1e-6)
    same_within(A.project(once, y), once, 1e-6)
    # The least move: what is changed lies in the range of A', so it is its own A+ A.
    moved = once - x
    same_within(A.pinv(A(moved)), moved, 1e-6)


@given(chains(noisy=False), seeds, st.floats(1e-3, 10.0))
@same
def test_damped_inverse_satisfies_its_normal_equations(chain, seed, ratio):
    """x = A'(AA' + r I)^-1 y has A'(y - A x) = r x, to 1e-8."""
    A = built(chain)
    y = A(uniform(seed, 3, *chain[2]))
    x = A.damped_pinv(y, ratio)
    same_within(A.adjoint(y - A(x)), ratio * x, 1e-8)


@given(chains(noisy=False), some_blurs, seeds, st.booleans())
@same
def test_a_chain_is_its_parts_one_after_the_other(chain, more, seed, first):
    """(B | C) x = C(B x), where a part keeps the size, to 1e-10."""
    text, low, high = chain
    assume("gray" not in text)
    size, words = (high, [*more, text]) if first else (low, [text, *more])
    whole, rest = make_operator("|".join(words), low, high), built(chain)
    x = uniform(seed, 2, 3, *high)
    step_by_step = x if first else rest(x)
    for blur in more:
        step_by_step = make_operator(blur, size, size)(step_by_step)
    same_within(whole(x), rest(step_by_step) if first else step_by_step, 1e-10)


@given(chains())
@same
def test_the_canonical_text_means_the_same(chain):
    text, low, high = chain
    spec = parse_operator(f" {text.replace('|', ' | ')} ")
    assert parse_operator(spec.text) == spec
    x = uniform(0, 3, *high)
    assert torch.equal(make_operator(spec.text, low, high).linear(x), built(chain).linear(x))


NETWORK = random_stylegan2(0, noise_strength=0.1)
BANK = draw_bank(NETWORK, 32)
OPERATOR = make_operator("bicubic", 8, 32)


def observed(number, indices):
    y = OPERATOR(NETWORK.sample([900 + number])).clamp(0, 1)[0]
    return Observed(
        y=y,
        operator=OPERATOR,
        side=8,
        sha256=f"{number:064x}",
        indices=indices,
        target_db=12.0 + 4 * number,  # some leave early, so that slots are handed on
    )


def search(company, method, seed):
    """Images by input and index, of inputs that share three slots."""
    constants = PhasedSettings(share=8, candidates=4)
    chosen = Settings(method, False, 4, 60.0, 3, seed, constants)
    inputs = [observed(number, indices) for number, indices in company]
    ticks = list(search_samples(NETWORK, inputs, chosen, BANK))
    return {
        (int(each.job.observation.sha256, 16), each.job.index): each.image
        for tick in ticks
        for each in tick.found
    }


companies = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(0, 3), min_size=1, max_size=2, unique=True)),
    min_size=2,
    max_size=2,
    unique_by=lambda each: each[0],
)


@pytest.mark.parametrize("method", METHODS)
@given(company=companies, seed=st.integers(0, 2**31))
@settings(same, max_examples=3)
def test_a_sample_has_the_same_bytes_in_any_company(method, company, seed):
    together = search(company, method, seed)
    number, indices = company[-1]
    [alone] = search([(number, indices[-1:])], method, seed).values()
    assert torch.equal(together[number, indices[-1]], alone)
    reversed_company = [(number, indices[::-1]) for number, indices in company[::-1]]
    again = search(reversed_company, method, seed)
    assert together.keys() == again.keys()
    assert all(torch.equal(image, again[key]) for key, image in together.items())


def test_another_seed_is_another_search():
    """The comparison above can fail."""
    [first], [second] = (search([(0, [0])], "phased", seed).values() for seed in (0, 1))
    assert not torch.equal(first, second)
