"""How near a search step comes to what the machine can do: the roofline of its passes.

No pass takes less time than its arithmetic at the rate of a large matrix product, nor less than its
traffic at the rate of a large copy (Williams et al., "Roofline", CACM 2009). The larger of both,
summed over the passes of a step, bounds the step from below. A pass is a convolution, a matrix
product or a fused op, counted while a real step runs: it reads its inputs and writes its outputs
once. What PyTorch does between them, element by element, is not in the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, shape_wrapper

from pulse_sr.bench.ceilings import Rates


@dataclass(frozen=True)
class Pass:
    """One pass over memory.

    Attributes:
        part: `convolutions`, `products` or `fused ops`.
        flop: multiplications and additions; 0 for what only moves data.
        moved: bytes read and written.
        number_format: what is multiplied: `float32`, `tfloat32` (float32 in memory) or `bfloat16`.
    """

    part: str
    flop: int
    moved: int
    number_format: str


def count_passes(work: Callable[[], object]) -> list[Pass]:
    """All passes of `work`, gradients included. What a CUDA graph replays is not seen."""
    with _Passes() as passes:
        work()
    return passes.found


class _Passes(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Pass] = []
        self.formulas: dict[Any, Any] = flop_registry | _own_formulas()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = self.formulas.get(func.overloadpacket)
        if formula is not None:
            name, read = func.overloadpacket.__name__, list(args)
            if name == "convolution_backward" and not args[-1][1]:
                del read[1]  # the input, which the gradient of frozen weights would need
            leaves = tree_leaves((read, kwargs, result))
            tensors = [each for each in leaves if isinstance(each, Tensor)]
            flop = int(formula(*args, **kwargs, out_val=result))
            moved = sum(each.nbytes for each in tensors)
            own = func.namespace == "stylegan_ops"
            part = "fused ops" if own else "products"
            part = "convolutions" if "convolution" in name else part
            self.found.append(Pass(part, flop, moved, _format_of(part, tensors[0])))
        return result


def _format_of(part: str, x: Tensor) -> str:
    """What is multiplied: on CUDA float32 may be rounded to TF32 on the way."""
    if x.dtype != torch.float32 or not x.is_cuda or part == "fused ops":
        return str(x.dtype).removeprefix("torch.")
    of_cudnn = torch.backends.cudnn.conv  # type: ignore[attr-defined]
    backend = of_cudnn if part == "convolutions" else torch.backends.cuda.matmul
    return "tfloat32" if backend.fp32_precision == "tf32" else "float32"


def _own_formulas() -> dict[Any, Callable[..., int]]:
    """Formulas of the compiled ops, where they are loaded: their FIR filters."""
    ops = torch.ops.stylegan_ops
    formulas: dict[str, Callable[..., int]] = {
        "style_epilogue": _epilogue_flop,
        "style_epilogue_backward": lambda *shapes, **named: 0,
        "upfirdn2d": _upfirdn_flop,
    }
    return {
        getattr(ops, name): shape_wrapper(each)
        for name, each in formulas.items()
        if hasattr(ops, name)
    }


def _epilogue_flop(x: Sequence[int], *rest: Any, out_shape: Any = None, **named: Any) -> int:
    taps = rest[5]
    if taps is None:
        return 0
    n, c, height, width = x
    return 2 * taps[0] ** 2 * n * c * (height - 1) * (width - 1)


def _upfirdn_flop(
    x: Sequence[int], f: Sequence[int], *geometry: Any, out_shape: Any = None, **named: Any
) -> int:
    """Every value on the smaller of the two grids meets all taps; `[k]` stands for `[k, k]`."""
    taps = math.prod(f) if len(f) == 2 else f[0] ** 2
    return 2 * taps * min(math.prod(x), math.prod(out_shape))


def bound(passes: Iterable[Pass], rates: Rates) -> dict[str, float]:
    """The least time of these passes, one after the other.

    Returns:
        `flop`, `bytes`, `compute_s` and `memory_s` (all arithmetic, all traffic), and `bound_s`:
        the larger of both of each pass, summed.
    """
    passes = list(passes)
    compute = [each.flop / rates.products[each.number_format] for each in passes]
    memory = [each.moved / rates.copy for each in passes]
    return {
        "flop": sum(each.flop for each in passes),
        "bytes": sum(each.moved for each in passes),
        "compute_s": sum(compute),
        "memory_s": sum(memory),
        "bound_s": sum(map(max, compute, memory)),
    }


def report_step(passes: Sequence[Pass], rates: Rates, step_s: float) -> dict[str, Any]:
    """The `bound` of a step, `step_s`, `share` = bound_s / step_s, the bounds of its `parts`."""
    whole = bound(passes, rates)
    names = dict.fromkeys(each.part for each in passes)
    parts = {name: bound((p for p in passes if p.part == name), rates) for name in names}
    return {**whole, "step_s": step_s, "share": whole["bound_s"] / step_s, "parts": parts}
