"""The time of a training: of one call, of the steps alone, and since the last checkpoint."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of this call, of training alone, and since the last checkpoint.

    Attributes:
        images_before: shown before this call.
        seconds_before: of training, before this call.
    """

    def __init__(self, images_before: int, seconds_before: float) -> None:
        self.images_before, self.seconds_before = images_before, seconds_before
        self._started = self._checkpoint = time.perf_counter()
        self._paused = 0.0

    @contextmanager
    def paused(self) -> Iterator[None]:
        """What happens meanwhile is no training: others look at the run."""
        began = time.perf_counter()
        yield
        self._paused += time.perf_counter() - began

    def training(self) -> float:
        """Of this call, without the pauses."""
        return self.elapsed() - self._paused

    def elapsed(self) -> float:
        """Of this call."""
        return time.perf_counter() - self._started

    def since_checkpoint(self) -> float:
        """Since `restart_checkpoint`, or the beginning."""
        return time.perf_counter() - self._checkpoint

    def restart_checkpoint(self) -> None:
        """A checkpoint was written now."""
        self._checkpoint = time.perf_counter()
