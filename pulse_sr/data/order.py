"""The order of the training data: batches by the seed and the position alone.

Shapes: N images, R resolution.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = slice | Tensor


class Order:
    """An endless order of N things: every epoch has each once, permuted by (seed, epoch)."""

    def __init__(self, size: int, seed: int) -> None:
        """Nothing is drawn yet.

        Args:
            size: N, at least 1.
            seed: of all epochs.
        """
        self._size, self._seed = size, seed
        self._latest: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def span(self, start: int, count: int) -> NDArray[np.int64]:
        """What stands at the positions `start` to `start + count`, int64 `[count]`, below N."""
        end = start + count
        pieces = [np.empty(0, np.int64)]
        while start < end:
            epoch, place = divmod(start, self._size)
            taken = min(self._size - place, end - start)
            pieces.append(self._epoch(epoch)[place : place + taken])
            start += taken
        return np.concatenate(pieces)

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        known, order = self._latest  # read and written as one: threads may share an order
        if epoch != known:
            rng = rng_of(self._seed, "epoch", epoch)
            order = torch.randperm(self._size, generator=rng).numpy()
            self._latest = (epoch, order)
        return order


class Stream(Protocol):
    """An endless stream of training data whose batches depend on their position alone."""

    def batch(self, start: int, count: int, rows: Rows | None = None) -> Tensor:
        """Items `start` to `start + count` of the stream, `[count, ...]`.

        Args:
            start: position in the stream, items shown before.
            count: items of the whole batch, over all processes.
            rows: the part of the batch that this process wants; None for all of it.
        """


class ImageStream:
    """The endless stream of whole training images: every epoch has each image once.

    Within a batch the images lie in the order of the array, not of the permutation: reading then
    goes forward through the file, and a step does not depend on the order within its batch. Runs
    that are resumed rely on both.

    Attributes:
        images: uint8 `[N, 3, R, R]`, usually a memory map.
        seed: of the order.
    """

    def __init__(self, images: np.ndarray, seed: int) -> None:
        self.images = images
        self.seed = seed
        self._order = Order(len(images), seed)

    def batch(self, start: int, count: int, rows: Rows | None = None) -> Tensor:
        """See `Stream.batch`: uint8 `[count, 3, R, R]`."""
        return torch.from_numpy(self.images[self.indices(start, count, rows)])

    def indices(self, start: int, count: int, rows: Rows | None = None) -> NDArray[np.int64]:
        """Which images `batch` gives, int64 `[count]` (or as many as `rows` picks)."""
        return pick(np.sort(self._order.span(start, count)), rows)


def pick(chosen: NDArray[np.int64], rows: Rows | None) -> NDArray[np.int64]:
    """The entries of a whole batch that `rows` picks."""
    if rows is None:
        return chosen
    return chosen[rows if isinstance(rows, slice) else rows.cpu().numpy()]


def rng_of(*key: object) -> torch.Generator:
    """A CPU generator seeded by the hash of `key`."""
    digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
