"""The step of a search as a CUDA graph: what can be seen of it on a CPU, with an emulated graph.

The emulation (tests/emulated_graph.py) does the recorded operations again and runs no Python. That
a graph on a GPU does the same is for the test marked `gpu`.
"""

from __future__ import annotations

import gc
import logging
import weakref
from dataclasses import astuple

import pytest
import torch
from emulated_graph import EmulatedGraph
from PIL import Image
from random_priors import random_stylegan2
from toy_priors import LinearPrior

from pulse_sr.operators.building import make_operator
from pulse_sr.priors.files import read_prior, save_prior
from pulse_sr.search import capture, engine
from pulse_sr.search import samples as samples_module
from pulse_sr.search.capture import CudaGraph, graph_on, write_numbers
from pulse_sr.search.engine import Best, search, started
from pulse_sr.search.ilo import Ilo
from pulse_sr.search.langevin import Langevin
from pulse_sr.search.losses import mean_square
from pulse_sr.search.methods import METHODS, Settings
from pulse_sr.search.phased import PhasedSettings
from pulse_sr.search.pulse import Pulse
from pulse_sr.search.records import Observed
from pulse_sr.search.samples import sample_seed, search_samples
from pulse_sr.search.stream import RESTARTS
from stylegan_ops import library

pytestmark = pytest.mark.kernels

STEPS = 12
STATIC = ("phased", "pulse")

#: Inputs: name, wanted samples, target in dB. Some samples leave early, so that slots are handed on
#: at odd moments.
INPUTS = [("a", range(4), 60.0), ("b", range(3), 21.0), ("c", [1, 5], 23.0)]
SHORT = [("a", [0], 60.0), ("b", [0, 1], 60.0)]


@pytest.fixture(scope="module")
def network():
    return random_stylegan2(0, noise_strength=0.1)


@pytest.fixture(autouse=True)
def nothing_said_before():
    """A warning is said once in a process."""
    capture._warn.cache_clear()


@pytest.fixture
def on_graphs(monkeypatch):
    """A function: searches from now on use graphs of this kind, and these appear in its list."""

    def use(make=EmulatedGraph):
        graphs = []

        def found(device):
            graphs.append(make())
            return graphs[-1]

        monkeypatch.setattr(engine, "graph_on", found)
        return graphs

    return use


@pytest.fixture(
    params=[
        "bicubic|gray",
        "bicubic|{mask}",
        "bicubic|jpeg:40",
        "bicubic|noise:0.02",
        "gaussian:0.8|area|jpeg:60|gray|{mask}|noise:0.02",
    ]
)
def operator(request, tmp_path):
    """That of a padded input: the window has odd sides."""
    known = torch.arange(64).view(8, 8) % 3 > 0
    Image.fromarray(known.byte().mul(255).numpy()).save(tmp_path / "mask.png")
    spec = request.param.format(mask=f"mask:{tmp_path / 'mask.png'}")
    return make_operator(spec, 8, 32, rows=(0, 7), columns=(1, 8))


def observations(prior, inputs, group, operator=None):
    shared = operator or make_operator("bicubic", 8, 32)
    for name, indices, target_db in inputs:
        operator = shared if group else make_operator("bicubic", 8, 32)
        y = operator(prior.sample([900 + ord(name)])).clamp(0, 1)[0]
        yield Observed(
            y=y,
            operator=operator,
            side=8,
            sha256=name * 64,
            indices=indices,
            target_db=target_db,
        )


def name_of(each):
    """Of the input of what was found or is running."""
    return each.job.observation.sha256[0]


def settings(method, slots=3, strict=False):
    return Settings(method, strict, STEPS, 60.0, slots, 0, PhasedSettings(starts=2))


def seen(prior, chosen, inputs=INPUTS, group="one", operator=None):
    """What comes out of a search: samples, and every step on the way.

    Inputs of one group share the slots; None: each is a group of its own.
    """
    found, steps = {}, []
    for tick in search_samples(prior, observations(prior, inputs, group, operator), chosen):
        for each in tick.found:
            found[name_of(each), each.job.index] = each
        for each in tick.running:
            row = (name_of(each), each.job.index, each.step, each.best_db, each.db)
            steps.append((row, each.image))
    return found, steps


def same(a, b):
    """Bit for bit; also where there is no tensor."""
    return a is b if a is None or b is None else torch.equal(a, b)


def assert_same(ours, expected):
    (found, steps), (others, other_steps) = ours, expected
    assert found.keys() == others.keys()
    for key, each in found.items():
        other = others[key]
        assert same(each.image, other.image), key
        assert (each.steps, each.restarts) == (other.steps, other.restarts), key
    assert str([row for row, _ in steps]) == str([row for row, _ in other_steps])  # NaN == NaN
    for (row, image), (_, other) in zip(steps, other_steps, strict=True):
        assert torch.equal(image.nan_to_num(7), other.nan_to_num(7)), row


@pytest.mark.parametrize("method", STATIC)
@pytest.mark.parametrize(("ops", "bf16"), [("ref", False), ("ref", True), ("compiled", False)])
def test_a_search_on_a_graph_is_the_same(
    network, on_graphs, method, ops, bf16, monkeypatch, request
):
    """While slots are handed on; also in bfloat16, as on a GPU, and with the fused ops."""
    if ops == "compiled":
        request.getfixturevalue("compiled_cpu")
    monkeypatch.setenv("STYLEGAN_OPS", ops)
    monkeypatch.setattr(network, "bf16", bf16)
    expected = seen(network, settings(method))
    assert len({each.steps for each in expected[0].values()}) > 3
    graphs = on_graphs()
    assert_same(seen(network, settings(method)), expected)
    [graph] = graphs
    assert graph.replays > STEPS


def test_strict_pulse_on_a_graph_is_the_same(network, on_graphs):
    """It keeps the last iterates, whatever came before."""
    chosen = settings("pulse", slots=4, strict=True)
    expected = seen(network, chosen, SHORT[:1])
    graphs = on_graphs()
    assert_same(seen(network, chosen, SHORT[:1]), expected)
    assert [each.replays for each in graphs] == [STEPS - capture.WARM_UP]


def test_through_every_operator_a_search_on_a_graph_is_the_same(
    network, on_graphs, operator, caplog
):
    expected = seen(network, settings("phased"), SHORT, operator=operator)
    graphs = on_graphs()
    assert_same(seen(network, settings("phased"), SHORT, operator=operator), expected)
    assert [each.replays for each in graphs] == [STEPS - capture.WARM_UP]
    assert "no CUDA graph" not in caplog.text


def pulse(method=Pulse, steps=STEPS):
    """A method on a linear prior, and the records of its search."""
    prior = LinearPrior(noise_strength=0.1)
    rngs = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    made = started(method.with_slots(prior, lambda u: u, 2, steps), rngs, torch.empty(0))
    operator = make_operator("area", 8, prior.resolution)
    target = operator(prior.synthesize(torch.ones(1, prior.num_ws, prior.latent_dim)))
    return list(search(made, operator, target, Best(target_mse=0.0)))


def test_the_records_of_a_search_on_a_graph_stay_as_they_were(on_graphs):
    expected = pulse()
    graphs = on_graphs()
    for ours, other in zip(pulse(), expected, strict=True):
        for mine, its in zip(astuple(ours), astuple(other), strict=True):
            assert torch.equal(torch.as_tensor(mine), torch.as_tensor(its))
    assert graphs[0].replays == STEPS - capture.WARM_UP


def test_only_methods_whose_steps_are_alike_are_recorded(network, on_graphs):
    for name in METHODS:
        graphs = on_graphs()
        next(search_samples(network, observations(network, SHORT, "one"), settings(name)))
        assert bool(graphs) == (name in STATIC), name


@pytest.mark.parametrize("method", [Ilo, Langevin])
def test_the_other_methods_could_not_be(network, on_graphs, method, monkeypatch, caplog):
    """Were they declared static, the graph would refuse them or find something else."""
    chosen = settings(method.__name__.lower())
    expected = seen(network, chosen, SHORT)[0]
    monkeypatch.setattr(method, "static", True)
    on_graphs()
    found = seen(network, chosen, SHORT)[0]
    wrong = any(not torch.equal(found[key].image, expected[key].image) for key in expected)
    assert wrong or "no CUDA graph" in caplog.text


class Fading(Pulse):
    """A factor that follows from the step: a graph would keep that of the step it was made in."""

    def image(self, steps_taken):
        self.factor = 1 / (1 + steps_taken[0])
        return super().image(steps_taken)

    def loss(self, residual):
        return super().loss(residual) * self.factor


class Rebinding(Pulse):
    """A sum that is another tensor after each step: a graph would add to that of one step."""

    total = torch.zeros(2)

    def loss(self, residual):
        self.total = self.total + mean_square(residual).detach()
        return super().loss(residual) * self.total


@pytest.mark.parametrize("method", [Fading, Rebinding])
def test_the_emulation_finds_what_a_graph_gets_wrong(on_graphs, method, caplog):
    expected = pulse(method)
    on_graphs()
    ours = pulse(method)
    wrong = any(not torch.equal(a.loss, b.loss) for a, b in zip(ours, expected, strict=True))
    assert wrong or "no CUDA graph" in caplog.text


def test_a_sample_that_starts_again_does_so_on_a_graph(network, on_graphs, monkeypatch):
    """One once, and one until it has no image; the step that fails is done to its end before."""
    original = METHODS["pulse"]
    bad = {sample_seed(0, "a" * 64, 3)}
    bad |= {sample_seed(0, "b" * 64, 1, attempt) for attempt in range(RESTARTS + 1)}

    def make(*args):
        method = original(*args)
        start = method.start

        def start_badly(slots, starts):
            start(slots, starts)
            with torch.no_grad():
                for slot, each in zip(slots, starts, strict=True):
                    if each.generator.initial_seed() in bad:
                        method.latent[slot] = torch.nan

        method.start = start_badly
        return method

    monkeypatch.setitem(samples_module.METHODS, "pulse", make)
    expected = seen(network, settings("pulse"))
    restarts = {key: each.restarts for key, each in expected[0].items() if each.restarts}
    assert restarts == {("a", 3): 1, ("b", 1): RESTARTS}
    assert expected[0]["b", 1].image is None
    graphs = on_graphs()
    assert_same(seen(network, settings("pulse")), expected)
    assert graphs[0].replays > 2 * STEPS


class Refused(EmulatedGraph):
    """A driver that stops the recording in its middle."""

    def record(self, work):
        super().record(work)
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


class NotStarted(EmulatedGraph):
    def replay(self):
        raise RuntimeError("operation not supported")


@pytest.mark.parametrize("kind", [Refused, NotStarted])
def test_where_nothing_can_be_recorded_the_search_goes_on(network, on_graphs, kind, caplog):
    """With one warning for all groups of inputs, and the same results."""
    expected = seen(network, settings("pulse"), SHORT, group=None)
    graphs = on_graphs(kind)
    with caplog.at_level(logging.WARNING):
        assert_same(seen(network, settings("pulse"), SHORT, group=None), expected)
    assert len(graphs) == len(SHORT)
    [record] = caplog.records
    assert record.getMessage().startswith("no CUDA graph")
    assert "\n" not in record.getMessage()


class Full(EmulatedGraph):
    """Records where it is not the first one."""

    made = 0

    def __init__(self):
        super().__init__()
        self.number = Full.made
        Full.made += 1

    def record(self, work):
        if self.number:
            return super().record(work)
        raise torch.OutOfMemoryError("out of memory")


class FullAndInvalid(Full):
    """The end of a recording that was left has an error of its own, which hides the first."""

    def record(self, work):
        try:
            return super().record(work)
        except torch.OutOfMemoryError:
            raise RuntimeError("capture was invalidated")  # noqa: B904


@pytest.mark.parametrize("kind", [Full, FullAndInvalid])
def test_out_of_memory_in_a_recording_halves_the_slots(
    network, on_graphs, kind, monkeypatch, caplog
):
    monkeypatch.setattr(Full, "made", 0)
    expected = seen(network, settings("pulse", slots=2), SHORT)[0]
    graphs = on_graphs(kind)
    found = seen(network, settings("pulse", slots=4), SHORT)[0]
    assert "going on with 2" in caplog.text
    assert "no CUDA graph" not in caplog.text
    assert [each.replays > 0 for each in graphs] == [False, True]
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key].image, expected[key].image) for key in found)


@pytest.mark.parametrize("ends", ["early", "done"])
def test_a_graph_is_freed_with_its_search(network, on_graphs, ends):
    """At once: the memory that it holds is waited for."""
    graphs = on_graphs()
    gc.collect()
    gc.disable()
    try:
        ticks = search_samples(network, observations(network, SHORT, "one"), settings("pulse"))
        for _ in range(capture.WARM_UP + 2):
            next(ticks)
        graph = weakref.ref(graphs.pop())
        assert graph().replays == 2
        if ends == "early":
            ticks.close()
        else:
            list(ticks)
        assert graph() is None
    finally:
        gc.enable()


def test_numbers_are_written_in_place():
    tensor = torch.zeros(2, 3)
    place = tensor.data_ptr()
    write_numbers(tensor, [[1, 2.5, 0.1], [4, 5, 6]])
    assert torch.equal(tensor, torch.tensor([[1, 2.5, 0.1], [4, 5, 6]]))
    assert tensor.data_ptr() == place


def test_a_cpu_has_no_graphs():
    assert graph_on(torch.device("cpu")) is None


def on_cuda(prior, folder):
    save_prior(folder / "prior.safetensors", prior)
    return read_prior(folder / "prior.safetensors", "cuda")


@pytest.mark.gpu
def test_a_cuda_graph_holds_every_operator(network, operator, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("STYLEGAN_OPS", "ref")
    seen(on_cuda(network, tmp_path), settings("phased"), SHORT, operator=operator)
    assert "no CUDA graph" not in caplog.text


@pytest.mark.gpu
@pytest.mark.parametrize("method", STATIC)
@pytest.mark.parametrize(("ops", "bf16"), [("ref", False), ("compiled", False), ("compiled", True)])
def test_a_cuda_graph_finds_what_its_operations_find(
    network, method, ops, bf16, tmp_path, op_cache, monkeypatch, caplog
):
    """Within a grey level, 1/255, and with the same steps."""
    if ops == "compiled":
        library.require("cuda")
    monkeypatch.setenv("STYLEGAN_OPS", ops)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    prior = on_cuda(network, tmp_path)
    prior.bf16 = bf16
    replays = []
    replay = CudaGraph.replay
    monkeypatch.setattr(CudaGraph, "replay", lambda graph: (replays.append(1), replay(graph)))
    # No sample leaves early: a last bit may decide when.
    inputs = [("a", range(4), 90.0), ("b", range(3), 90.0)]
    found, steps = seen(prior, settings(method), inputs)
    assert "no CUDA graph" not in caplog.text
    assert len(replays) == 3 * STEPS - capture.WARM_UP
    monkeypatch.setattr(engine, "graph_on", lambda device: None)
    expected, other_steps = seen(prior, settings(method), inputs)
    assert [row[:3] for row, _ in steps] == [row[:3] for row, _ in other_steps]
    for key, each in found.items():
        assert (each.image - expected[key].image).abs().max() <= 1 / 255, key
