"""The ops against stored outputs of the official code, and against their own mathematics.

Golden tolerances, relative to the largest value (README of the golden data): forward and first
order 1e-5, second order 1e-4.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stylegan_ops import (
    bias_act,
    conv2d_resample,
    demodulation,
    modulated_conv2d,
    setup_filter,
    squared_norms,
    style_epilogue,
    upfirdn2d,
    upsample2d,
    upsample_matrix,
)

pytestmark = pytest.mark.kernels

GOLDEN = np.load(Path(__file__).parent / "data" / "ops.npz", allow_pickle=False)
CASES = json.loads(str(GOLDEN["meta_json"]))["cases"]
FIRST, SECOND = 1e-5, 1e-4


def cases(op):
    return [pytest.param(c, id=c["key"]) for c in CASES if c["op"] == op]


def golden(key, *names, grad=False, device="cpu"):
    arrays = [torch.from_numpy(GOLDEN[f"{key}_{name}"]) for name in names]
    tensors = [array.to(device).requires_grad_(grad) for array in arrays]
    return tensors[0] if len(tensors) == 1 else tensors


def assert_close(actual, expected, tolerance):
    """`max |a - b| <= tolerance * max |b|`; an all-zero reference allows 1e-7."""
    assert actual.shape == expected.shape
    actual = actual.cpu()
    largest = expected.abs().max().item()
    assert (actual - expected).abs().max().item() <= (tolerance * largest if largest else 1e-7)


def normal(*shape, seed=0, dtype=torch.float64, grad=False):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=dtype).requires_grad_(grad)


def gradient(output, inputs, cotangent):
    return torch.autograd.grad(output, inputs, cotangent, create_graph=True)


# bias_act


def test_the_golden_data_covers_nine_activations():
    assert len({c["act"] for c in CASES if c["op"] == "bias_act"}) == 9


@pytest.mark.parametrize("case", cases("bias_act"))
def test_bias_act_is_the_official_one_to_second_order(case, impl, device):
    key = case["key"]
    x, dy = golden(key, "x", "dy", grad=True, device=device)
    b = golden(key, "b", grad=True, device=device) if case["bias"] else None
    options = [case[name] for name in ("dim", "act", "alpha", "gain", "clamp")]
    y = bias_act(x, b, *options, impl=impl)
    assert_close(y, golden(key, "y"), FIRST)
    inputs = [x] if b is None else [x, b]
    dx, *db = gradient(y, inputs, dy)
    assert_close(dx, golden(key, "dx"), FIRST)
    if db:
        assert_close(db[0], golden(key, "db"), FIRST)
    inner = (dx * golden(key, "ddx", device=device)).sum()
    found = torch.autograd.grad(inner, [dy, *inputs], allow_unused=True, materialize_grads=True)
    for name, value in zip(("d2_dy", "d2_x", "d2_b"), found, strict=False):
        assert_close(value, golden(key, name), SECOND)


def test_bias_act_names_the_activations_it_knows():
    with pytest.raises(ValueError, match=r"act is 'gelu', expected one of linear, relu, lrelu"):
        bias_act(torch.zeros(1, 1), act="gelu")


# upfirdn2d


def upfirdn2d_arguments(case):
    name = case["filter"]
    f = None if name == "none" else torch.from_numpy(GOLDEN[f"filter_{name}"])
    names = ("up", "down", "padding", "flip_filter", "gain")
    return f, {name: case[name] for name in names}


@pytest.mark.parametrize("case", cases("upfirdn2d"))
def test_upfirdn2d_is_the_official_one(case, impl, device):
    key = case["key"]
    f, options = upfirdn2d_arguments(case)
    x = golden(key, "x", grad=True, device=device)
    y = upfirdn2d(x, f, **options, impl=impl)
    assert_close(y, golden(key, "y"), FIRST)
    (dx,) = torch.autograd.grad(y, x, golden(key, "dy", device=device))
    assert_close(dx, golden(key, "dx"), FIRST)


@pytest.mark.parametrize("case", cases("upfirdn2d"))
def test_upfirdn2d_is_linear_and_its_own_second_order(case, impl, device):
    """<A x, y> = <x, A' y> to 1e-12, and the backward of the backward is the op: float64."""
    f, options = upfirdn2d_arguments(case)
    options["impl"] = impl
    shape = GOLDEN[f"{case['key']}_x"].shape
    x = normal(*shape).to(device).requires_grad_()
    ddx = normal(*shape, seed=1).to(device)
    y = upfirdn2d(x, f, **options)
    dy = normal(*y.shape, seed=2).to(device).requires_grad_()
    (dx,) = gradient(y, x, dy)
    assert (y * dy).sum().item() == pytest.approx((x * dx).sum().item(), rel=1e-12, abs=1e-12)
    (ddy,) = torch.autograd.grad((dx * ddx).sum(), dy)
    assert_close(ddy, upfirdn2d(ddx, f, **options).cpu(), 1e-12)


@pytest.mark.parametrize("bf16", [False, True])
def test_decimation_in_bfloat16_is_rounded_once(bf16):
    """With or without autocast, forwards and backwards, whatever format it is computed in."""
    x = torch.randn(2, 3, 8, 8).bfloat16().requires_grad_()
    f = setup_filter([1, 3, 3, 1])
    wide = x.detach().float().requires_grad_()
    expected = upfirdn2d(wide, f, down=2, padding=1, impl="ref")
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found = upfirdn2d(x, f, down=2, padding=1, impl="ref")
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    towards = torch.randn_like(found)
    (gradient,) = torch.autograd.grad(found, x, towards)
    (exact,) = torch.autograd.grad(expected, wide, towards.float())
    assert torch.equal(gradient, exact.bfloat16())


def test_upsample2d_is_the_official_one():
    y = upsample2d(golden("upsample2d", "x"), torch.from_numpy(GOLDEN["filter_1331"]))
    assert_close(y, golden("upsample2d", "y"), FIRST)


def test_upsample2d_keeps_a_flat_picture():
    y = upsample2d(torch.full((1, 1, 6, 6), 0.7), setup_filter([1, 3, 3, 1]))
    assert (y[:, :, 2:-2, 2:-2] - 0.7).abs().max() < 1e-6


def test_setup_filter_is_the_official_one():
    square = torch.from_numpy(GOLDEN["filter_1331"])
    assert_close(setup_filter([1, 3, 3, 1]), square, 1e-7)
    assert_close(
        setup_filter([1, 3, 3, 1], gain=4), torch.from_numpy(GOLDEN["setup_2d_gain"]), 1e-7
    )
    # The official one keeps eight taps and more separable (here flipped); ours is their product.
    separable = torch.from_numpy(GOLDEN["setup_sep_gain"])
    taps = torch.from_numpy(GOLDEN["filter_sep8"]).flip(0)
    assert_close(setup_filter(taps, gain=4), torch.outer(separable, separable), 1e-6)


def test_setup_filter_keeps_the_sum_when_asked():
    assert setup_filter([1, 2, 1], normalize=False).sum() == 16


# modulated_conv2d


@pytest.mark.parametrize("case", cases("modulated_conv2d"))
def test_modulated_conv2d_is_the_official_one_to_second_order(case, impl, device):
    key = case["key"]
    x, weight, styles = golden(key, "x", "weight", "styles", grad=True, device=device)
    names = ("up", "down", "padding", "demodulate", "flip_weight")
    options = {name: case[name] for name in names}
    options["resample_filter"] = torch.from_numpy(GOLDEN["filter_1331"]).to(device)
    options["impl"] = impl
    y = modulated_conv2d(x, weight, styles, **options)
    assert_close(y, golden(key, "y"), FIRST)
    noisy = modulated_conv2d(
        x, weight, styles, noise=golden(key, "noise", device=device), **options
    )
    assert_close(noisy, golden(key, "y_noise"), FIRST)
    dx, dweight, dstyles = gradient(y, [x, weight, styles], golden(key, "dy", device=device))
    assert_close(dx, golden(key, "dx"), FIRST)
    assert_close(dweight, golden(key, "dweight"), FIRST)
    assert_close(dstyles, golden(key, "dstyles"), FIRST)
    second = torch.autograd.grad(dx.square().sum(), [weight, styles])
    for name, value in zip(("gp_dweight", "gp_dstyles"), second, strict=True):
        assert_close(value, golden(key, name), SECOND)


@pytest.mark.parametrize("demodulate", [True, False])
@pytest.mark.parametrize(("size", "up", "down"), [(3, 1, 1), (3, 2, 1), (3, 1, 2), (1, 1, 1)])
def test_modulated_conv2d_is_the_per_sample_weight_form(size, up, down, demodulate):
    """StyleGAN2, equations 1 to 3, as written there: one kernel per sample. Float64, 1e-10."""
    x, styles = normal(3, 4, 8, 8), normal(3, 4, seed=1)
    weight = normal(5, 4, size, size, seed=2)
    f = setup_filter([1, 3, 3, 1]).double()
    expected = []
    for image, style in zip(x, styles, strict=True):
        kernel = weight * style[None, :, None, None]
        if demodulate:
            norm = (kernel.square().sum(dim=[1, 2, 3], keepdim=True) + 1e-8).sqrt()
            kernel = kernel / norm
        padding = size // 2
        if up > 1:  # zero-insert and filter first, then an ordinary convolution
            pads = [2 + padding, 1 + padding] * 2
            image, padding = upfirdn2d(image[None], f, up=2, padding=pads, gain=4)[0], 0
        if down > 1:
            image, padding = upfirdn2d(image[None], f, padding=[2, 2, 2, 2])[0], 0
        expected.append(F.conv2d(image[None], kernel, padding=padding, stride=down))
    y = modulated_conv2d(
        x, weight, styles, up=up, down=down, padding=size // 2, resample_filter=f,
        demodulate=demodulate,
    )  # fmt: skip
    assert_close(y, torch.cat(expected), 1e-10)


def test_demodulation_gives_unit_variance():
    """White noise comes out of a demodulated convolution with variance 1 (10 % here)."""
    x = normal(2, 16, 64, 64)
    y = modulated_conv2d(x, normal(8, 16, 3, 3, seed=1), normal(2, 16, seed=2), padding=1)
    assert y[:, :, 1:-1, 1:-1].var(dim=[0, 2, 3]).sub(1).abs().max() < 0.1


def test_conv2d_resample_refuses_a_bias_with_up():
    x, weight = torch.zeros(1, 2, 4, 4), torch.zeros(3, 2, 3, 3)
    with pytest.raises(ValueError, match="up=2 does not go with a bias"):
        conv2d_resample(x, weight, setup_filter([1, 3, 3, 1]), up=2, bias=torch.zeros(3))


@pytest.mark.parametrize(("size", "down"), [(3, 1), (3, 2), (1, 2)])
def test_conv2d_resample_adds_its_bias(size, down):
    x, weight, b = normal(2, 3, 8, 8), normal(4, 3, size, size, seed=1), normal(4, seed=2)
    f = setup_filter([1, 3, 3, 1])
    plain = conv2d_resample(x, weight, f, down=down, padding=size // 2)
    biased = conv2d_resample(x, weight, f, down=down, padding=size // 2, bias=b)
    assert_close(biased, plain + b[None, :, None, None], 1e-12)


@pytest.mark.parametrize("up", [1, 2])
def test_channels_last_gives_the_same(up):
    """To 1e-6 in float32, images and weights in either order."""
    x, styles = normal(2, 8, 8, 8, dtype=torch.float32), normal(2, 8, dtype=torch.float32, seed=1)
    weight = normal(6, 8, 3, 3, dtype=torch.float32, seed=2)
    b, f = normal(6, dtype=torch.float32, seed=3), setup_filter([1, 3, 3, 1])

    def run(order):
        y = modulated_conv2d(
            x.to(memory_format=order), weight.to(memory_format=order), styles, up=up, padding=1,
            resample_filter=f, demodulate=False,
        )  # fmt: skip
        y, _ = style_epilogue(
            y, demodulation(squared_norms(weight), styles), b, noise[:, None, None, :]
        )
        return upfirdn2d(bias_act(y, b, act="lrelu"), f, down=2, padding=1)

    noise = normal(2, 8 * up, dtype=torch.float32, seed=4)
    assert_close(run(torch.channels_last), run(torch.contiguous_format), 1e-6)


def test_style_epilogue_leaves_its_inputs_alone():
    """Its in-place steps work on memory of their own."""
    x, d, b, noise = normal(2, 3, 4, 4), normal(2, 3), normal(3), normal(2, 1, 4, 4)
    before = [t.clone() for t in (x, d, b, noise)]
    style_epilogue(x, d, b, noise)
    assert all(torch.equal(t, kept) for t, kept in zip((x, d, b, noise), before, strict=True))


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 1), (1, 2, 1), (1, 4, 6, 4, 1, 0)])
@pytest.mark.parametrize("side", [1, 4, 7])
def test_upsample_matrix_is_upsample2d(side, taps):
    x = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(side))
    f = setup_filter(taps)
    matrix = upsample_matrix(side, f)
    torch.testing.assert_close(matrix @ x @ matrix.t(), upsample2d(x, f), atol=1e-6, rtol=0)
