"""What the benchmarks share: a clock, sides in processes of their own, rows, the machine."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import torch

from pulse_sr.errors import SetupError
from pulse_sr.jobs.diagnosis import cpu_model

Row = dict[str, Any]
Report = dict[str, Any]
Record = dict[str, float]
Progress = Callable[[str], None]
#: The seconds of every step of a side, repeat by repeat.
Runs = list[list[float]]
T = TypeVar("T")

#: The side that is not ours.
BASELINE = "baseline"


def compared(name: str, ours: Runs, baseline: Runs | None) -> Row:
    """A row of medians: `name, ours_s, baseline_s, ratio` = baseline / ours.

    `ratio_range` is the least and the largest ratio of the medians of one repeat. Without a
    baseline its values are None, and `baseline_missing` says why.
    """
    ours_s = statistics.median(itertools.chain(*ours))
    row: Row = {"name": name, "ours_s": ours_s, "baseline_s": None, "ratio": None}
    if baseline is None:
        return row | {"baseline_missing": "out of memory with one sample"}
    baseline_s = statistics.median(itertools.chain(*baseline))
    pairs = zip(baseline, ours, strict=True)
    ratios = [statistics.median(theirs) / statistics.median(own) for theirs, own in pairs]
    row |= {"baseline_s": baseline_s, "ratio": baseline_s / ours_s}
    return row | {"ratio_range": [min(ratios), max(ratios)]}


def report_of(rows: list[Row], device: torch.device, details: dict[str, Any]) -> Report:
    """The report: the `ratio` of the first row, the `rows`, and the `environment`."""
    environment = describe_machine(device) | details
    return {"ratio": rows[0]["ratio"], "rows": rows, "environment": environment}


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Versions, processor and device as plain JSON values."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def timed(device: torch.device, work: Callable[[], T]) -> tuple[float, T]:
    """The seconds that work takes until the device has done it, and its result."""
    _synchronize(device)
    clock = time.perf_counter()
    result = work()
    _synchronize(device)
    return time.perf_counter() - clock, result


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mb(device: torch.device) -> float:
    """Most memory this process has held: of the GPU on CUDA, else its resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # The resource module's maximum survives exec, so it would show the parent's.
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# A side in a process of its own has its own allocator settings and its own peak memory: those of
# two sides in one process can not be told apart.


def records(
    begin: Callable[[], Iterator[Any]], device: torch.device, orders: Iterable[str]
) -> Iterator[Record]:
    """Let a side take one turn for each order.

    Yields:
        `seconds` and `system_s` of the turn, `peak_mb` of the process so far, and `added_mb`: how
        much of that the side added to what was resident before.
    """
    before = peak_memory_mb(device)
    turns = begin()
    for _ in orders:
        system = os.times().system
        seconds, _ = timed(device, lambda: next(turns))
        peak = peak_memory_mb(device)
        used = {"seconds": seconds, "system_s": os.times().system - system}
        yield used | {"peak_mb": peak, "added_mb": peak - before}


def serve(begin: Callable[[], Iterator[Any]], device: torch.device) -> None:
    """The program of such a process: for every line on stdin a turn and a line of JSON."""
    for record in records(begin, device, sys.stdin):
        sys.stdout.write(json.dumps(record) + "\n")
        sys.stdout.flush()


@contextlib.contextmanager
def side_process(module: str, *words: object) -> Iterator[Callable[[], Record]]:
    """Run `python -m module words`, which calls `serve`.

    Yields:
        what lets it take a turn and returns the record. It raises SetupError where the process has
        ended by itself.
    """
    command = [sys.executable, "-m", module, *map(str, words)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None  # both are pipes
    assert process.stdout is not None
    orders, answers = process.stdin, process.stdout

    def turn() -> Record:
        with contextlib.suppress(BrokenPipeError):
            orders.write("\n")
            orders.flush()
        answer = answers.readline()
        if not answer:
            raise SetupError(
                f"a side of the benchmark ended by itself (exit code {process.wait()})",
                "its own message stands above; a smaller batch or resolution takes less memory",
            )
        record: Record = json.loads(answer)
        return record

    try:
        yield turn
    finally:  # at the end of its orders it ends by itself
        with contextlib.suppress(BrokenPipeError):
            orders.close()
        process.wait()
        answers.close()
