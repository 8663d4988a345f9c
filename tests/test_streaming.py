"""Many inputs at a time: projecting and measuring go on beside the search.

Their results are those of a single search (tests/test_api.py).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import numpy as np
import pytest
from PIL import Image
from random_priors import random_stylegan2
from test_background import wait_until

from pulse_sr.config import SearchConfig
from pulse_sr.errors import SetupError
from pulse_sr.images.read import read_image
from pulse_sr.inversion import stream as streaming
from pulse_sr.inversion.result import Result
from pulse_sr.operators.degrading import degrade

STEPS = 4
CONFIG = SearchConfig(steps=STEPS, batch=2)


@pytest.fixture(scope="module")
def prior():
    """A StyleGAN2 of 32 px with random weights."""
    return random_stylegan2(5, name="tiny", sha256="5" * 64)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, prior):
    """Three inputs of 8 px that the prior can explain."""
    folder, paths = tmp_path_factory.mktemp("inputs"), []
    for k in range(3):
        pixels = (prior.sample([77 + k])[0].numpy() * 255).round().astype(np.uint8)
        paths.append(folder / f"{k}.png")
        Image.fromarray(degrade(pixels, "bicubic", 4).transpose(1, 2, 0)).save(paths[-1])
    return paths


@pytest.fixture
def before_projecting(monkeypatch):
    """A function that has another one called with the input before each sample is projected."""
    real = streaming.finish

    def install(call):
        def finish(found, observation):
            call(observation)
            return real(found, observation)

        monkeypatch.setattr(streaming, "finish", finish)

    return install


@dataclass(frozen=True, eq=False, kw_only=True)
class Numbered(streaming.Request):
    tag: int


def requests_of(paths):
    for k, path in enumerate(paths):
        yield Numbered(read_image(path), range(2), tag=k)


def is_of(observation, path):
    return np.array_equal(observation.pixels, read_image(path).pixels)


def projecting():
    return [each for each in threading.enumerate() if each.name.startswith("project")]


def test_the_search_goes_on_while_a_sample_is_projected(inputs, prior, before_projecting):
    """The first sample that is done waits for a step of the next input; all come, in order."""
    steps_of, waited = {0: 0, 1: 0, 2: 0}, []

    def wait_for_the_next(observation):
        if not waited:
            waited.append(is_of(observation, inputs[0]))
            wait_until(lambda: steps_of[1] >= 2)

    def count(request, step):
        steps_of[request.tag] += 1

    before_projecting(wait_for_the_next)
    stream = streaming.search_images(requests_of(inputs), prior, CONFIG, count)
    outcomes = [(request.tag, outcome) for request, outcome in stream]
    assert waited == [True]
    assert [tag for tag, _ in outcomes] == [0, 1, 2]
    # An input that only has to be projected is reported no more.
    assert steps_of == {0: STEPS, 1: STEPS, 2: STEPS}
    for _, result in outcomes:
        assert [sample.index for sample in result.samples_list] == [0, 1]
        assert result.timing["project_s"] > 0
    assert not projecting()


def test_an_error_of_a_projection_stays_with_its_input(inputs, prior, before_projecting):
    def fail(observation):
        if is_of(observation, inputs[1]):
            raise RuntimeError("no projection")

    before_projecting(fail)
    stream = streaming.search_images(requests_of(inputs), prior, CONFIG)
    outcomes = {request.tag: outcome for request, outcome in stream}
    assert isinstance(outcomes[0], Result)
    assert isinstance(outcomes[2], Result)
    assert str(outcomes[1]) == "no projection"


def test_an_error_ends_the_inputs_of_its_group_alone(inputs, prior, tmp_path):
    """Free slots have asked for the next input already, which is of another size."""
    larger = tmp_path / "larger.png"
    Image.open(inputs[2]).resize((16, 16)).save(larger)

    def fail(request, step):
        if request.tag == 0:
            raise RuntimeError("no search")

    config = SearchConfig(steps=STEPS, batch=6)
    paths = [*inputs[:2], larger, inputs[2]]
    stream = streaming.search_images(requests_of(paths), prior, config, fail)
    outcomes = {request.tag: outcome for request, outcome in stream}
    assert [str(outcomes[tag]) for tag in (0, 1)] == ["no search"] * 2
    assert [outcomes[tag].observation.side for tag in (2, 3)] == [16, 8]


def test_what_was_searched_comes_before_the_error_that_ends_the_stream(
    inputs, prior, before_projecting
):
    """The requests end in an error while the first input has only to be projected."""
    gate = threading.Event()
    before_projecting(lambda observation: gate.wait(10))

    def requests():
        yield next(requests_of(inputs))
        threading.Timer(0.05, gate.set).start()
        raise SetupError("the device is gone")

    stream = streaming.search_images(requests(), prior, CONFIG)
    request, outcome = next(stream)
    assert (request.tag, isinstance(outcome, Result)) == (0, True)
    with pytest.raises(SetupError, match="the device is gone"):
        next(stream)
    assert not projecting()


def test_a_stream_that_is_closed_or_interrupted_leaves_no_thread(inputs, prior):
    stream = streaming.search_images(requests_of(inputs), prior, CONFIG)
    next(stream)
    assert projecting()
    stream.close()
    assert not projecting()

    def interrupt(request, step):
        if request.tag == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(streaming.search_images(requests_of(inputs), prior, CONFIG, interrupt))
    assert not projecting()


def test_no_more_samples_wait_to_be_projected_than_there_are_slots(
    inputs, prior, before_projecting
):
    """With two slots and no projection done, the search stops at the third sample."""
    gate, steps_of, outcomes = threading.Event(), {0: 0, 1: 0, 2: 0}, []

    def count(request, step):
        steps_of[request.tag] += 1

    before_projecting(lambda observation: gate.wait(10))
    stream = streaming.search_images(requests_of(inputs), prior, CONFIG, count)
    caller = threading.Thread(target=lambda: outcomes.extend(stream))
    caller.start()
    wait_until(lambda: steps_of[0] == STEPS and steps_of[1] >= STEPS - 1)
    caller.join(0.2)
    assert caller.is_alive()
    assert steps_of[2] == 0
    assert outcomes == []
    gate.set()
    caller.join(30)
    assert len(outcomes) == 3
    assert steps_of[2] == STEPS


def test_equal_neighbours_share_one_operator(inputs, prior):
    outcomes = streaming.search_images(requests_of(inputs), prior, CONFIG)
    assert len({id(result.observation.operator) for _, result in outcomes}) == 1
