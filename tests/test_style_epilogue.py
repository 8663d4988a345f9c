"""style_epilogue against its formula, written op by op, and against numerical derivatives."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F

from stylegan_ops import setup_filter, style_epilogue, upfirdn2d

N, C, SIDE = 3, 4, 5
TAPS = torch.tensor([0.25, 1.125, 0.75, -0.125])  # products that float32 holds exactly

# noise maps, strength, next style, taps, clamp, keep, channels_last
CASES = [
    case
    for case in itertools.product(
        (0, 1, N), (False, True), (False, True), (False, True), (None, 0.8), (False, True), (0, 1)
    )
    if (case[2] or case[5]) and (case[0] or not case[1])
]


def normal(*shape, seed, device="cpu"):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng, dtype=torch.float64).to(device).requires_grad_()


def make_inputs(maps, strength, style, taps, order, side=SIDE, device="cpu"):
    x = normal(N, C, side + taps, side + taps, seed=0, device=device)
    memory_format = torch.channels_last if order else torch.contiguous_format
    x = x.detach().contiguous(memory_format=memory_format).requires_grad_()
    return [
        x,
        normal(N, C, seed=1, device=device),
        normal(C, seed=2, device=device),
        normal(maps, 1, side, side, seed=3, device=device) if maps else None,
        normal(seed=4, device=device) if strength else None,
        normal(N, C, seed=5, device=device) if style else None,
    ]


def composition(x, d, b, noise, strength, style, taps, alpha, gain, clamp):
    """y and style * y, one operation after the other."""
    if taps is not None:
        square = torch.outer(taps, taps).to(x)
        x = upfirdn2d(x, square, padding=1, impl="ref")
    x = x * d[:, :, None, None]
    if noise is not None:
        x = x + (noise if strength is None else noise * strength)
    y = F.leaky_relu(x + b[None, :, None, None], alpha) * gain
    y = y if clamp is None else y.clamp(-clamp, clamp)
    return y, None if style is None else y * style[:, :, None, None]


def assert_close(actual, expected, tolerance=1e-12):
    assert actual.shape == expected.shape
    largest = expected.abs().max().clamp_min(1e-3).item()
    assert (actual - expected).abs().max().item() <= tolerance * largest


@pytest.mark.parametrize("case", CASES)
def test_it_is_its_composition_to_second_order(case, impl, device):
    """Values, gradients and gradients of the gradients' squares, float64, 1e-12."""
    maps, strength, style, filtered, clamp, keep, order = case
    inputs = make_inputs(maps, strength, style, filtered, order, device=device)
    taps = TAPS.to(device) if filtered else None
    options = {"alpha": 0.1, "gain": 1.3, "clamp": clamp}
    ours = style_epilogue(*inputs, taps, **options, keep=keep, impl=impl)
    theirs = composition(*inputs, taps, **options)
    theirs = (theirs[0] if keep else None, theirs[1])
    assert [y is None for y in ours] == [y is None for y in theirs]
    given = [t for t in inputs if t is not None]
    results = []
    for outputs in (ours, theirs):
        kept = [y for y in outputs if y is not None]
        weights = [normal(*y.shape, seed=9, device=device) for y in kept]
        first = torch.autograd.grad(kept, given, weights, create_graph=True)
        second = torch.autograd.grad(
            sum(g.square().sum() for g in first), [*given, *weights], allow_unused=True,
            materialize_grads=True,
        )  # fmt: skip
        results.append([*kept, *first, *second])
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected)


@pytest.mark.parametrize("case", [(0, 0, 1, 0, None, 0, 1), (3, 1, 1, 1, 0.8, 1, 0)])
def test_it_passes_gradcheck_and_gradgradcheck(case, impl, device):
    maps, strength, style, filtered, clamp, keep, order = case
    inputs = make_inputs(maps, strength, style, filtered, order, side=3, device=device)
    taps = TAPS.to(device) if filtered else None

    def function(*tensors):
        outputs = style_epilogue(*tensors, taps, clamp=clamp, keep=bool(keep), impl=impl)
        return [y for y in outputs if y is not None]

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_the_third_order_is_that_of_the_composition(impl, device):
    """What differentiates the gradients is itself differentiable: float64, 1e-10."""
    inputs = make_inputs(1, True, True, True, 1, side=3, device=device)
    taps = TAPS.to(device)
    options = {"alpha": 0.1, "gain": 1.3, "clamp": None}
    ours = style_epilogue(*inputs, taps, **options, impl=impl)
    results = []
    for y, ys in (ours, composition(*inputs, taps, **options)):
        value = y.pow(3).sum() + ys.pow(2).sum()
        for _ in range(2):
            gradients = torch.autograd.grad(value, inputs, create_graph=True)
            value = sum(g.pow(2).sum() for g in gradients)
        results.append(torch.autograd.grad(value, inputs))
    for actual, expected in zip(*results, strict=True):
        assert_close(actual, expected, 1e-10)


def test_a_filter_that_learns_gets_its_gradient(impl, device):
    inputs = make_inputs(0, False, False, True, 1, device=device)
    taps = TAPS.to(device).requires_grad_()
    y, _ = style_epilogue(*inputs, taps, impl=impl)
    assert torch.autograd.grad(y.sum(), taps)[0].abs().min() > 0


def test_it_leaves_its_inputs_alone(impl, device):
    """In-place steps work on memory of their own."""
    inputs = [t.detach() for t in make_inputs(N, True, True, False, 0, device=device)]
    before = [t.clone() for t in inputs]
    style_epilogue(*inputs, impl=impl)
    assert all(torch.equal(t, kept) for t, kept in zip(inputs, before, strict=True))


def test_the_up_sampling_convolution_ends_in_it(impl, device):
    """Transposed convolution and taps are the up-sampling convolution of StyleGAN2: float64."""
    from stylegan_ops import modulated_conv2d

    x, styles = normal(2, 3, 4, 4, seed=0, device=device), normal(2, 3, seed=1, device=device)
    weight, f = normal(5, 3, 3, 3, seed=2, device=device), setup_filter([1, 3, 3, 1])
    expected = modulated_conv2d(
        x, weight, styles, up=2, padding=1, resample_filter=f, flip_weight=False,
        demodulate=False, impl="ref",
    )  # fmt: skip
    c = F.conv_transpose2d(x * styles[:, :, None, None], weight.transpose(0, 1), stride=2)
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=device) / 4
    one, zero = torch.ones(2, 5, device=device), torch.zeros(5, device=device)
    y, _ = style_epilogue(c, one.double(), zero.double(), taps=taps, alpha=1.0, gain=1.0, impl=impl)
    assert_close(y, expected)


@pytest.mark.parametrize("maps", [0, 1])
def test_one_image_keeps_its_memory_format(maps):
    x, d, b, noise, _, style = make_inputs(maps, False, True, False, 1)
    noise = None if noise is None else noise[:1]
    for each in style_epilogue(x[:1], d[:1], b, noise, style=style[:1], impl="ref"):
        assert each.stride()[1] == 1  # else the next operations mix two formats


def test_nothing_to_compute_is_an_error():
    x, d, b = torch.zeros(1, 1, 1, 1), torch.ones(1, 1), torch.zeros(1)
    with pytest.raises(ValueError, match="keep is False and there is no style"):
        style_epilogue(x, d, b, keep=False)
    with pytest.raises(ValueError, match=r"taps have the shape \[3\], expected \[4\]"):
        style_epilogue(x, d, b, taps=torch.ones(3))
