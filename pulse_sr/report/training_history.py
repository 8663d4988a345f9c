"""The log of a training run in a bounded number of points, kept up to date record by record."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pulse_sr.training.log import read_log

_MOST_POINTS = 1500
_FIRST_WIDTH = 100
_NOT_CURVES = ("images", "seconds", "checkpointed", "snapshot")


class History:
    """Means of every number of the log over equal stretches of images shown.

    A stretch is as short as keeps their number below `_MOST_POINTS`: when the run outgrows them,
    neighbours are joined.
    """

    def __init__(self) -> None:
        self._width = _FIRST_WIDTH
        self._newest = 0
        self._sums: dict[str, dict[int, tuple[float, int]]] = {}

    @property
    def names(self) -> list[str]:
        """What has been recorded, in the order of appearance."""
        return list(self._sums)

    def add(self, record: Mapping[str, Any]) -> None:
        """Count in a record of the log; numbers that are not finite, and None, leave a gap."""
        place = int(record["images"]) // self._width
        while place >= _MOST_POINTS:
            self._join()
            place = int(record["images"]) // self._width
        self._newest = max(self._newest, place)
        for name, value in record.items():
            if name in _NOT_CURVES or not isinstance(value, (int, float)) or not np.isfinite(value):
                continue
            sums = self._sums.setdefault(name, {})
            total, count = sums.get(place, (0.0, 0))
            sums[place] = (total + value, count + 1)

    def _join(self) -> None:
        self._width *= 2
        self._newest //= 2
        for name, sums in self._sums.items():
            joined: dict[int, tuple[float, int]] = {}
            for place, (total, count) in sums.items():
                before = joined.get(place // 2, (0.0, 0))
                joined[place // 2] = (before[0] + total, before[1] + count)
            self._sums[name] = joined

    def curve(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Thousands of images at the middle of each stretch, and the mean there.

        The stretch that the run is in is left out as long as there are others: a mean of few
        records would stick out.
        """
        sums = self._sums.get(name, {})
        places = sorted(place for place in sums if place < self._newest or len(sums) == 1)
        images = (np.array(places, dtype=np.float64) + 0.5) * self._width / 1000
        return images, np.array([sums[place][0] / sums[place][1] for place in places])


def read_history(log: Path, until_images: float) -> History:
    """The history of a log up to some number of images (`training.log.read_log`)."""
    history = History()
    for record in read_log(log, until_images):
        history.add(record)
    return history
