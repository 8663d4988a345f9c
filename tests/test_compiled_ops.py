"""The compiled ops: against the reference on random calls, and inside torch's machinery."""

from __future__ import annotations

import kernel_cases
import pytest
import torch

from stylegan_ops import bias_act, library, setup_filter, style_epilogue, upfirdn2d

OPS = ("bias_act", "upfirdn2d", "style_epilogue")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
CALLS = 40

pytestmark = pytest.mark.usefixtures("compiled_cpu")


@pytest.fixture(params=DEVICES)
def where(request):
    """A device whose library is loaded."""
    if request.param == "cuda":
        library.require("cuda")
    return request.param


@pytest.mark.parametrize("dtype", kernel_cases.TOLERANCES, ids=str)
@pytest.mark.parametrize("op", OPS)
def test_every_format_agrees_with_float64_on_random_calls(op, dtype, where):
    """Shapes, memory orders, gaps and odd addresses; tolerances in `kernel_cases`."""
    for seed in range(CALLS):
        name, args = kernel_cases.MAKERS[op](seed)
        expected = kernel_cases.outputs("stylegan_ops", name, args)
        _, cast = kernel_cases.cast(name, args, dtype, where)
        found = kernel_cases.outputs("stylegan_ops", name, cast)
        kernel_cases.assert_agrees(name, args, found, expected, dtype)


@pytest.mark.parametrize("op", OPS)
def test_the_float64_kernels_are_the_reference_on_random_calls(op):
    """Through the public functions, values and first gradients, 1e-12."""
    for seed in range(CALLS):
        name, args = kernel_cases.MAKERS[op](seed)
        results = []
        for impl in ("cpp", "ref"):
            leaves = [
                a.detach().clone(memory_format=torch.preserve_format).requires_grad_()
                if isinstance(a, torch.Tensor) and a.dtype == torch.float64
                else a
                for a in args
            ]
            given = [a for a in leaves if isinstance(a, torch.Tensor) and a.requires_grad]
            values = [y for y in call(op, name, leaves, impl) if y is not None]
            cotangents = [torch.cos(torch.arange(y.numel()).double()).view_as(y) for y in values]
            gradients = torch.autograd.grad(
                values, given, cotangents, allow_unused=True, materialize_grads=True
            )
            results.append([*values, *gradients])
        for ours, theirs in zip(*results, strict=True):
            largest = theirs.abs().max().clamp_min(1.0).item() if theirs.numel() else 1.0
            torch.testing.assert_close(ours, theirs, atol=1e-12 * largest, rtol=0)


def call(op, name, args, impl):
    """The public function on the arguments of an operator (its gradient calls: the same inputs)."""
    if op == "bias_act":
        first = {"bias_act": 0, "bias_act_backward": 1, "bias_act_curvature": 2}[name]
        x, b, dim, kernel, alpha, gain, clamp = args[first:]
        act = ("lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")[kernel]
        return [bias_act(x, b, dim, act, alpha, gain, clamp, impl=impl)]
    if op == "upfirdn2d":
        x, f, up_x, up_y, down_x, down_y, *padding, flip, gain = args
        return [upfirdn2d(x, f, [up_x, up_y], [down_x, down_y], padding, flip, gain, impl=impl)]
    backward = name.endswith("backward")
    x, d, b, noise, strength, style, taps, alpha, gain, clamp, last = args[2 * backward :]
    keep = last if not backward else True
    taps = None if taps is None else taps.flip(0)
    small = (d, b, noise, strength, style, taps)
    return style_epilogue(x, *small, alpha, gain, clamp, keep, impl=impl)


@pytest.mark.parametrize("op", OPS)
def test_opcheck(op, where):
    """Schema, gradients, shapes on fake tensors and tracing, as torch defines them."""
    for seed in range(4):
        name, args = kernel_cases.MAKERS[op](seed)
        args = [
            a.to(where).requires_grad_(a.dtype == torch.float64)
            if isinstance(a, torch.Tensor)
            else a
            for a in args
        ]
        torch.library.opcheck(getattr(torch.ops.stylegan_ops, name).default, args)


def layer(x, d, b, noise, style):
    """A piece of a generator with every op."""
    taps = torch.tensor([0.5, 1.5, 1.5, 0.5], device=x.device)
    impl = "cuda" if x.is_cuda else "cpp"
    y, ys = style_epilogue(x, d, b, noise, style=style, taps=taps, impl=impl)
    y = bias_act(y, b, act="lrelu", impl=impl)
    return upfirdn2d(y + ys, setup_filter([1, 3, 3, 1]).to(x), down=2, padding=1, impl=impl)


def layer_inputs(device, dtype=torch.float32):
    rng = torch.Generator().manual_seed(0)
    shapes = [(2, 8, 9, 9), (2, 8), (8,), (1, 1, 8, 8), (2, 8)]
    inputs = [torch.randn(s, generator=rng).to(device, dtype) for s in shapes]
    return [t.requires_grad_() for t in inputs]


def test_torch_compile_traces_the_ops_whole(where):
    """One graph, without a break, and the same gradients: 1e-6."""
    inputs = layer_inputs(where)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    found = torch.autograd.grad(compiled(*inputs).square().sum(), inputs)
    expected = torch.autograd.grad(layer(*inputs).square().sum(), inputs)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-6 * theirs.abs().max().item(), rtol=0)


def test_torch_export_keeps_the_ops(where):
    class Layer(torch.nn.Module):
        def forward(self, *inputs):
            return layer(*inputs)

    inputs = tuple(t.detach() for t in layer_inputs(where))
    program = torch.export.export(Layer(), inputs)
    targets = {str(node.target) for node in program.graph.nodes}
    assert {f"stylegan_ops.{op}.default" for op in OPS} <= targets
    torch.testing.assert_close(program.module()(*inputs), layer(*inputs))


def test_under_autocast_images_stay_narrow_and_factors_wide(where):
    """The convolution gives bfloat16; what follows keeps it, with float32 arithmetic inside."""
    x, d, b, noise, style = layer_inputs(where)
    weight = torch.randn(8, 8, 1, 1, generator=torch.Generator().manual_seed(1)).to(where)
    with torch.autocast(where, torch.bfloat16):
        c = torch.nn.functional.conv2d(x, weight)
        y = layer(c, d, b, noise, style)
    assert (c.dtype, y.dtype) == (torch.bfloat16, torch.bfloat16)
    y.float().sum().backward()
    assert d.grad.dtype == torch.float32
    wide = layer(c.detach().float(), d, b, noise, style)
    assert (y.float() - wide).abs().max() < 0.02 * wide.abs().max()


@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4)])
def test_empty_batches_and_channels(shape, where):
    n, c, h, w = shape
    impl = "cuda" if where == "cuda" else "cpp"
    x = torch.zeros(shape, device=where, requires_grad=True)
    b = torch.zeros(c, device=where, requires_grad=True)
    d = torch.ones(n, c, device=where, requires_grad=True)
    noise = torch.zeros(1, 1, h, w, device=where, requires_grad=True)
    y, ys = style_epilogue(x, d, b, noise, style=d, impl=impl)
    total = y.sum() + ys.sum() + bias_act(x, b, act="tanh", impl=impl).sum()
    total = total + upfirdn2d(x, setup_filter([1, 2, 1]).to(where), padding=1, impl=impl).sum()
    for gradient, like in zip(torch.autograd.grad(total, [x, b, d, noise]), (x, b, d, noise),
                              strict=True):  # fmt: skip
        assert gradient.shape == like.shape
        assert not gradient.any()


def test_nan_goes_where_its_taps_reach_and_no_further(where):
    """A clamp keeps NaN, and the zeros between samples do not multiply infinities."""
    impl = "cuda" if where == "cuda" else "cpp"
    for order in (torch.contiguous_format, torch.channels_last):
        x = torch.zeros(1, 2, 6, 6, device=where).contiguous(memory_format=order)
        x[0, 0, 2, 2], x[0, 1, 3, 3] = float("nan"), float("inf")
        y = bias_act(x, act="lrelu", clamp=1.0, impl=impl)
        assert y[0, 0, 2, 2].isnan()
        assert y[0, 1, 3, 3] == 1
        f = setup_filter([1, 3, 3, 1]).to(where)
        y = upfirdn2d(x, f, up=2, padding=[2, 1, 2, 1], impl=impl)
        touched = upfirdn2d((x != 0).float(), f, up=2, padding=[2, 1, 2, 1], impl=impl) > 0
        assert (y.isfinite() == ~touched).all()


@pytest.mark.gpu
@pytest.mark.parametrize("op", OPS)
def test_sanitize_a_few_calls(op):
    """What compute-sanitizer watches: small, since it slows every access down a hundredfold."""
    library.require("cuda")
    for seed in range(12):
        name, args = kernel_cases.MAKERS[op](3000 + seed)
        for dtype in (torch.float32, torch.bfloat16):
            _, cast = kernel_cases.cast(name, args, dtype, "cuda")
            kernel_cases.outputs("stylegan_ops", name, cast)
    torch.cuda.synchronize()


@pytest.mark.gpu
def test_a_captured_graph_replays_the_same():
    library.require("cuda")
    inputs = [t.detach() for t in layer_inputs("cuda")]
    expected = layer(*inputs)
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        layer(*inputs)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = layer(*inputs)
    out.zero_()
    graph.replay()
    assert torch.equal(out, expected)


def test_errors_name_what_is_wrong():
    x, d, b = torch.zeros(1, 2, 4, 4), torch.ones(1, 2), torch.zeros(2)
    with pytest.raises(ValueError, match="impl is 'gpu', expected one of auto, cuda, cpp, ref"):
        bias_act(x, impl="gpu")
    with pytest.raises(ValueError, match="impl is 'cuda', but the tensor is on the device 'cpu'"):
        bias_act(x, impl="cuda")
    with pytest.raises(RuntimeError, match="d has the wrong shape"):
        style_epilogue(x, d[:, :1], b, impl="cpp")
    with pytest.raises(RuntimeError, match="noise is for another number of samples"):
        style_epilogue(x, d, b, torch.zeros(3, 1, 4, 4), impl="cpp")
    with pytest.raises(RuntimeError, match="the filter is larger than the padded image"):
        upfirdn2d(x, torch.ones(9, 9), impl="cpp")


def test_the_environment_says_what_auto_means(monkeypatch):
    x = torch.zeros(1, 1)
    monkeypatch.setenv(library.CHOICE_VARIABLE, "compiled")
    assert library.use_compiled("bias_act", x, "auto")
    monkeypatch.setenv(library.CHOICE_VARIABLE, "auto")
    assert library.use_compiled("style_epilogue", x, "auto")
    assert not library.use_compiled("bias_act", x, "auto")
    monkeypatch.setenv(library.CHOICE_VARIABLE, "fast")
    with pytest.raises(ValueError, match="STYLEGAN_OPS='fast', expected one of auto, ref"):
        library.use_compiled("bias_act", x, "auto")
    assert not library.use_compiled("style_epilogue", torch.zeros(1, dtype=torch.int64), "cpp")
