"""Random calls of the compiled operators, and how far a number format may lie from float64.

A case is the name of an operator and its arguments in float64 with values that the narrower formats
hold exactly; `cast` makes the call that a kernel of another format gets.
"""

from __future__ import annotations

import random

import torch

SIDES = (1, 2, 3, 4, 5, 7, 8, 16, 17, 33)
CHANNELS = (1, 2, 3, 5, 8, 16, 24, 33, 64, 72, 136)
BATCHES = (1, 2, 5)

#: Relative to the largest value: (one value, a sum relative to the sum of absolute values).
TOLERANCES = {
    torch.float64: (1e-12, 1e-12),
    torch.float32: (2e-6, 2e-6),
    torch.float16: (2e-3, 4e-6),
    torch.bfloat16: (1.6e-2, 4e-6),
}


def representable(values):
    """Values that bfloat16 holds, so that every format starts from the same numbers."""
    return values.to(torch.bfloat16).double()


class Draw:
    """Everything random of one case."""

    def __init__(self, seed):
        self.choice = random.Random(seed)
        self.generator = torch.Generator().manual_seed(seed)

    def tensor(self, *shape):
        return representable(torch.randn(shape, generator=self.generator, dtype=torch.float64))

    def image(self, n, c, h, w):
        """Plain, channels_last, or with gaps, or starting at an odd element."""
        kind = self.choice.choice(["plain", "last", "last", "transposed", "sliced", "odd"])
        if kind == "transposed":
            return self.tensor(n, c, w, h).transpose(2, 3)
        if kind == "sliced":
            return self.tensor(n, c, h, 2 * w)[..., ::2]
        if kind == "odd":
            return self.tensor(n * c * h * w + 1)[1:].view(n, c, h, w)
        order = torch.channels_last if kind == "last" else torch.contiguous_format
        return self.tensor(n, c, h, w).contiguous(memory_format=order)

    def shape(self):
        n, c = self.choice.choice(BATCHES), self.choice.choice(CHANNELS)
        return n, c, self.choice.choice(SIDES), self.choice.choice(SIDES)


def bias_act(seed):
    draw = Draw(seed)
    name = draw.choice.choice(["bias_act", "bias_act_backward", "bias_act_curvature"])
    shape = draw.shape()
    dim = draw.choice.choice([1, 1, 1, 0, 3])
    images = [draw.image(*shape) for _ in range(1 + ("_" in name[5:]) + ("curv" in name))]
    bias = draw.tensor(shape[dim]) if draw.choice.random() < 0.7 else None
    kernel = draw.choice.randrange(1 if "curv" in name else 0, 7)
    # The slope jumps at a clamp's edge: keep away from what lies on it or rounding moves across.
    clamp = draw.choice.choice([None, 40.0]) if name != "bias_act" else 0.7501
    return f"{name}", (*images, bias, dim, kernel, 0.25, 1.5, clamp)


def upfirdn2d(seed):
    draw = Draw(seed)
    n, c, h, w = draw.shape()
    up = [draw.choice.choice([1, 1, 2, 3]) for _ in range(2)]
    down = [draw.choice.choice([1, 1, 2, 4]) for _ in range(2)]
    taps = draw.choice.choice(
        [(4,), (4,), (1,), (6,), (4, 4), (4, 4), (3, 2), (12,), (1, 5), (8, 8)]
    )
    f_h, f_w = taps[0], taps[-1]
    if draw.choice.random() < 0.5:  # what StyleGAN2's layers ask for
        up, down = draw.choice.choice([([1, 1], [1, 1]), ([2, 2], [1, 1]), ([1, 1], [2, 2])])
    padding = [draw.choice.randrange(-1, 5) for _ in range(4)]
    # The padded image must hold the filter.
    padding[1] = max(padding[1], f_w - w * up[0] - padding[0])
    padding[3] = max(padding[3], f_h - h * up[1] - padding[2])
    f = draw.tensor(*taps).float()
    flip, gain = draw.choice.random() < 0.5, draw.choice.choice([1.0, 4.0])
    return "upfirdn2d", (draw.image(n, c, h, w), f, *up, *down, *padding, flip, gain)


def style_epilogue(seed):
    draw = Draw(seed)
    n, c, h, w = draw.shape()
    backward = draw.choice.random() < 0.6
    filtered, styled = draw.choice.random() < 0.4, draw.choice.random() < 0.7
    keep = not styled or draw.choice.random() < 0.6
    maps = draw.choice.choice([0, 1, n])
    x = draw.image(n, c, h + filtered, w + filtered)
    noise = draw.tensor(maps, 1, h, w) if maps else None
    strength = draw.tensor() if maps and draw.choice.random() < 0.6 else None
    style = draw.tensor(n, c) if styled else None
    taps = torch.tensor([0.25, 0.75, 0.5, -0.125]) if filtered else None
    small = (draw.tensor(n, c), draw.tensor(c), noise, strength, style, taps)
    if not backward:
        return "style_epilogue", (x, *small, 0.25, 1.5, draw.choice.choice([None, 0.75]), keep)
    dy = draw.image(n, c, h, w) if keep else None
    dys = draw.image(n, c, h, w) if styled and (not keep or draw.choice.random() < 0.8) else None
    flags = 0.25, 1.5, draw.choice.choice([None, 100.0]), draw.choice.random() < 0.7
    return "style_epilogue_backward", (dy, dys, x, *small, *flags)


MAKERS = {"bias_act": bias_act, "upfirdn2d": upfirdn2d, "style_epilogue": style_epilogue}

#: Which outputs are sums over many values, and of which argument's magnitude.
SUMS = {"style_epilogue_backward": (1, 2, 3, 4)}
#: Arguments (by position) that go to the accumulator's format instead of the storage format.
WIDE = {"style_epilogue": (1, 2, 3, 4, 5), "style_epilogue_backward": (3, 4, 5, 6, 7)}


def cast(name, args, dtype, device="cpu"):
    """The call for a kernel of `dtype`; the strides of the images stay."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32

    def convert(i, value):
        if not isinstance(value, torch.Tensor) or value.dtype == torch.float32:  # taps stay
            return value.to(device) if isinstance(value, torch.Tensor) else value
        target = wide if i in WIDE.get(name, ()) else dtype
        moved = (
            torch.empty_strided(value.shape, value.stride(), dtype=target, device=device)
            if value.ndim == 4 and not _overlaps(value)
            else None
        )
        return value.to(target).to(device) if moved is None else moved.copy_(value)

    return name, tuple(convert(i, value) for i, value in enumerate(args))


def _overlaps(value):
    return value.numel() == 0


def outputs(namespace, name, args):
    """The result of an operator as a tuple."""
    result = getattr(getattr(torch.ops, namespace), name)(*args)
    return result if isinstance(result, tuple) else (result,)


def assert_agrees(name, args, found, expected, dtype):
    """Compares with the result of the float64 kernel, `expected`."""
    value, total = TOLERANCES[dtype]
    for i, (ours, theirs) in enumerate(zip(found, expected, strict=True)):
        assert ours.shape == theirs.shape, (name, i)
        if ours.numel() == 0:
            continue
        scale = theirs.abs().max().clamp_min(1.0).item()
        tolerance = value
        if i in SUMS.get(name, ()):
            # Rounding of a sum grows with its terms, not with what is left after cancellation.
            tolerance = total * args[2].numel() ** 0.5
        error = (ours.cpu().double() - theirs).abs().max().item()
        assert error <= tolerance * scale, (name, i, error, scale)
