"""`pulse-sr bench ops`: each compiled op against its PyTorch reference and the usual algorithm.

All sides of a row run in one process, one call of each in turn, on random data, and only after the
compiled op has been found right.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch

from pulse_sr.bench.ceilings import Clock, Work, captured, interleaved, measure_ceilings
from pulse_sr.bench.op_cases import (
    ALL_KINDS,
    KINDS,
    Call,
    Case,
    Draw,
    Inputs,
    Kind,
    as_ports_hold_them,
    cotangents_of,
    differentiable,
    gradients_of,
    leaves_of,
    list_cases,
    must_move,
    verify,
)
from pulse_sr.bench.options import OpsBench
from pulse_sr.devices import choose_device, keep_freed_memory
from pulse_sr.errors import PulseError, SetupError, first_line
from pulse_sr.jobs.diagnosis import cpu_model
from stylegan_ops import library
from stylegan_ops.build import BuildError

Report = dict[str, Any]
Row = dict[str, Any]

#: Where the reference is also given to torch.compile: each of these takes seconds to compile.
_COMPILED_SIDES = {False: (256,), True: (16, 64, 256, 1024)}
_COMPILED_BATCH = 8
#: Calls in one measurement: as many as move this much, so that small ones are not lost in it.
_MEASURED_BYTES, _MOST_CALLS = 16 * 2**20, 8
_GRAPH_BYTES = 64 * 2**20
#: How many times the largest tensor all sides of a row may take together on a CPU.
_CPU_COPIES = 32


def measure(case: Case, clock: Clock, impl: str, repeats: int, compiled: bool = False) -> Row:
    """Verify and time one row.

    Args:
        case: the row.
        clock: of the device.
        impl: the implementation called ours.
        repeats: measurements of each side, of which the median counts.
        compiled: also give the reference to torch.compile.

    Returns:
        `name, ours_s, reference_s, baseline_s` (the usual algorithm), `ratio` (baseline / ours),
        `reference_ratio`, `compiled_s` where asked for; on CUDA for small shapes the same times as
        `..._graph_s`, from captured graphs, without launches, and their `graph_ratio`; `bytes` that
        must move, and the `bandwidth` of ours in bytes per second (of the graph, if there is one).
        Rows of `PYTORCH_KINDS` have no reference and no baseline.

    Raises:
        PulseError: the compiled op is wrong.
    """
    kind = ALL_KINDS[case.kind]
    first = kind.draw(Draw(case, clock.device, 0))
    if kind.usual is not None:
        verify(case, first, lambda inputs: kind.ours(inputs, impl))
    moved = must_move(case, first, kind.ours(first, impl))
    calls = max(1, min(_MOST_CALLS, _MEASURED_BYTES // moved))
    sets = [first, *(kind.draw(Draw(case, clock.device, k)) for k in range(1, calls))]
    works = {name: _work(case, call, sets) for name, call in _sides(kind, impl, compiled).items()}
    if kind.usual is not None:
        works["baseline"] = _work(case, kind.usual, [as_ports_hold_them(each) for each in sets])
    times = {"_s": interleaved(works, clock, repeats)}
    if clock.device.type == "cuda" and moved <= _GRAPH_BYTES:
        times["_graph_s"] = interleaved(captured(works, clock), clock, repeats)
    taken = {
        name + suffix: seconds / calls
        for suffix, each in times.items()
        for name, seconds in each.items()
    }
    return _row(case, taken, moved)


def _sides(kind: Kind, impl: str, compiled: bool) -> dict[str, Call]:
    sides: dict[str, Call] = {"ours": lambda inputs: kind.ours(inputs, impl)}
    if kind.usual is not None:
        sides["reference"] = lambda inputs: kind.ours(inputs, "ref")
    if compiled:
        # One kernel set for each shape; the gradients of one forward pass are taken repeatedly.
        torch.compiler.reset()
        torch._functorch.config.donated_buffer = False
        sides["compiled"] = torch.compile(lambda inputs: kind.ours(inputs, "ref"), dynamic=False)
    return sides


def _work(case: Case, call: Call, sets: list[Inputs]) -> Work:
    """What is timed: the op on each set of inputs, or the gradients after it has been called."""
    if case.direction == "fwd":
        return lambda: [call(inputs) for inputs in sets]
    ready = []
    for inputs in map(differentiable, sets):
        outputs = call(inputs)
        ready.append((outputs, leaves_of(inputs), cotangents_of(outputs)))
    return lambda: [gradients_of(*each) for each in ready]


def _row(case: Case, taken: dict[str, float], moved: int) -> Row:
    row: Row = {"name": case.name, "op": case.kind, "direction": case.direction}
    row |= {"shape": [case.n, case.c, case.side], "layout": case.layout}
    row |= {"dtype": str(case.dtype).removeprefix("torch.")} | taken
    ratios = {
        "ratio": ("baseline_s", "ours_s"),
        "reference_ratio": ("reference_s", "ours_s"),
        "graph_ratio": ("baseline_graph_s", "ours_graph_s"),
    }
    for key, (theirs, ours) in ratios.items():
        if theirs in taken and ours in taken:
            row[key] = taken[theirs] / taken[ours]
    fastest = taken.get("ours_graph_s", taken["ours_s"])
    return row | {"bytes": moved, "bandwidth": moved / fastest}


# ------------------------------------------------------------------ all rows


def bench_ops(
    options: OpsBench,
    progress: Callable[[str], None] = lambda text: None,
    cases: Sequence[Case] | None = None,
    impl: str | None = None,
) -> Report:
    """Measure the ops on one device.

    Args:
        options: how, and on which device.
        progress: gets a line of text now and then.
        cases: the rows; None: those of `list_cases` that fit the memory.
        impl: the implementation called ours; None: the compiled one, built where it is missing.

    Returns:
        `rows` (see `measure`) with `copy_fraction`, their bandwidth over that of a copy; `ratio`,
        the geometric mean of theirs; `pytorch`, rows of what PyTorch does in one pass; and
        `environment` with the ceilings and what was left out.

    Raises:
        SetupError: no such device, or the compiled ops can not be built.
        PulseError: a compiled op is wrong.
    """
    started = time.perf_counter()
    chosen = choose_device(options.device)
    if impl is None:
        impl = _compiled_impl(chosen)
    keep_freed_memory()
    on_gpu = chosen.type == "cuda"
    # Graphs can not be captured on the default stream.
    with torch.cuda.stream(torch.cuda.Stream(chosen)) if on_gpu else nullcontext():
        run = _Run(Clock(chosen), impl, options.repeats, options.full)
        if cases is None:
            cases = list_cases(chosen.type, options.full, _most_bytes(chosen))
        limit = math.inf if options.seconds is None else options.seconds
        for case in cases:
            if run.rows and time.perf_counter() - started > limit:
                run.left_out["time"] += 1
                continue
            progress(case.name)
            run.add(case)
        return run.report()


class _Run:
    """What has been measured so far."""

    def __init__(self, clock: Clock, impl: str, repeats: int, full: bool) -> None:
        self.clock, self.impl, self.repeats = clock, impl, repeats
        self.ceilings = measure_ceilings(clock)
        self.compiled_sides = _COMPILED_SIDES[full] if clock.device.type == "cuda" else ()
        self.compile_failure = ""
        self.rows: list[Row] = []
        self.left_out = {"time": 0, "memory": 0}

    def add(self, case: Case) -> None:
        """Measure a row, unless the memory of the GPU is too small for all its sides."""
        try:
            self.rows.append(self._measure(case))
        except torch.OutOfMemoryError:
            self.left_out["memory"] += 1

    def _measure(self, case: Case) -> Row:
        settings = self.clock, self.impl, self.repeats
        if self._is_compiled(case):
            try:
                return measure(case, *settings, compiled=True)
            except (PulseError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever the compiler and its own compilers raise
                self.compile_failure = f"{type(error).__name__}: {first_line(error)[:200]}"
        return measure(case, *settings)

    def _is_compiled(self, case: Case) -> bool:
        """Whether the reference of this row also goes to torch.compile: a few do."""
        wanted = case.side in self.compiled_sides and case.n == _COMPILED_BATCH
        right = case.dtype == torch.bfloat16 and case.kind in KINDS
        return wanted and right and not self.compile_failure

    def report(self) -> Report:
        """Measure the ceilings once more, and put everything together."""
        self.ceilings = self.ceilings.or_better(measure_ceilings(self.clock))
        for row in self.rows:
            row["copy_fraction"] = row["bandwidth"] / self.ceilings.copy
        rows = [row for row in self.rows if "ratio" in row]
        return {
            "ratio": statistics.geometric_mean(row["ratio"] for row in rows) if rows else None,
            "rows": rows,
            "pytorch": [row for row in self.rows if "ratio" not in row],
            "environment": self._environment(),
        }

    def _environment(self) -> dict[str, Any]:
        device, ceilings = self.clock.device, self.ceilings
        on_gpu = device.type == "cuda"
        found = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cpu": cpu_model(),
            "threads": torch.get_num_threads(),
            "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
            "repeats": self.repeats,
            "copy_bandwidth": ceilings.copy,
            "matrix_rate": ceilings.product,
            "matrix_format": ceilings.product_format,
            "left_out_for_time": self.left_out["time"],
            "left_out_for_memory": self.left_out["memory"],
        }
        return found | ({"torch_compile": self.compile_failure} if self.compile_failure else {})


def _compiled_impl(device: torch.device) -> str:
    try:
        library.require(device.type)
    except BuildError as error:
        raise SetupError(error.reason, error.hint) from error
    return "cuda" if device.type == "cuda" else "cpp"


def _most_bytes(device: torch.device) -> float:
    """The largest tensor that is measured: a quarter of the GPU's memory."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory / 4
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / _CPU_COPIES
