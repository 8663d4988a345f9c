"""The work of a search step: from shapes, by hand, and as torch's own counter sees a real step."""

from __future__ import annotations

import collections
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from random_priors import random_stylegan2
from torch.utils._python_dispatch import TorchDispatchMode

from pulse_sr.bench import ceilings
from pulse_sr.bench import search as bench
from pulse_sr.bench.ceilings import measure_ceilings
from pulse_sr.bench.options import SearchBench
from pulse_sr.bench.roofline import (
    Rates,
    better,
    bound,
    count_flop,
    formats_in_use,
    measure_rates,
    report_step,
)
from pulse_sr.bench.sides import METHODS, low_side, ours, what_moves
from pulse_sr.bench.step_work import Formats, Moved, Pass, count_step
from pulse_sr.operators.building import make_operator
from pulse_sr.priors.files import read_prior, save_prior
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from stylegan_ops import setup_filter, style_epilogue, upfirdn2d, upsample_matrix

CPU = torch.device("cpu")
FLOAT32 = Formats("float32", "float32", "float32")
BF16 = Formats("bfloat16", "bfloat16", "float32")


# ------------------------------------------------------------------ torch's counter


def randn(*shape, grad=False):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), requires_grad=grad)


def test_the_counter_takes_two_passes_for_a_frozen_convolution():
    x, weight = randn(2, 3, 5, 5, grad=True), randn(4, 3, 3, 3)
    once = 2 * 9 * (2 * 5 * 5) * 3 * 4
    assert count_flop(lambda: F.conv2d(x, weight, padding=1)) == once
    assert count_flop(lambda: F.conv2d(x, weight, padding=1).sum().backward()) == 2 * once
    weight.requires_grad_()
    assert count_flop(lambda: F.conv2d(x, weight, padding=1).sum().backward()) == 3 * once


def test_the_counter_takes_the_small_grid_of_a_transposed_convolution():
    x, weight = randn(2, 3, 5, 5, grad=True), randn(3, 4, 3, 3)
    once = 2 * 9 * (2 * 5 * 5) * 3 * 4

    def work():
        F.conv_transpose2d(x, weight, stride=2).sum().backward()

    assert count_flop(work) == 2 * once


def test_the_counter_knows_products_and_their_gradients():
    x, weight, bias = randn(5, 3, grad=True), randn(3, 7), randn(7)
    assert count_flop(lambda: torch.addmm(bias, x, weight).sum().backward()) == 2 * (2 * 5 * 3 * 7)
    a, b, c = randn(2, 5, 3, grad=True), randn(2, 3, 7, grad=True), randn(7)
    assert count_flop(lambda: torch.baddbmm(c, a, b).sum().backward()) == 3 * (2 * 2 * 5 * 3 * 7)


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
    assert count_flop(work) == expected


def test_a_filter_counts_its_taps_whatever_computes_it(impl, device):
    x, f = randn(2, 3, 8, 8).to(device), setup_filter((1.0, 3.0, 3.0, 1.0)).to(device)
    counted = count_flop(lambda: upfirdn2d(x, f, padding=[2, 1, 2, 1], impl=impl))
    assert counted == 2 * 16 * 2 * 3 * 8 * 8


# ------------------------------------------------------------------ a real step


class Traffic(TorchDispatchMode):
    """Bytes of all inputs and outputs of all ops that are no views: what unfused ops move."""

    def __init__(self):
        super().__init__()
        self.moved = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not func.is_view:
            leaves = torch.utils._pytree.tree_leaves((args, kwargs, result))
            self.moved += sum(each.nbytes for each in leaves if isinstance(each, torch.Tensor))
        return result


@pytest.fixture(scope="module")
def prior():
    """Whole cache lines: what `product` fills up is not counted."""
    return random_stylegan2(0, noise_strength=0.1, width=16)


def begun(prior, name, samples=3):
    """A search after its first look; the next step is an update and a look."""
    method = METHODS[name](prior, samples, 3, 0)
    run = ours(prior, method)
    next(run)
    passes = count_step(prior.generator.config, low_side(prior), what_moves(method), FLOAT32)
    return run, passes


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["pulse", "phased"])
def test_counting_shapes_equals_counting_a_real_step(monkeypatch, prior, name, bf16):
    monkeypatch.setattr(prior, "bf16", bf16)
    run, passes = begun(prior, name)
    assert sum(each.flop_run for each in passes) == count_flop(lambda: next(run))


@pytest.mark.parametrize("name", ["pulse", "phased"])
def test_a_real_step_moves_more_than_it_must(prior, name):
    run, passes = begun(prior, name)
    least = sum(each.moved for each in passes)
    with Traffic() as traffic:
        next(run)
    # Without any fusion an epilogue alone is five ops: the count is a bound, and not a loose one.
    assert least < traffic.moved < 10 * least


# ------------------------------------------------------------------ by hand


def test_every_part_of_a_small_step_by_hand():
    """Two layers of 3 and 2 channels at 8 and 4 px, two samples; sums of what each pass moves.

    Per layer: A 2 -> 2 at 4 px, B 2 -> 3 from 4 to 8 px (9 px before its filter), C 3 -> 3 at 8 px.
    A and B have noise that moves, C has an offset.
    """
    config = StyleGAN2Config(8, 4, 4, 1, (2, 3))
    moved = Moved(2, noise_maps=2, delta_side=8, full_covariance=True)
    passes = count_step(config, 2, moved, FLOAT32)
    found = by_part(passes)
    convolutions = (64 + 36 + 64) + (64 + 54 + 486) + (384 + 81 + 384)
    forward = (64 + 32 + 128) + (486 + 128 + 384) + (384 + 128 + 384 + 384)
    back = (128 + 64 + 32 + 64 + 32) + (384 + 486 + 128 + 486 + 128)
    back += 384 + 384 + 128 + 384 + 384 + 384
    constant = 2 * (64 + 32)
    rgb = 3 * (2 * (32 + 6 + 48) + 2 * (192 + 9 + 192))
    affine = (20 + 20 + 26) + (20 + 26)
    demodulation = 12 + 16 + 21
    covariance = 2 * 32 + 16
    skip = (6 * (16 + 32) + 32) + (6 * (32 + 64) + 32)
    operator = (6 * (64 + 16) + 16) + (6 * (16 + 4) + 16)
    image = 3 * 384 + 5 * 384 + (3 * 2 + 2) * 3 * 4
    update = 8 * 32 + 9 * (32 + 32 + 128 + 384)
    assert found == {
        "convolutions": (2 * (2304 + 3456 + 20736), 4 * 2 * convolutions),
        "epilogues": (2 * 32 * 2 * 3 * 64, 4 * (forward + back + constant)),
        "rgb": (3 * (384 + 2304), 4 * rgb),
        "styles": (2 * (192 + 76) + 2 * 256, 4 * 2 * (affine + demodulation + covariance)),
        "resampling": (2 * (768 + 1536) + 3 * (1536 + 384), 4 * (2 * skip + 3 * operator)),
        "image": (0, 4 * image),
        "update": (0, 4 * update),
    }
    # Half of the 8 x 4 matrix that up-samples is zero.
    assert sum(each.flop_run - each.flop for each in passes) == 2 * (768 + 1536)


def test_the_zeros_of_the_resampling_matrices_are_not_needed():
    """As many entries as the true matrices have, but for pixels beyond the border."""
    factor, config = 8, StyleGAN2Config.from_base(128, 256, 16, w_dim=8)
    passes = count_step(config, 16, Moved(1, 5), FLOAT32)
    dense = make_operator("bicubic", 128 // factor, 128).vertical
    up = upsample_matrix(64, setup_filter((1.0, 3.0, 3.0, 1.0)))
    found = {each.flop_run: each.flop for each in passes if each.part == "resampling"}
    for matrix in (dense, up):
        run = 2 * 3 * matrix.numel() * matrix.shape[1]
        share = int(torch.count_nonzero(matrix)) / matrix.numel()
        assert share == pytest.approx(found[run] / run, rel=0.15)
        assert share < 0.3


def test_bfloat16_halves_what_is_in_bfloat16():
    config = StyleGAN2Config(8, 4, 4, 1, (2, 3))
    moved = Moved(2, noise_maps=2, delta_side=8, full_covariance=True)
    wide, narrow = (by_part(count_step(config, 2, moved, each)) for each in (FLOAT32, BF16))
    assert {name: flop for name, (flop, _) in wide.items()} == {
        name: flop for name, (flop, _) in narrow.items()
    }
    for name in ("convolutions", "rgb"):
        assert narrow[name][1] == wide[name][1] / 2
    for name in ("resampling", "update"):
        assert narrow[name][1] == wide[name][1]
    # Noise, offset and the constant stay in float32, and so does the product of the covariance.
    assert narrow["epilogues"][1] == 2 * (448 + 2226 + 1920 + 128) + 4 * (
        96 + 384 + 256 + 1152 + 64
    )
    assert narrow["styles"][1] == 2 * 322 + 4 * 160
    # The RGB of 4 px is made float32, that of 8 px is added, the gradients of both made bfloat16.
    assert narrow["image"][1] == 96 * (6 + 6) + 384 * (10 + 6) + 4 * (5 * 384 + 96)
    formats = collections.defaultdict(set)
    for each in count_step(config, 2, moved, BF16):
        formats[each.part].add(each.number_format)
    assert formats["convolutions"] == formats["rgb"] == {"bfloat16"}
    assert formats["resampling"] == {"float32"}


def by_part(passes):
    sums = collections.defaultdict(lambda: (0, 0))
    for each in passes:
        flop, moved = sums[each.part]
        sums[each.part] = flop + each.flop, moved + each.moved
    return dict(sums)


def test_config_f_at_1024():
    """Multiplications and additions of the 3 x 3 convolutions, from the table of its widths."""
    widths = {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
    once = sum(2 * 9 * side**2 * width**2 for side, width in widths.items())
    once += sum(2 * 9 * r**2 * widths[r] * widths[2 * r] for r in list(widths)[:-1])
    config = StyleGAN2Config.from_base(1024)
    assert by_part(count_step(config, 128, Moved(1, 5), BF16))["convolutions"][0] == 2 * once


# ------------------------------------------------------------------ the bound


def test_the_bound_takes_the_larger_of_each_pass():
    passes = [
        Pass("a", flop=40, moved=10, number_format="bfloat16"),  # 4 s and 1 s
        Pass("a", flop=10, moved=30, number_format="bfloat16"),  # 1 s and 3 s
        Pass("b", flop=10, moved=20, number_format="float32", run=90),  # 5 s and 2 s
    ]
    rates = Rates(copy=10.0, products={"bfloat16": 10.0, "float32": 2.0})
    found = bound(passes, rates)
    assert (found.flop, found.flop_run, found.moved) == (60, 140, 60)
    assert (found.compute_s, found.memory_s, found.bound_s) == (10.0, 6.0, 12.0)
    report = report_step(passes, rates, step_s=24.0)
    assert (report["share"], report["step_s"], report["bytes"]) == (0.5, 24.0, 60)
    assert {name: part["bound_s"] for name, part in report["parts"].items()} == {"a": 7.0, "b": 5.0}


def test_the_better_of_two_measurements_counts():
    first = Rates(3.0, {"bfloat16": 10.0, "float32": 4.0})
    second = Rates(5.0, {"bfloat16": 8.0, "float32": 6.0})
    assert better(first, second) == Rates(5.0, {"bfloat16": 10.0, "float32": 6.0})


def test_formats_follow_the_device_and_the_precision(monkeypatch):
    cuda = torch.device("cuda")  # torch tells its settings without a GPU
    assert formats_in_use(CPU, bf16=False) == FLOAT32
    assert formats_in_use(CPU, bf16=True) == formats_in_use(cuda, bf16=True) == BF16
    assert formats_in_use(cuda, bf16=False) == Formats("tfloat32", "float32", "float32")
    monkeypatch.setattr(torch.backends.cuda, "matmul", SimpleNamespace(fp32_precision="tf32"))
    monkeypatch.setattr(torch.backends.cudnn, "conv", SimpleNamespace(fp32_precision="ieee"))
    assert formats_in_use(cuda, bf16=False) == Formats("float32", "tfloat32", "tfloat32")


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


@pytest.mark.parametrize(
    ("name", "dtype", "precision"),
    [
        ("bfloat16", torch.bfloat16, "ieee"),
        ("float32", torch.float32, "ieee"),
        ("tfloat32", torch.float32, "tf32"),
    ],
)
def test_the_ceiling_is_measured_in_the_format_that_is_asked_for(name, dtype, precision):
    clock, before = SeenClock(), torch.backends.cuda.matmul.fp32_precision
    sizes = {"repeats": 1, "copy_bytes": 400, "side": 10}
    found = measure_ceilings(clock, **sizes, number_format=name)
    assert (found.product_format, found.product, found.copy) == (name, 2000.0, 800.0)
    assert set(clock.seen) == {(dtype, precision)}
    assert torch.backends.cuda.matmul.fp32_precision == before


def test_each_format_has_a_rate_of_its_own(monkeypatch):
    monkeypatch.setitem(ceilings._COPY_BYTES, "cpu", 400)
    monkeypatch.setitem(ceilings._SIDE, "cpu", 10)
    rates = measure_rates(SeenClock(), BF16)
    assert rates == Rates(800.0, {"bfloat16": 2000.0, "float32": 2000.0})


# ------------------------------------------------------------------ on a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_the_share_on_a_gpu(tmp_path, monkeypatch, op_cache, prior, precision):
    monkeypatch.setenv("STYLEGAN_OPS", "compiled")
    save_prior(tmp_path / "p.safetensors", prior)
    options = SearchBench(2, steps=3, repeats=1, precision=precision, alone=False)
    report = bench.bench_search(read_prior(tmp_path / "p.safetensors", "cuda"), options)
    expected = {"bf16": {"bfloat16", "float32"}, "fp32": {"tfloat32", "float32"}}[precision]
    assert set(report["environment"]["matrix_rates"]) == expected
    for row in report["rows"][:2]:
        assert row["roofline"]["flop_run"] == row["roofline"]["flop_counted"]
        assert 0 < row["roofline"]["share"] < 1
