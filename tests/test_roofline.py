"""The passes of a search step: by hand, and in a real step; what bounds them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from random_priors import random_stylegan2

from pulse_sr.bench.ceilings import Rates, measure_rates
from pulse_sr.bench.options import SearchBench
from pulse_sr.bench.roofline import Pass, bound, count_passes, report_step
from pulse_sr.bench.search import _passes_of_step, bench_search
from pulse_sr.priors.files import read_prior, save_prior
from stylegan_ops import setup_filter, style_epilogue, upfirdn2d

CPU = torch.device("cpu")


def randn(*shape, grad=False, dtype=torch.float32):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    return x.requires_grad_(grad)


def flop_of(work):
    return sum(each.flop for each in count_passes(work))


def test_a_frozen_convolution_is_two_passes_of_input_weight_and_output():
    x, weight = randn(2, 3, 5, 5, grad=True), randn(4, 3, 3, 3)
    forward, back = count_passes(lambda: F.conv2d(x, weight, padding=1).sum().backward())
    once, moved = 2 * 9 * (2 * 5 * 5) * 3 * 4, 4 * (150 + 108 + 200)
    assert forward == back == Pass("convolutions", once, moved, "float32")
    weight.requires_grad_()  # then its gradient is written, and the input is read again
    _, back = count_passes(lambda: F.conv2d(x, weight, padding=1).sum().backward())
    assert (back.flop, back.moved) == (2 * once, moved + 4 * (108 + 150))


def test_products_and_their_gradients():
    a, b, c = randn(2, 5, 3, grad=True), randn(2, 3, 7, grad=True), randn(7)
    passes = count_passes(lambda: torch.baddbmm(c, a, b).sum().backward())
    assert [(each.part, each.flop) for each in passes] == [("products", 2 * 2 * 5 * 3 * 7)] * 3
    x, weight = (randn(5, 5, dtype=torch.bfloat16) for _ in range(2))
    assert count_passes(lambda: x @ weight) == [Pass("products", 250, 2 * 75, "bfloat16")]


@pytest.mark.parametrize("taps", [None, torch.tensor([0.25, 0.75, 0.75, 0.25])])
def test_an_epilogue_counts_its_filter_whatever_computes_it(impl, device, taps):
    """16 taps for each of the 8 x 8 outputs, and as many going back."""
    side = 8 if taps is None else 9
    x = randn(2, 3, side, side).to(device).requires_grad_()
    d, b = randn(2, 3).to(device), randn(3).to(device)
    taps = None if taps is None else taps.to(device)

    def work():
        y, _ = style_epilogue(x, d, b, taps=taps, impl=impl)
        y.sum().backward()

    expected = 0 if taps is None else 2 * (2 * 16 * 2 * 3 * 8 * 8)
    assert flop_of(work) == expected


def test_a_filter_counts_its_taps_whatever_computes_it(impl, device):
    x, f = randn(2, 3, 8, 8).to(device), setup_filter((1.0, 3.0, 3.0, 1.0)).to(device)
    counted = flop_of(lambda: upfirdn2d(x, f, padding=[2, 1, 2, 1], impl=impl))
    assert counted == 2 * 16 * 2 * 3 * 8 * 8


@pytest.mark.parametrize("side", ["pulse", "phased"])
def test_a_real_step_has_every_convolution_twice(side):
    """By hand, from the table of widths: 3 x 3 taps on the smaller grid, forward and back."""
    prior = random_stylegan2(0, noise_strength=0.1, width=16)
    config, samples = prior.generator.config, 3
    widths = dict(zip(config.sides, config.channels, strict=True))
    once = sum(2 * 9 * samples * r**2 * c**2 for r, c in widths.items())
    once += sum(2 * 9 * samples * r**2 * c * widths[2 * r] for r, c in [*widths.items()][:-1])
    fir = sum(2 * 16 * samples * r**2 * c for r, c in [*widths.items()][1:])
    found = Counter()
    for each in _passes_of_step(prior, side, samples):
        found[each.part] += each.flop
    assert found["convolutions"] + found["fused ops"] == 2 * (once + fir)
    assert 0 < found["products"] < once


def test_the_bound_takes_the_larger_of_each_pass():
    passes = [
        Pass("a", flop=40, moved=10, number_format="bfloat16"),  # 4 s and 1 s
        Pass("a", flop=10, moved=30, number_format="bfloat16"),  # 1 s and 3 s
        Pass("b", flop=10, moved=20, number_format="float32"),  # 5 s and 2 s
    ]
    rates = Rates(copy=10.0, products={"bfloat16": 10.0, "float32": 2.0})
    found = bound(passes, rates)
    assert found == {"flop": 60, "bytes": 60, "compute_s": 10.0, "memory_s": 6.0, "bound_s": 12.0}
    report = report_step(passes, rates, step_s=24.0)
    assert (report["share"], report["step_s"], report["bytes"]) == (0.5, 24.0, 60)
    assert {name: part["bound_s"] for name, part in report["parts"].items()} == {"a": 7.0, "b": 5.0}


class SeenClock:
    """Says one second for every call, and remembers what products were made of."""

    device = CPU

    def __init__(self):
        self.seen = []

    def seconds(self, work):
        result = work()
        if result.ndim == 2:
            self.seen.append((result.dtype, torch.backends.cuda.matmul.fp32_precision))
        return 1.0


def test_rates_are_measured_in_the_formats_that_are_asked_for():
    clock, before = SeenClock(), torch.backends.cuda.matmul.fp32_precision
    formats = ("bfloat16", "float32", "tfloat32")
    found = measure_rates(clock, formats, repeats=1, copy_bytes=400, side=10)
    assert found == Rates(800.0, dict.fromkeys(formats, 2000.0))
    expected = [(torch.bfloat16, "ieee"), (torch.float32, "ieee"), (torch.float32, "tf32")]
    assert clock.seen[::2] == clock.seen[1::2] == expected
    assert torch.backends.cuda.matmul.fp32_precision == before
    assert Rates(3.0, {"a": 10.0, "b": 4.0}).or_better(Rates(5.0, {"a": 8.0, "b": 6.0})) == Rates(
        5.0, {"a": 10.0, "b": 6.0}
    )


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_share_on_a_gpu(tmp_path, monkeypatch, op_cache, precision):
    monkeypatch.setenv("STYLEGAN_OPS", "compiled")
    save_prior(tmp_path / "p.safetensors", random_stylegan2(0, noise_strength=0.1, width=16))
    options = SearchBench(2, steps=3, repeats=1, precision=precision, alone=False)
    report = bench_search(read_prior(tmp_path / "p.safetensors", "cuda"), options)
    expected = {"bf16": {"bfloat16", "float32"}, "fp32": {"tfloat32", "float32"}}[precision]
    assert set(report["environment"]["matrix_rates"]) == expected
    for row in report["rows"][:2]:
        assert 0 < row["roofline"]["share"] < 1
