"""The benchmark of the ops: what it counts, what it refuses, and the form of its report."""

from __future__ import annotations

import contextlib
import json
import math

import pytest
import torch
from click.testing import CliRunner

from pulse_sr.bench import op_cases, ops
from pulse_sr.bench.ceilings import Clock, Rates, captured, interleaved, measure_rates
from pulse_sr.bench.options import OpsBench
from pulse_sr.cli import main
from pulse_sr.cli.bench_text import ops_lines
from pulse_sr.errors import PulseError
from pulse_sr.report.table import markdown
from stylegan_ops.build import BuildError

CPU = torch.device("cpu")
RATES = Rates(copy=1e9, products={"float32": 1e12})


def case(kind, direction="fwd", dtype=torch.float32, layout="nhwc"):
    return op_cases.Case(kind, 2, 4, 8, dtype, layout, direction)


def draw(each, seed=0):
    return each.draw(CPU, seed)


class FakeClock:
    """Runs the work and says what the script says, one number for each call."""

    device = CPU

    def __init__(self, *seconds):
        self.script = list(seconds)
        self.done = []

    def seconds(self, work):
        self.done.append(work)
        work()
        return self.script.pop(0)


@pytest.fixture
def quick(monkeypatch):
    """No real ceilings, no compiled library."""
    monkeypatch.setattr(ops, "measure_rates", lambda clock, formats: RATES)
    monkeypatch.setattr(ops, "_compiled_impl", lambda device: "ref")


# An image [2, 4, 8, 8] in float32 is 2048 bytes, the same with a border 2592; d and style 32 each,
# b 16, noise 512, strength 4; a 2-D filter 64, taps 16.
@pytest.mark.parametrize(
    ("kind", "forward", "backward"),
    [
        ("bias_act", 2048 + 16 + 2048, 2048 + (2048 + 16) + (2048 + 16)),
        ("upfirdn2d up", 512 + 64 + 2048, 2048 + 64 + 512),
        ("upfirdn2d down", 2048 + 64 + 512, 512 + 64 + 2048),
        ("upfirdn2d blur", 2592 + 64 + 2048, 2048 + 64 + 2592),
        ("style_epilogue", 2048 + 596 + 4096, 4096 + 2644 + 2644),
        ("style_epilogue+fir", 2592 + 596 + 16 + 4096, 4096 + (3188 + 16) + 3188),
        ("glu", 4096 + 2048, 2048 + 4096 + 4096),
        ("gating", 2048 + 32 + 2048, 2048 + 2080 + 2080),
    ],
)
def test_bytes_that_must_move_are_those_counted_by_hand(kind, forward, backward):
    for direction, expected in (("fwd", forward), ("bwd", backward)):
        each = case(kind, direction)
        inputs = draw(each)
        outputs = op_cases.ALL_KINDS[kind].ours(inputs, "ref")
        assert op_cases.must_move(each, inputs, outputs) == expected


@pytest.mark.parametrize("direction", op_cases.DIRECTIONS)
@pytest.mark.parametrize("kind", op_cases.KINDS)
def test_the_usual_algorithms_are_the_ops(kind, direction):
    each = case(kind, direction)
    usual = op_cases.KINDS[kind].usual
    op_cases.verify(each, draw(each), lambda inputs: usual(op_cases.as_ports_hold_them(inputs)))


@pytest.mark.parametrize("kind", op_cases.KINDS)
def test_the_reference_in_bfloat16_is_within_the_tolerance(kind):
    each = case(kind, dtype=torch.bfloat16)
    op_cases.verify(each, draw(each), lambda inputs: op_cases.KINDS[kind].ours(inputs, "ref"))


WRONG = {
    "values": lambda y: y * 1.001,
    "one value": lambda y: y.index_fill(3, torch.tensor(7), 0.0),
    "not a number": lambda y: y + torch.tensor(math.nan),
}


@pytest.mark.parametrize("kind", ["bias_act", "upfirdn2d up", "style_epilogue+fir"])
@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_op_is_refused(kind, wrong):
    each = case(kind)
    right = op_cases.KINDS[kind].ours
    with pytest.raises(PulseError, match=r"fwd 2x4x8 fp32 nhwc: values of the compiled op differ"):
        op_cases.verify(each, draw(each), lambda i: tuple(map(WRONG[wrong], right(i, "ref"))))


class WrongGradient(torch.autograd.Function):
    """The identity with a gradient that is one percent too large."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, dy):
        return dy * 1.01


def test_a_wrong_gradient_is_refused():
    right = op_cases.KINDS["style_epilogue"].ours

    def wrong(inputs):
        return right(inputs | {"noise": WrongGradient.apply(inputs["noise"])}, "ref")

    op_cases.verify(case("style_epilogue"), draw(case("style_epilogue")), wrong)
    each = case("style_epilogue", "bwd")
    with pytest.raises(PulseError, match=r"gradients .* by 0.01 \(at most 0.001\): not measured"):
        op_cases.verify(each, draw(each), wrong)


def test_a_row_has_medians_for_one_call_and_their_ratios():
    # Ours, reference, usual in turn; the first round is not counted; eight calls in each.
    rounds = [[9.0, 9.0, 9.0], [0.8, 1.6, 2.4], [8.0, 1.7, 2.3], [0.7, 0.1, 80.0]]
    clock = FakeClock(*(second for each in rounds for second in each))
    row = ops.measure(case("bias_act"), clock, "ref", 3)
    assert (row["ours_s"], row["reference_s"]) == pytest.approx((0.1, 0.2))
    assert (row["baseline_s"], row["ratio"]) == pytest.approx((0.3, 3.0))
    assert (row["bytes"], row["bandwidth"]) == (4112, pytest.approx(41120))
    assert row["reference_ratio"] == pytest.approx(2.0)
    assert row["name"] == "bias_act fwd 2x4x8 fp32 nhwc"
    assert len({id(work) for work in clock.done}) == 3


def test_sides_take_turns():
    order = []
    works = {name: lambda name=name: order.append(name) for name in "ab"}
    assert interleaved(works, FakeClock(5, 5, 1, 2, 3, 4), 2) == {"a": 2.0, "b": 3.0}
    assert order == list("ababab")


def test_ceilings_count_what_is_read_and_written():
    clock = FakeClock(9, 0.5, 0.25, 9, 4.0, 2.0)
    found = measure_rates(clock, ["float32"], repeats=2, copy_bytes=4000, side=10)
    assert found == Rates(copy=32000.0, products={"float32": 1000.0})


def test_the_clock_measures_what_it_runs():
    clock = Clock(CPU)
    a = torch.rand(200, 200)
    assert 0 < clock.seconds(lambda: a @ a) < 5


def test_a_side_that_can_not_be_captured_is_left_out(monkeypatch):
    replayed = []

    class FakeGraph:
        def replay(self):
            replayed.append(self)

    @contextlib.contextmanager
    def capture(graph, stream):
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)

    def refuse():
        raise RuntimeError("operation not permitted when stream is capturing")

    replays = captured({"a": list, "b": refuse, "c": list}, FakeClock())
    assert list(replays) == ["a", "c"]
    replays["a"](), replays["c"](), replays["a"]()
    assert replayed[0] is replayed[2] is not replayed[1]


@pytest.mark.gpu
def test_rows_of_a_gpu_have_times_without_launches(op_cache):
    cases = [
        case(kind, way, d)
        for kind in op_cases.KINDS
        for way in op_cases.DIRECTIONS
        for d in op_cases.CLAMP
    ]
    report = ops.bench_ops(OpsBench(2, device="cuda"), cases=cases)
    assert len(report["rows"]) == len(cases)
    for row in report["rows"]:
        assert {"ours_graph_s", "reference_graph_s", "baseline_graph_s", "graph_ratio"} <= set(row)


def test_which_rows_a_device_has():
    """On a CPU float32 and small shapes, unless all are asked for; what memory holds."""
    found = op_cases.list_cases("cpu", False, math.inf)
    assert {(c.n, c.dtype) for c in found} == {(8, torch.float32), (1, torch.float32)}
    assert {c.kind for c in found} == {*op_cases.KINDS, *op_cases.PYTORCH_KINDS}
    assert max(c.side for c in found) == 128
    assert found[0].n == 8  # the most telling batch comes first
    assert len(set(found)) == len(found)
    full = op_cases.list_cases("cuda", True, math.inf)
    assert {c.dtype for c in full} == {torch.bfloat16, torch.float32}
    assert (32, 32, 1024) in {(c.n, c.c, c.side) for c in full}
    largest = 8 * 64 * 512**2 * 4
    assert max(c.tensor_bytes for c in op_cases.list_cases("cpu", True, largest)) == largest


def test_report_has_the_documented_form(quick):
    cases = [case(kind, "bwd") for kind in (*op_cases.KINDS, "glu")]
    report = ops.bench_ops(OpsBench(1, device="cpu"), cases=cases, impl="ref")
    assert set(report) == {"ratio", "rows", "pytorch", "environment"}
    assert json.loads(json.dumps(report)) == report
    for row in report["rows"]:
        assert {"name", "ours_s", "baseline_s", "ratio", "reference_s", "bytes"} <= set(row)
        assert row["ratio"] == pytest.approx(row["baseline_s"] / row["ours_s"])
        assert row["copy_fraction"] == pytest.approx(row["bytes"] / row["ours_s"] / 1e9)
    product = math.prod(row["ratio"] for row in report["rows"])
    assert report["ratio"] == pytest.approx(product ** (1 / 6))
    assert [row["name"] for row in report["pytorch"]] == ["glu bwd 2x4x8 fp32 nhwc"]
    environment = report["environment"]
    assert {"torch", "python", "cpu", "threads", "device", "repeats"} <= set(environment)
    assert environment["copy_bandwidth"] == 1e9


def test_time_and_memory_leave_rows_out(quick, monkeypatch):
    cases = [case("glu"), case("gating"), case("bias_act")]
    report = ops.bench_ops(OpsBench(1, seconds=0.0, device="cpu"), cases=cases)
    assert [row["op"] for row in report["pytorch"]] == ["glu"]
    assert report["environment"]["left_out_for_time"] == 2
    assert (report["ratio"], report["rows"]) == (None, [])
    assert "geometric mean" not in "\n".join(ops_lines(report))

    def too_large(*_, **__):
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(ops, "measure", too_large)
    report = ops.bench_ops(OpsBench(1, device="cpu"), cases=cases)
    assert report["environment"]["left_out_for_memory"] == 3


def test_command_prints_json_or_a_table(quick, monkeypatch):
    cases = [case("bias_act"), case("gating")]
    monkeypatch.setattr(ops, "list_cases", lambda device_type, full, most_bytes: cases)
    words = ["bench", "ops", "--device", "cpu", "--repeats", "1"]
    done = CliRunner().invoke(main, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert [row["op"] for row in json.loads(done.stdout)["rows"]] == ["bias_act"]
    shown = CliRunner().invoke(main, words).stdout.splitlines()
    titles = ["ours", "reference", "usual", "ref/ours", "usual/ours", "GB/s", "copy"]
    assert shown[0].split() == ["name", *titles]
    assert any("geometric mean over 1 rows of usual / ours" in line for line in shown)


def test_results_are_written_as_a_table_of_groups(quick, monkeypatch, tmp_path):
    cases = [case("bias_act"), case("bias_act", "bwd"), case("gating")]
    monkeypatch.setattr(ops, "list_cases", lambda device_type, full, most_bytes: cases)
    file = tmp_path / "results" / "ops.json"
    words = ["bench", "ops", "--device", "cpu", "--repeats", "1", "--output", str(file)]
    assert CliRunner().invoke(main, words).exit_code == 0
    document = json.loads(file.read_text())
    assert document["command"] == "pulse-sr bench ops --repeats 1 --device cpu"
    assert document["environment"]["repeats"] == 1
    assert [row["direction"] for row in document["rows"]] == ["fwd", "bwd"]
    assert len(document["report"]["rows"]) == 2
    assert markdown(document).splitlines()[0].startswith("| op | order |")
    assert CliRunner().invoke(main, words).exit_code == 0  # its own file is written again
    file.write_text("{}")
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert file.read_text() == "{}"


def test_a_group_has_geometric_means():
    key = {"op": "glu", "layout": "nhwc", "direction": "fwd", "dtype": "float32"}
    rows = [
        key | {"ratio": r, "reference_ratio": 2 * r, "copy_fraction": f, "bytes": b}
        for r, f, b in ((1.0, 0.2, 2**20), (4.0, 0.6, 2**25), (2.0, 0.8, 2**26))
    ]
    means = {"ratio": 2.0, "reference_ratio": 4.0, "least_ratio": 1.0, "copy_percent": 70.0}
    (found,) = ops.summary(rows)
    assert found == pytest.approx(key | {"rows": 3} | means)
    assert ops.summary(rows[:1])[0]["copy_percent"] is None  # none above 16 MB


def test_a_library_that_can_not_be_built_exits_3(monkeypatch):
    def refuse(target):
        raise BuildError(f"no compiler for {target}", "apt install g++")

    monkeypatch.setattr(ops.library, "require", refuse)
    done = CliRunner().invoke(main, ["bench", "ops", "--device", "cpu"])
    assert done.exit_code == 3
    assert done.stderr == "error: no compiler for cpu\nhint: apt install g++\n"
