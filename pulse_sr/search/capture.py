"""Work that is done again and again on a CUDA device, recorded once as a CUDA graph.

A small step on a GPU spends its time on starting kernels, one by one, from Python. A CUDA graph
starts all of them at once. It runs the same kernels on the same memory every time: the work must
read and write fixed tensors, and nothing in it may depend on what the host knows or on what is in
a tensor. What changes from one time to the next is written into fixed tensors before it
(`write_numbers`).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch

log = logging.getLogger(__name__)

#: How often the work is done as it is before it is recorded: libraries choose their kernels and
#: their workspaces, and what is made at the first use is made.
WARM_UP = 3

Results = tuple[torch.Tensor, ...]
#: What is recorded. It returns new tensors, the same number of them each time.
Work = Callable[[], Results]


def write_numbers(tensor: torch.Tensor, numbers: Sequence[Any]) -> None:
    """Write numbers, in nested sequences of its shape, into a tensor in place.

    On a GPU nobody waits for it: the copy is taken from pinned memory that stays as it is until it
    is over.
    """
    source = torch.tensor(numbers, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
    tensor.copy_(source, non_blocking=True)


class Graph(Protocol):
    """What can record work and do it again."""

    def warm_up(self, work: Work) -> Results:
        """Do the work as it is."""

    def record(self, work: Work) -> Results:
        """Record the work without doing it. Its results are valid after each `replay`."""

    def replay(self) -> None:
        """Do what was recorded: it overwrites the results of `record`."""


class CudaGraph:
    """A CUDA graph, recorded as PyTorch's notes on CUDA semantics ask for.

    Warming up and recording are done on one side stream: the workspaces that a library keeps for
    each stream are then made before the recording, and are nobody else's.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._side = device, _side_stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def warm_up(self, work: Work) -> Results:
        here = torch.cuda.current_stream(self._device)
        self._side.wait_stream(here)
        try:
            with torch.cuda.stream(self._side):
                return work()
        finally:  # after an error as well: what is freed then must not be in use any more
            here.wait_stream(self._side)

    def record(self, work: Work) -> Results:
        # The stream brings its device, which need not be the current one: work on another stream
        # would be done at once, and be missing in the graph. `thread_local`: threads beside the
        # search may use the device meanwhile.
        made = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(made, stream=self._side, capture_error_mode="thread_local")
        with torch.cuda.device(self._device), recording:
            results = work()
        self._graph = made
        return results

    def replay(self) -> None:
        assert self._graph is not None  # it is recorded
        self._graph.replay()


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    """One for each device: workspaces stay as long as the process."""
    return torch.cuda.Stream(device)


def graph_on(device: torch.device) -> Graph | None:
    """What records work on this device; None where there is nothing."""
    return CudaGraph(device) if device.type == "cuda" else None


class Captured:
    """Does one piece of work, `WARM_UP` times as it is, and from then on as a graph.

    Where it can not be recorded it goes on as it is, with one warning.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph: Graph | None = graph
        self._warm_up = WARM_UP
        self._results: Results | None = None

    def __call__(self, work: Work) -> Results:
        """Do the work once.

        Args:
            work: the same every time. It is given anew and not kept: that would tie it and its
                owner into a circle, whose memory stays until Python looks for circles.

        Returns:
            its results; they stay as they are.

        Raises:
            torch.OutOfMemoryError: as the work itself, or where the memory does not suffice for
                recording it.
        """
        if self._graph is None:
            return work()
        if self._warm_up:
            self._warm_up -= 1
            return self._graph.warm_up(work)
        if self._results is not None:
            self._graph.replay()
        elif not self._recorded(self._graph, work):
            return work()
        assert self._results is not None  # it is recorded
        # The next replay overwrites the results.
        return tuple(each.clone() for each in self._results)

    def _recorded(self, graph: Graph, work: Work) -> bool:
        """Record the work and do it; False: it can not be recorded, and was not done."""
        try:
            self._results = graph.record(work)
            graph.replay()
        except RuntimeError as error:
            if _out_of_memory(error):
                raise torch.OutOfMemoryError(str(error)) from error
            _warn(str(error).partition("\n")[0])
            self._graph = self._results = None
        return self._graph is not None


def _out_of_memory(error: BaseException | None) -> bool:
    """Also where the recording, left in the middle, has raised an error of its own."""
    while error is not None and not isinstance(error, torch.OutOfMemoryError):
        error = error.__context__
    return error is not None


@functools.cache
def _warn(reason: str) -> None:
    """Say it once, not for each group of inputs."""
    log.warning("no CUDA graph, going on without (slower, same results): %s", reason)
