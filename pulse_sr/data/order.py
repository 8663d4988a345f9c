"""The order of the training images: batches by the seed and the position alone.

Shapes: N images, R resolution.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Rows = slice | Tensor


class ImageStream:
    """The endless stream of training images: every epoch has each image once.

    The order of an epoch is a permutation drawn from (seed, epoch). Within a batch the images lie
    in the order of the array, not of the permutation: reading then goes forward through the file,
    and a step does not depend on the order within its batch. Runs that are resumed rely on both.

    Attributes:
        images: uint8 `[N, 3, R, R]`, usually a memory map.
        seed: of the order.
    """

    def __init__(self, images: np.ndarray, seed: int) -> None:
        self.images = images
        self.seed = seed
        self._latest: tuple[int, NDArray[np.int64]] = (-1, np.empty(0, np.int64))

    def batch(self, start: int, count: int, rows: Rows | None = None) -> Tensor:
        """Images `start` to `start + count` of the stream, uint8 `[count, 3, R, R]`.

        Args:
            start: position in the stream, images shown before.
            count: images of the whole batch, over all processes.
            rows: the part of the batch that this process wants; None for all of it.
        """
        return torch.from_numpy(self.images[self.indices(start, count, rows)])

    def indices(self, start: int, count: int, rows: Rows | None = None) -> NDArray[np.int64]:
        """Which images `batch` gives, int64 `[count]` (or as many as `rows` picks)."""
        chosen = np.sort(np.concatenate(self._pieces(start, count)))
        if rows is None:
            return chosen
        return chosen[rows if isinstance(rows, slice) else rows.cpu().numpy()]

    def _pieces(self, start: int, count: int) -> list[NDArray[np.int64]]:
        """The batch as runs within one epoch each."""
        size, end = len(self.images), start + count
        pieces = []
        while start < end:
            epoch, place = divmod(start, size)
            taken = min(size - place, end - start)
            pieces.append(self._order_of(epoch)[place : place + taken])
            start += taken
        return pieces

    def _order_of(self, epoch: int) -> NDArray[np.int64]:
        known, order = self._latest  # read and written as one: threads may share a stream
        if epoch != known:
            rng = rng_of(self.seed, "epoch", epoch)
            order = torch.randperm(len(self.images), generator=rng).numpy()
            self._latest = (epoch, order)
        return order


def rng_of(*key: object) -> torch.Generator:
    """A CPU generator seeded by the hash of `key`."""
    digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
