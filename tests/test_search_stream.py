"""Samples of many inputs in one stream of slots: who they share it with changes nothing."""

from __future__ import annotations

import copy
import itertools
import logging
import weakref

import pytest
import torch
from random_priors import random_stylegan2

from pulse_sr.errors import InputError, SetupError
from pulse_sr.operators.building import make_operator
from pulse_sr.priors.bank import draw_bank
from pulse_sr.search import samples as samples_module
from pulse_sr.search.adam import SlotAdam
from pulse_sr.search.capacity import automatic_slots, slots_within
from pulse_sr.search.engine import Start
from pulse_sr.search.losses import mean_square
from pulse_sr.search.methods import METHODS, Settings
from pulse_sr.search.phased import PhasedSettings
from pulse_sr.search.records import Observed, SampleJob
from pulse_sr.search.samples import check_found, find_samples, search_samples
from pulse_sr.search.stream import RESTARTS, stream

pytestmark = pytest.mark.kernels

STEPS = 10


@pytest.fixture(scope="module")
def network():
    """A random StyleGAN2 of 32 px with mild colours."""
    return random_stylegan2(0, noise_strength=0.1)


@pytest.fixture(scope="module")
def bank(network):
    return draw_bank(network, 64)


OPERATORS = {side: make_operator("bicubic", side, 32) for side in (8, 16)}


def observed(network, name, indices, side=8, target_db=60.0):
    """An input whose content follows from its name."""
    y = OPERATORS[side](network.sample([900 + ord(name)])).clamp(0, 1)[0]
    return Observed(
        y=y,
        operator=OPERATORS[side],
        side=side,
        sha256=name * 64,
        indices=indices,
        target_db=target_db,
    )


def name_of(each):
    """Of the input of what was found or is running."""
    return each.job.observation.sha256[0]


def settings(method="phased", slots=3):
    constants = PhasedSettings(share=8, candidates=4)
    return Settings(method, False, STEPS, 60.0, slots, 0, constants)


def collect(ticks):
    """What left the slots, by the name of the input and the index."""
    found = {}
    for tick in ticks:
        for each in tick.found:
            found[name_of(each), each.job.index] = each
    return found


def images(found):
    return {key: each.image for key, each in found.items()}


@pytest.mark.parametrize("method", METHODS)
def test_a_sample_is_the_same_in_any_company_order_and_slot(network, bank, method):
    """Bit for bit: alone, in two orders, with others that leave at other times."""
    # Targets at which some samples leave early, so that slots are handed on at odd moments.
    wanted = {"a": (range(4), 60.0), "b": (range(2), 14.0), "c": ([1, 5], 18.0)}

    def run(names):
        made = [observed(network, n, wanted[n][0], target_db=wanted[n][1]) for n in names]
        return collect(search_samples(network, made, settings(method), bank))

    first, second = run("abc"), run("cba")
    assert len(first) == 8
    # A sampler takes all its steps.
    assert (len({each.steps for each in first.values()}) > 1) == (method != "langevin")
    for key, image in images(first).items():
        assert torch.equal(image, second[key].image), key
    for name, index in (("a", 3), ("b", 0), ("c", 5)):
        alone = observed(network, name, [index], target_db=wanted[name][1])
        [(_, found)] = collect(search_samples(network, [alone], settings(method), bank)).items()
        assert torch.equal(found.image, first[name, index].image), (name, index)
    pairs = itertools.combinations(images(first).values(), 2)
    assert all(not torch.equal(a, b) for a, b in pairs)


def test_the_stream_finds_what_one_input_finds_alone(network, bank):
    made = [observed(network, name, range(2)) for name in "ab"]
    together = collect(search_samples(network, made, settings(), bank))
    for each in made:
        for found in find_samples(network, each, settings(), bank):
            image = together[name_of(found), found.job.index].image
            assert torch.equal(found.image, image)


def test_slots_are_handed_on_at_once(network):
    """Two slots, five samples: whoever leaves makes room in the very next step."""
    made = [observed(network, name, [0], target_db=1.0) for name in "abcde"]
    seen = [
        [name_of(each) for each in tick.running]
        for tick in search_samples(network, made, settings(slots=2))
    ]
    assert [sorted(names) for names in seen] == [["a", "b"], ["c", "d"], ["e"]]


def test_inputs_are_taken_when_a_slot_asks_for_them(network):
    taken = []

    def lazily():
        for name in "abcd":
            taken.append(name)
            yield observed(network, name, [0])

    ticks = search_samples(network, lazily(), settings(slots=2))
    next(ticks)
    assert taken == ["a", "b"]
    assert len(collect(ticks)) == 4
    assert taken == list("abcd")


def test_what_is_done_is_not_kept(network):
    """No reference to an input is left once its samples have come out."""
    kept = []

    def lazily():
        for name in "abcdef":
            made = observed(network, name, [0], target_db=1.0)
            kept.append(weakref.ref(made))
            yield made
            del made

    ticks = search_samples(network, lazily(), settings(slots=1))
    for _ in range(6):
        next(ticks)
    assert sum(each() is not None for each in kept) <= 3


def test_another_group_begins_when_the_one_before_is_done(network):
    made = [
        observed(network, "a", [0]),
        observed(network, "b", [0], side=16),
        observed(network, "c", [0]),
    ]
    alone = [collect(search_samples(network, [each], settings())) for each in made]
    seen = [
        {name_of(each) for each in tick.running}
        for tick in search_samples(network, made, settings())
    ]
    assert seen == [{"a"}] * STEPS + [{"b"}] * STEPS + [{"c"}] * STEPS
    together = collect(search_samples(network, made, settings()))
    for found in alone:
        [(key, each)] = found.items()
        assert torch.equal(each.image, together[key].image)


class Scripted:
    """A method on one number a slot: its image is that number everywhere, drawn by the start."""

    static = False
    optimiser = SlotAdam

    def __init__(self, slots, steps, fails):
        self.steps, self.fails = steps, fails
        self.value = torch.zeros(slots, 1, requires_grad=True)
        self.failing = [False] * slots

    def variables(self):
        return [self.value]

    def start(self, slots, starts):
        with torch.no_grad():
            for slot, start in zip(slots, starts, strict=True):
                draw = torch.rand(1, generator=start.generator)
                self.value[slot] = draw
                self.failing[slot] = start.generator.initial_seed() in self.fails

    def rates(self, step):
        return [0.01]

    def image(self, steps_taken):
        pairs = zip(self.failing, steps_taken, strict=True)
        bad = torch.tensor([torch.nan if f and step >= 2 else 0.0 for f, step in pairs])
        return (self.value + bad[:, None])[:, :, None, None].expand(-1, 3, 8, 8)

    def loss(self, residual):
        return mean_square(residual)

    def constrain(self, steps_taken):
        pass


def scripted_jobs(count, attempts):
    """Job k begins with the seed 10 k + its attempt."""

    def start(k, attempt):
        attempts.append((k, attempt))
        return Start(torch.Generator().manual_seed(10 * k + attempt), torch.zeros(1, 3, 4, 4))

    y = torch.zeros(3, 4, 4)
    operator = make_operator("area", 4, 8)
    given = Observed(y=y, operator=operator, side=4, sha256="", indices=range(count))
    for k in range(count):
        yield SampleJob(given, k, 10 * k, y[None], 0.0, lambda attempt, k=k: start(k, attempt))


def run_scripted(fails, count=4, slots=2, steps=5):
    attempts, found = [], {}
    method = Scripted(slots, steps, fails)
    operator = make_operator("area", 4, 8)
    for tick in stream(method, operator, scripted_jobs(count, attempts)):
        found |= {each.job.index: each for each in tick.found}
    return found, attempts


def test_a_loss_that_is_not_finite_starts_the_sample_again(network):
    """From another start, that of its next attempt; the others do not notice."""
    fine, _ = run_scripted(fails=())
    found, attempts = run_scripted(fails=(10,))
    assert attempts == [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0)]
    assert [found[k].restarts for k in range(4)] == [0, 1, 0, 0]
    for k in (0, 2, 3):
        assert torch.equal(found[k].image, fine[k].image)
    first = torch.rand(1, generator=torch.Generator().manual_seed(10))
    assert found[1].image is not None
    assert found[1].image.isfinite().all()
    # The best of both attempts counts, and the first had two good steps.
    assert found[1].image.max() <= first.item()


def test_a_sample_that_always_fails_keeps_what_was_good():
    fails = [10 + attempt for attempt in range(RESTARTS + 1)]
    found, attempts = run_scripted(fails)
    assert [attempt for k, attempt in attempts if k == 1] == list(range(RESTARTS + 1))
    assert found[1].restarts == RESTARTS
    assert found[1].image.isfinite().all()
    assert len(found) == 4


def test_a_search_without_a_finite_image_says_so(network):
    bias = network.generator.synthesis.b32.torgb.bias
    kept = bias.detach().clone()
    with torch.no_grad():
        bias.fill_(float("nan"))
    try:
        found = collect(search_samples(network, [observed(network, "a", [0, 4])], settings()))
    finally:
        with torch.no_grad():
            bias.copy_(kept)
    assert {each.restarts for each in found.values()} == {RESTARTS}
    with pytest.raises(InputError, match=r"no finite image for the samples \[0, 4\]"):
        check_found(found.values())


def forgetful(most, made):
    """The method "phased" on a machine whose memory ends at `most` slots, in its third step."""
    original = METHODS["phased"]

    def make(prior, operator, low_side, chosen):
        method = original(prior, operator, low_side, chosen)
        made.append(chosen.slots)
        image = method.image

        def limited(steps_taken):
            if chosen.slots > most and max(steps_taken) == 2:
                raise torch.OutOfMemoryError("out of memory")
            return image(steps_taken)

        method.image = limited
        return method

    return make


def test_out_of_memory_halves_the_slots_and_goes_on(network, bank, monkeypatch, caplog):
    """What comes out is what the smaller number of slots finds from the start."""
    made = [observed(network, name, range(3)) for name in "ab"]
    expected = collect(search_samples(network, made, settings(slots=2), bank))
    numbers = []
    monkeypatch.setitem(samples_module.METHODS, "phased", forgetful(2, numbers))
    with caplog.at_level(logging.WARNING):
        ticks = list(search_samples(network, made, settings(slots=8), bank))
    assert numbers == [8, 4, 2]
    assert {tick.slots for tick in ticks if tick.found} == {2}
    assert "going on with 2" in caplog.text
    found = collect(ticks)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key].image, expected[key].image) for key in found)


def test_out_of_memory_with_one_slot_ends_the_run(network, monkeypatch):
    monkeypatch.setitem(samples_module.METHODS, "phased", forgetful(0, []))
    with pytest.raises(SetupError, match="out of memory"):
        list(search_samples(network, [observed(network, "a", [0])], settings(slots=2)))


@pytest.mark.parametrize(
    ("memory", "each", "samples", "slots"),
    [
        (1000, 10, None, 64),  # 100 fit, 64 is the most
        (400, 10, None, 32),
        (1000, 10, 8, 8),  # no more than there is work for
        (1000, 10, 20, 32),
        (50, 10, None, 4),  # not even 8 fit
        (5, 10, None, 1),
    ],
)
def test_slots_fill_the_memory_and_no_more_than_the_work(memory, each, samples, slots):
    assert slots_within(memory, each, samples) == slots


def replace_resolution(prior, resolution):
    """A view of a prior that says to be of another resolution."""
    view = copy.copy(prior)
    view.resolution = resolution
    return view


def test_a_cpu_has_a_fixed_number_of_slots(network):
    assert automatic_slots(network, 1) == automatic_slots(network, 1000) == 8
    sides = {256: 8, 512: 2, 1024: 1, 2048: 1}
    assert {r: automatic_slots(replace_resolution(network, r)) for r in sides} == sides
