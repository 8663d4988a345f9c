"""Work that goes on beside the search: inputs are read ahead, finished ones are written.

The threads end with what they serve: none outlives its caller, also where that is interrupted.
Threads do, instead of processes: Pillow, NumPy, PyTorch and the disk let go of the interpreter
while they work, so the search hardly feels them. They touch no GPU: the search alone does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Final, ParamSpec, Self, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

#: How many items `read_ahead` has ready beyond those that were asked for.
AHEAD = 2

_END: Final = object()


def read_ahead(items: Iterable[T], ahead: int = AHEAD) -> Generator[T, None, None]:
    """Take items from their source in a thread, a few before they are asked for.

    Use it with `contextlib.closing`: closing it ends the thread after the item that it works on.

    Args:
        items: only ever asked by one thread; asked for the first one when the first is wanted.
        ahead: how many are taken beyond those that were handed out, at most.

    Yields:
        the items in their order. An error of the source comes in its place, after the items before
        it; nothing comes after it.
    """
    source = iter(items)
    pool = ThreadPoolExecutor(1, "read-ahead")
    waiting: deque[Future[Any]] = deque()
    try:
        while True:
            # One more than `ahead`: the oldest is the one that is wanted now.
            while len(waiting) <= ahead:
                waiting.append(pool.submit(next, source, _END))
            item = waiting.popleft().result()
            if item is _END:
                return
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


class Background:
    """Threads that work beside the caller, with a limit to what waits for them.

    As a context manager it completes what was handed over, whatever ends the block.
    """

    def __init__(self, name: str, threads: int = 1, most: int = 4) -> None:
        """Set up; a thread starts with the first piece of work.

        Args:
            name: of the threads.
            threads: how many; with one, the order is kept.
            most: how many pieces of work may be unfinished: what they hold stays in memory.
        """
        self._pool = ThreadPoolExecutor(threads, name)
        self._most = most
        self._unfinished: set[Future[Any]] = set()

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Hand over a piece of work; waits while the limit is reached.

        Returns:
            what gives its result, or raises its error.
        """
        try:
            while len(self._unfinished) >= self._most:
                self._unfinished = set(wait(self._unfinished, return_when=FIRST_COMPLETED).not_done)
        finally:  # also where the wait is interrupted: what is handed over is not lost
            future = self._pool.submit(work, *args, **kwargs)
            self._unfinished.add(future)
        return future

    def close(self, *, complete: bool = True) -> None:
        """End the threads.

        Args:
            complete: do all that was handed over first; else only what was begun.
        """
        self._pool.shutdown(cancel_futures=not complete)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
