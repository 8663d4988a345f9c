"""`pulse-sr bench ops`: each compiled op against its PyTorch reference and the usual algorithm.

All sides of a row run in one process, one call of each in turn, on random data, and only after the
compiled op has been found right.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Sequence
from contextlib import nullcontext

import torch

from pulse_sr.bench.ceilings import FASTEST, Clock, Work, captured, interleaved, measure_rates
from pulse_sr.bench.frame import Progress, Report, Row, describe_machine
from pulse_sr.bench.op_cases import (
    ALL_KINDS,
    Call,
    Case,
    Inputs,
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
from pulse_sr.errors import SetupError
from stylegan_ops import library
from stylegan_ops.build import BuildError

#: Calls in one measurement: as many as move this much, so that small ones are not lost in it.
_MEASURED_BYTES, _MOST_CALLS = 16 * 2**20, 8
_GRAPH_BYTES = 64 * 2**20
#: How many times the largest tensor all sides of a row may take together on a CPU.
_CPU_COPIES = 32


def bench_ops(
    options: OpsBench,
    progress: Progress = lambda text: None,
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
    device = choose_device(options.device)
    impl = _compiled_impl(device) if impl is None else impl
    keep_freed_memory()
    if cases is None:
        cases = list_cases(device.type, options.full, _most_bytes(device))
    limit = math.inf if options.seconds is None else options.seconds
    rows: list[Row] = []
    left_out = {"time": 0, "memory": 0}
    # Graphs can not be captured on the default stream.
    with torch.cuda.stream(torch.cuda.Stream(device)) if device.type == "cuda" else nullcontext():
        clock, name = Clock(device), FASTEST[device.type]
        rates = measure_rates(clock, [name])
        for case in cases:
            if rows and time.perf_counter() - started > limit:
                left_out["time"] += 1
                continue
            progress(case.name)
            try:
                rows.append(measure(case, clock, impl, options.repeats))
            except torch.OutOfMemoryError:
                left_out["memory"] += 1
        rates = rates.or_better(measure_rates(clock, [name]))
    for row in rows:
        row["copy_fraction"] = row["bandwidth"] / rates.copy
    ratios = [row["ratio"] for row in rows if "ratio" in row]
    details = {
        "repeats": options.repeats,
        "copy_bandwidth": rates.copy,
        "matrix_rate": rates.products[name],
        "matrix_format": name,
        "left_out_for_time": left_out["time"],
        "left_out_for_memory": left_out["memory"],
    }
    return {
        "ratio": statistics.geometric_mean(ratios) if ratios else None,
        "rows": [row for row in rows if "ratio" in row],
        "pytorch": [row for row in rows if "ratio" not in row],
        "environment": describe_machine(device) | details,
    }


def measure(case: Case, clock: Clock, impl: str, repeats: int) -> Row:
    """Verify and time one row.

    Args:
        case: the row.
        clock: of the device.
        impl: the implementation called ours.
        repeats: measurements of each side, of which the median counts.

    Returns:
        `name, ours_s, reference_s, baseline_s` (the usual algorithm), `ratio` (baseline / ours),
        `reference_ratio`; on CUDA for small shapes the same times as `..._graph_s`, from captured
        graphs, without launches, and their `graph_ratio`; `bytes` that must move, and the
        `bandwidth` of ours in bytes per second (of the graph, if there is one). Rows of
        `PYTORCH_KINDS` have no reference and no baseline.

    Raises:
        PulseError: the compiled op is wrong.
    """
    kind = ALL_KINDS[case.kind]
    first = case.draw(clock.device, 0)
    if kind.usual is not None:
        verify(case, first, lambda inputs: kind.ours(inputs, impl))
    moved = must_move(case, first, kind.ours(first, impl))
    calls = max(1, min(_MOST_CALLS, _MEASURED_BYTES // moved))
    sets = [first, *(case.draw(clock.device, k) for k in range(1, calls))]
    works = {"ours": _work(case, lambda inputs: kind.ours(inputs, impl), sets)}
    if kind.usual is not None:
        works["reference"] = _work(case, lambda inputs: kind.ours(inputs, "ref"), sets)
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


def summary(rows: Sequence[Row]) -> list[Row]:
    """One row for each op, order, direction and number format.

    `ratio` and `reference_ratio` are geometric means over its `rows`, `least_ratio` is the least of
    the former, `copy_percent` the median share of the copy bandwidth of those above 16 MB.
    """
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        key = tuple(row[what] for what in ("op", "layout", "direction", "dtype"))
        groups.setdefault(key, []).append(row)
    found = []
    for (op, layout, direction, dtype), own in groups.items():
        row = {"op": op, "layout": layout, "direction": direction, "dtype": dtype}
        row |= {"rows": len(own), "least_ratio": min(each["ratio"] for each in own)}
        for name in ("ratio", "reference_ratio"):
            row[name] = statistics.geometric_mean(each[name] for each in own)
        large = [each["copy_fraction"] for each in own if each["bytes"] > _MEASURED_BYTES]
        found.append(row | {"copy_percent": 100 * statistics.median(large) if large else None})
    return found


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
