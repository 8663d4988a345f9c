"""What `bench ops` measures: the ops on StyleGAN2's shapes, the usual algorithm, and the check.

"Usual" is what ports of StyleGAN2 do without kernels of their own, written from its description:
one PyTorch op for each step, on tensors in plain NCHW order.

Shapes: N images, C channels, r side of the larger of an op's two images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.errors import PulseError
from pulse_sr.priors.stylegan2 import RESAMPLE_TAPS, StyleGAN2Config
from stylegan_ops import SQRT2, bias_act, setup_filter, style_epilogue, upfirdn2d

Inputs = dict[str, Tensor]
Outputs = tuple[Tensor, ...]
Call = Callable[[Inputs], Outputs]

DIRECTIONS = ("fwd", "bwd")
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
#: What StyleGAN2 limits activations to where they are in half precision; nothing in float32.
CLAMP = {torch.float32: None, torch.bfloat16: 256.0}
#: Relative errors that rounding explains: (values, by the largest; gradients, by the norm, since a
#: leaky ReLU's slope may change where a value is next to zero).
TOLERANCES = {torch.float32: (1e-5, 1e-3), torch.bfloat16: (1e-2, 3e-2)}

_BATCHES = (8, 1, 32)  # the order of interest, should the time be too short
_CPU_SIDE, _CPU_BATCHES = 128, (8, 1)


@dataclass(frozen=True)
class Case:
    """One row: an op of `KINDS` on one shape."""

    kind: str
    n: int
    c: int
    side: int
    dtype: torch.dtype
    layout: str
    direction: str

    @property
    def name(self) -> str:
        """How the row is called."""
        number_format = {torch.float32: "fp32", torch.bfloat16: "bf16"}[self.dtype]
        shape = f"{self.n}x{self.c}x{self.side}"
        return f"{self.kind} {self.direction} {shape} {number_format} {self.layout}"

    def draw(self, device: torch.device, seed: int) -> Inputs:
        """Random inputs by name."""
        return ALL_KINDS[self.kind].draw(self, torch.Generator(device).manual_seed(seed))

    def image(self, rng: torch.Generator, side: int, widen: int = 1) -> Tensor:
        """`[N, widen * C, side, side]` in the case's format and layout."""
        size, order = (self.n, widen * self.c, side, side), LAYOUTS[self.layout]
        x = torch.empty(size, dtype=self.dtype, device=rng.device, memory_format=order)
        return x.normal_(generator=rng)

    def small(self, rng: torch.Generator, *size: int, mean: float = 0.0) -> Tensor:
        """A float32 operand whose values the case's format holds."""
        values = torch.randn(size, generator=rng, device=rng.device) + mean
        return values.to(self.dtype).float()

    @property
    def tensor_bytes(self) -> int:
        """Size of `[N, C, r, r]`."""
        return self.n * self.c * self.side**2 * self.dtype.itemsize


@dataclass(frozen=True)
class Kind:
    """An op in one setting.

    Attributes:
        draw: makes the inputs by name. Those named f or taps are constant filters.
        ours: calls our op with an `impl`; for what PyTorch has, ignores it.
        usual: the usual algorithm, or None for what PyTorch does in one pass.
        read_back: the inputs that a gradient needs beside the cotangents.
        layouts: memory orders that it is measured in.
    """

    draw: Callable[[Case, torch.Generator], Inputs]
    ours: Callable[[Inputs, str], Outputs]
    usual: Call | None
    read_back: tuple[str, ...]
    layouts: tuple[str, ...] = ("nhwc",)


# ------------------------------------------------------------------ the usual algorithms


def usual_bias_act(x: Tensor, b: Tensor, clamp: float | None) -> Tensor:
    """Bias, leaky ReLU, gain and clamp, one after the other."""
    x = x + b.to(x.dtype)[None, :, None, None]
    x = F.leaky_relu(x, 0.2)
    x = x * SQRT2
    return x if clamp is None else x.clamp(-clamp, clamp)


def usual_upfirdn2d(
    x: Tensor, f: Tensor, up: int, down: int, padding: Sequence[int], gain: float
) -> Tensor:
    """Zero insertion by padding a reshaped tensor, pad, depthwise convolution, strided slice."""
    n, c, h, w = x.shape
    if up > 1:
        x = F.pad(x.reshape(n, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1])
        x = x.reshape(n, c, h * up, w * up)
    x = F.pad(x, list(padding))
    kernel = (f * gain).flip([0, 1]).to(x.dtype)
    x = F.conv2d(x, kernel[None, None].repeat(c, 1, 1, 1), groups=c)
    return x if down == 1 else x[:, :, ::down, ::down]


def usual_epilogue(
    x: Tensor,
    d: Tensor,
    b: Tensor,
    noise: Tensor,
    strength: Tensor,
    style: Tensor,
    clamp: float | None,
    f: Tensor | None = None,
) -> Outputs:
    """FIR, demodulation, noise, bias, leaky ReLU, gain, clamp, and the next layer's style."""
    if f is not None:
        x = usual_upfirdn2d(x, f, 1, 1, [1, 1, 1, 1], 1.0)
    x = x * d.to(x.dtype)[:, :, None, None]
    x = x + (noise * strength).to(x.dtype)
    x = usual_bias_act(x, b, clamp)
    return x, x * style.to(x.dtype)[:, :, None, None]


def as_ports_hold_them(inputs: Inputs) -> Inputs:
    """The inputs of the usual algorithms: in plain order, a filter's taps as a square `f`."""
    plain = {name: x.contiguous() for name, x in inputs.items()}
    taps = plain.pop("taps", None)
    return plain if taps is None else plain | {"f": torch.outer(taps, taps)}


# ------------------------------------------------------------------ what is measured


def _bias_act_kind() -> Kind:
    def ours(i: Inputs, impl: str) -> Outputs:
        return (bias_act(i["x"], i["b"], act="lrelu", clamp=CLAMP[i["x"].dtype], impl=impl),)

    return Kind(
        draw=lambda case, rng: {"x": case.image(rng, case.side), "b": case.small(rng, case.c)},
        ours=ours,
        usual=lambda i: (usual_bias_act(i["x"], i["b"], CLAMP[i["x"].dtype]),),
        read_back=("x", "b"),
        layouts=("nhwc", "nchw"),
    )


def _upfirdn2d_kind(up: int, down: int, padding: Sequence[int], extra: int = 0) -> Kind:
    """Of four taps; the input has `extra` rows and columns more."""
    gain = float(up**2) if extra == 0 else 4.0  # a blur follows a convolution that inserted zeros

    def draw(case: Case, rng: torch.Generator) -> Inputs:
        f = setup_filter(RESAMPLE_TAPS).to(rng.device)
        return {"x": case.image(rng, case.side // up + extra), "f": f}

    def ours(i: Inputs, impl: str) -> Outputs:
        return (upfirdn2d(i["x"], i["f"], up, down, padding, gain=gain, impl=impl),)

    def usual(i: Inputs) -> Outputs:
        return (usual_upfirdn2d(i["x"], i["f"], up, down, padding, gain),)

    return Kind(draw, ours, usual, read_back=("f",))


def _epilogue_kind(fir: bool) -> Kind:
    def draw(case: Case, rng: torch.Generator) -> Inputs:
        n, c, side = case.n, case.c, case.side
        inputs = {
            "x": case.image(rng, side + fir),
            "d": case.small(rng, n, c, mean=1.0),
            "b": case.small(rng, c),
            "noise": case.small(rng, n, 1, side, side),
            "strength": case.small(rng),
            "style": case.small(rng, n, c, mean=1.0),
        }
        taps = 2 * setup_filter(RESAMPLE_TAPS).sum(dim=0).to(rng.device)
        return inputs | ({"taps": taps} if fir else {})

    def ours(i: Inputs, impl: str) -> Outputs:
        options: dict[str, Any] = {**i, "clamp": CLAMP[i["x"].dtype], "impl": impl}
        y, ys = style_epilogue(**options)
        assert y is not None  # it was asked to keep it
        assert ys is not None  # a style was given
        return y, ys

    def usual(i: Inputs) -> Outputs:
        return usual_epilogue(**i, clamp=CLAMP[i["x"].dtype])

    small = ("d", "b", "noise", "strength", "style")
    return Kind(draw, ours, usual, read_back=("x", *small, *(["taps"] if fir else [])))


KINDS = {
    "bias_act": _bias_act_kind(),
    "upfirdn2d up": _upfirdn2d_kind(2, 1, [2, 1, 2, 1]),
    "upfirdn2d down": _upfirdn2d_kind(1, 2, [1, 1, 1, 1]),
    "upfirdn2d blur": _upfirdn2d_kind(1, 1, [1, 1, 1, 1], extra=1),
    "style_epilogue": _epilogue_kind(fir=False),
    "style_epilogue+fir": _epilogue_kind(fir=True),
}

# FastGAN's pair. In evaluation mode its batch norm is part of the convolution before it, so that
# PyTorch needs one pass for each: these rows show what a fused op could still gain.
PYTORCH_KINDS = {
    "glu": Kind(
        draw=lambda case, rng: {"x": case.image(rng, case.side, widen=2)},
        ours=lambda i, impl: (F.glu(i["x"], dim=1),),
        usual=None,
        read_back=("x",),
        layouts=("nhwc", "nchw"),
    ),
    "gating": Kind(
        draw=lambda case, rng: {
            "x": case.image(rng, case.side),
            "gate": case.small(rng, case.n, case.c, 1, 1, mean=1.0).to(case.dtype),
        },
        ours=lambda i, impl: (i["x"] * i["gate"],),
        usual=None,
        read_back=("x", "gate"),
        layouts=("nhwc", "nchw"),
    ),
}
ALL_KINDS = KINDS | PYTORCH_KINDS
_FILTERS = ("f", "taps")


def list_cases(device_type: str, full: bool, most_bytes: float) -> list[Case]:
    """The rows in the order of interest.

    The shapes are those of StyleGAN2's config F, 4 to 1024 px, and those of the bundled prior.

    Args:
        device_type: "cpu" (float32) or "cuda" (bfloat16 and float32).
        full: on a CPU also sides above 128 px and batch 32.
        most_bytes: larger tensors are left out.
    """
    on_cpu = device_type == "cpu"
    networks = StyleGAN2Config.from_base(1024), StyleGAN2Config.from_base(64, 2048, 128)
    shapes = {pair for net in networks for pair in zip(net.channels, net.sides, strict=True)}
    small = on_cpu and not full
    batches = _CPU_BATCHES if small else _BATCHES
    found: list[Case] = []
    for n in batches:
        for dtype in [torch.float32] if on_cpu else [torch.bfloat16, torch.float32]:
            for c, side in sorted(shapes, key=lambda shape: shape[0] * shape[1] ** 2):
                if not (small and side > _CPU_SIDE):
                    found += _cases_of_shape(n, c, side, dtype)
    return [case for case in found if case.tensor_bytes <= most_bytes]


def _cases_of_shape(n: int, c: int, side: int, dtype: torch.dtype) -> Iterator[Case]:
    for name, kind in ALL_KINDS.items():
        if kind.usual is None and n != _BATCHES[0]:
            continue
        for layout in kind.layouts:
            for direction in DIRECTIONS:
                yield Case(name, n, c, side, dtype, layout, direction)


# ------------------------------------------------------------------ one row


def must_move(case: Case, inputs: Inputs, outputs: Outputs) -> int:
    """Bytes that no implementation can spare.

    Forward reads every input and writes every output once. Backward reads the cotangents and what
    the gradient depends on, and writes the gradients of all inputs but filters.
    """
    written = sum(y.nbytes for y in outputs)
    if case.direction == "fwd":
        return sum(x.nbytes for x in inputs.values()) + written
    read = sum(inputs[name].nbytes for name in ALL_KINDS[case.kind].read_back)
    return written + read + sum(x.nbytes for x in leaves_of(inputs))


def leaves_of(inputs: Inputs) -> list[Tensor]:
    return [x for name, x in inputs.items() if name not in _FILTERS]


def differentiable(inputs: Inputs) -> Inputs:
    return {
        name: x if name in _FILTERS else x.detach().requires_grad_() for name, x in inputs.items()
    }


def cotangents_of(outputs: Outputs) -> list[Tensor]:
    rng = torch.Generator(outputs[0].device).manual_seed(1)
    return [torch.empty_like(y).normal_(generator=rng) for y in outputs]


def gradients_of(outputs: Outputs, leaves: list[Tensor], cotangents: list[Tensor]) -> Outputs:
    return torch.autograd.grad(outputs, leaves, cotangents, retain_graph=True)


def verify(case: Case, inputs: Inputs, call: Call) -> None:
    """Compare values and, for a backward row, gradients with the reference in float32.

    Raises:
        PulseError: `call` is not the op.
    """
    limits, backward = TOLERANCES[case.dtype], case.direction == "bwd"
    given = differentiable(inputs) if backward else inputs
    outputs = call(given)  # first, so that it finds no right values in the memory that it takes
    cotangents = cotangents_of(outputs) if backward else []
    gradients = gradients_of(outputs, leaves_of(given), cotangents) if backward else ()
    wide = {name: x.float() for name, x in inputs.items()}
    wide = differentiable(wide) if backward else wide
    # TF32 would make the reference the less exact one.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = ALL_KINDS[case.kind].ours(wide, "ref")
        _judge(case, "values", _errors(outputs, expected, math.inf), limits[0])
        if backward:
            slopes = gradients_of(expected, leaves_of(wide), [each.float() for each in cotangents])
            _judge(case, "gradients", _errors(gradients, slopes, 2), limits[1])


def _errors(found: Outputs, expected: Outputs, order: float) -> list[float]:
    """Norms of the differences over those of what is expected."""
    norm = torch.linalg.vector_norm
    return [
        float(norm(a.detach().float() - b.detach(), order) / norm(b.detach(), order))
        for a, b in zip(found, expected, strict=True)
    ]


def _judge(case: Case, what: str, errors: list[float], limit: float) -> None:
    worst = max(errors, key=lambda error: math.inf if math.isnan(error) else error)
    if not worst <= limit:
        raise PulseError(
            f"{case.name}: {what} of the compiled op differ from the reference by {worst:.2g} "
            f"(at most {limit:g}): not measured",
            "STYLEGAN_OPS=ref runs without the compiled ops; please report this",
        )
