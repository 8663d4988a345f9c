"""The clock of the op benchmark, and what the machine can do at best, measured by it.

An op that only moves data can not beat a plain copy of as many bytes, and a convolution can not
beat a large matrix product: these two rates are the ceilings.
"""

from __future__ import annotations

import contextlib
import functools
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch

Work = Callable[[], object]

#: Overwritten before every measurement on a CPU. Caches shared with other machines of a host are
#: larger, but little of them is ours.
_CPU_FLUSH_BYTES = 64 * 2**20
#: For a GPU whose L2 size torch does not tell.
_USUAL_L2_BYTES = 64 * 2**20

_COPY_BYTES = {"cuda": 2**30, "cpu": 256 * 2**20}
_SIDE = {"cuda": 8192, "cpu": 2048}
#: The format of matrix products in which a device is fastest.
FASTEST = {"cuda": "bfloat16", "cpu": "float32"}
#: TF32 is float32 in memory.
_DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "tfloat32": torch.float32}


@dataclass(frozen=True)
class Rates:
    """What the machine reached.

    Attributes:
        copy: bytes per second of a large copy within the device, read and written ones counted.
        products: floating-point operations per second of a large square matrix product, by number
            format.
    """

    copy: float
    products: dict[str, float]

    def or_better(self, other: Rates) -> Rates:
        """The higher of each rate: whatever else the machine did can only have lowered one."""
        products = {name: max(rate, other.products[name]) for name, rate in self.products.items()}
        return Rates(max(self.copy, other.copy), products)


class Clock:
    """Times work on one device, with caches that hold none of its inputs.

    On CUDA by events on the current stream, else by the wall.
    """

    def __init__(self, device: torch.device) -> None:
        """Allocate what is overwritten to empty the caches."""
        self.device = device
        self._scratch = torch.ones(_flush_bytes(device) // 4, device=device)

    def seconds(self, work: Work) -> float:
        """Seconds of one call of `work`, of which nothing has been done before.

        What `work` returns is kept until the clock has been read: freeing is not measured, and no
        output can take the place of another one that is still in the cache.
        """
        self._scratch.add_(1)
        if self.device.type != "cuda":
            clock = time.perf_counter()
            kept = work()
            taken = time.perf_counter() - clock
            del kept
            return taken
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # A GPU that were still busy would hide the launches of the first calls.
        torch.cuda.synchronize(self.device)
        start.record()
        kept = work()
        end.record()
        end.synchronize()
        del kept
        return start.elapsed_time(end) / 1000


def interleaved(
    works: Mapping[str, Work],
    clock: Clock,
    repeats: int,
    choose: Callable[[list[float]], float] = statistics.median,
) -> dict[str, float]:
    """Seconds of each, one call of each in turn after one that is not counted.

    Args:
        works: by name.
        clock: of the device.
        repeats: counted calls of each.
        choose: makes one number of them.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(repeats + 1):
        for name, work in works.items():
            taken = clock.seconds(work)
            if repeat:
                times[name].append(taken)
    return {name: choose(each) for name, each in times.items()}


def captured(works: Mapping[str, Work], clock: Clock) -> dict[str, Work]:
    """The same work as replays of CUDA graphs, in which launches cost next to nothing.

    Each must have run before. One that can not be captured is left out.
    """
    replays: dict[str, Work] = {}
    for name, work in works.items():
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=torch.cuda.current_stream(clock.device)):
                kept = work()
        except RuntimeError:
            continue
        # What a graph writes to lives as long as what it returned.
        replays[name] = lambda graph=graph, kept=kept: graph.replay()  # type: ignore[misc]
    return replays


def measure_rates(
    clock: Clock,
    formats: Iterable[str],
    repeats: int = 10,
    copy_bytes: int | None = None,
    side: int | None = None,
) -> Rates:
    """Measure the ceilings on random data: the fastest of some calls counts.

    On a CPU both use as many threads as torch does.

    Args:
        clock: of the device.
        formats: of the products: `bfloat16`, `float32` or `tfloat32` (TF32 on CUDA, float32 on a
            CPU).
        repeats: measurements of each.
        copy_bytes: size of the copied buffer; None: 1 GiB on CUDA, 256 MiB on a CPU.
        side: of the matrices; None: 8192 on CUDA, 2048 on a CPU.
    """
    device = clock.device
    rng = torch.Generator(device).manual_seed(0)
    count = (copy_bytes or _COPY_BYTES[device.type]) // 4
    source = torch.randn(count, generator=rng, device=device)
    target = torch.empty_like(source)
    copy = interleaved({"": lambda: target.copy_(source)}, clock, repeats, min)[""]
    side, products = side or _SIDE[device.type], {}
    for name in formats:
        a, b = torch.randn(2, side, side, generator=rng, device=device, dtype=_DTYPES[name])
        with _float32_products(exact=name != "tfloat32"):
            work: Work = functools.partial(torch.matmul, a, b)
            products[name] = 2 * side**3 / interleaved({"": work}, clock, repeats, min)[""]
    return Rates(2 * source.nbytes / copy, products)


@contextlib.contextmanager
def _float32_products(exact: bool) -> Iterator[None]:
    """Inside, products of float32 on CUDA are exact, or rounded to TF32."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "ieee" if exact else "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def _flush_bytes(device: torch.device) -> int:
    if device.type != "cuda":
        return _CPU_FLUSH_BYTES
    properties = torch.cuda.get_device_properties(device)
    return 4 * int(getattr(properties, "L2_cache_size", 0) or _USUAL_L2_BYTES)
