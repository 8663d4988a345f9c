"""How near a search step comes to what the machine can do: the roofline of its passes.

No pass takes less time than its arithmetic at the rate of a large matrix product, nor less than its
traffic at the rate of a large copy (Williams et al., "Roofline", CACM 2009). The larger of both,
summed over the passes of a step (`pulse_sr.bench.step_work`), bounds the step from below.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pulse_sr.bench.ceilings import Ceilings, Clock, measure_ceilings
from pulse_sr.bench.step_work import Formats, Pass

#: Measurements of each rate, of which the best counts.
_REPEATS = 5


@dataclass(frozen=True)
class Rates:
    """What the machine reached in this run.

    Attributes:
        copy: bytes per second, read and written ones counted.
        products: floating-point operations per second of each number format.
    """

    copy: float
    products: dict[str, float]


@dataclass(frozen=True)
class Bound:
    """What some passes take at least.

    Attributes:
        flop: operations needed.
        flop_run: operations that our program does.
        moved: bytes read and written.
        compute_s, memory_s: all arithmetic, all traffic.
        bound_s: the larger of both of each pass, summed.
    """

    flop: int
    flop_run: int
    moved: int
    compute_s: float
    memory_s: float
    bound_s: float

    def to_json(self) -> dict[str, float]:
        """The fields as plain JSON values; `moved` is named `bytes`."""
        return {
            "flop": self.flop,
            "flop_run": self.flop_run,
            "bytes": self.moved,
            "compute_s": self.compute_s,
            "memory_s": self.memory_s,
            "bound_s": self.bound_s,
        }


def bound(passes: Sequence[Pass], rates: Rates) -> Bound:
    """The least time of these passes, one after the other."""
    compute = [each.flop / rates.products[each.number_format] for each in passes]
    memory = [each.moved / rates.copy for each in passes]
    return Bound(
        flop=sum(each.flop for each in passes),
        flop_run=sum(each.flop_run for each in passes),
        moved=sum(each.moved for each in passes),
        compute_s=sum(compute),
        memory_s=sum(memory),
        bound_s=sum(map(max, compute, memory)),
    )


def report_step(passes: Sequence[Pass], rates: Rates, step_s: float) -> dict[str, Any]:
    """The bound of a step, of each of its parts, and the share of it that was reached.

    Args:
        passes: of the step.
        rates: measured in the same run.
        step_s: what the step took.

    Returns:
        `flop, flop_run, bytes, compute_s, memory_s, bound_s, step_s`, `share = bound_s / step_s`,
        and under `parts` the first six of each part.
    """
    whole = bound(passes, rates)
    names = dict.fromkeys(each.part for each in passes)
    parts = {name: bound([p for p in passes if p.part == name], rates) for name in names}
    return {
        **whole.to_json(),
        "step_s": step_s,
        "share": whole.bound_s / step_s,
        "parts": {name: part.to_json() for name, part in parts.items()},
    }


def formats_in_use(device: torch.device, bf16: bool) -> Formats:
    """What a prior computes in: autocast's bfloat16, or what torch makes of float32 there.

    On CUDA that is TF32 for convolutions and float32 for products, as long as nobody changes it.
    """
    if device.type == "cuda":
        of_cudnn = torch.backends.cudnn.conv  # type: ignore[attr-defined]
        convolution = _of_float32(of_cudnn.fp32_precision)
        wide = _of_float32(torch.backends.cuda.matmul.fp32_precision)
    else:
        convolution = wide = "float32"
    return Formats("bfloat16", "bfloat16", wide) if bf16 else Formats(convolution, wide, wide)


def _of_float32(precision: str) -> str:
    return "tfloat32" if precision == "tf32" else "float32"


def measure_rates(clock: Clock, formats: Formats) -> Rates:
    """Measure a copy, and a product in each of the formats; done twice in a run (`better`)."""
    names = dict.fromkeys((formats.convolution, formats.product, formats.wide))
    return _rates([measure_ceilings(clock, _REPEATS, number_format=name) for name in names])


def better(first: Rates, second: Rates) -> Rates:
    """The higher of each rate: whatever else the machine did can only have lowered one."""
    products = {name: max(rate, second.products[name]) for name, rate in first.products.items()}
    return Rates(max(first.copy, second.copy), products)


def _rates(found: Sequence[Ceilings]) -> Rates:
    products = {each.product_format: each.product for each in found}
    return Rates(max(each.copy for each in found), products)


# ------------------------------------------------------------------ counted as it runs


def count_flop(work: Callable[[], object]) -> int:
    """Operations of all convolutions, matrix products and FIR filters that `work` runs.

    Gradients included. What a captured CUDA graph replays is not seen.
    """
    with FlopCounterMode(display=False, custom_mapping=_own_formulas()) as counter:
        work()
    return int(counter.get_total_flops())


def _own_formulas() -> dict[Any, Callable[..., int]]:
    """Formulas of the compiled ops, where they are loaded: their FIR filters."""
    ops = torch.ops.stylegan_ops
    formulas = {"style_epilogue": _epilogue_flop, "upfirdn2d": _upfirdn_flop}
    return {getattr(ops, name): each for name, each in formulas.items() if hasattr(ops, name)}


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
