"""Near-duplicates among crops, by a perceptual hash of 256 bits.

The hash is the sign of the lowest 16 x 16 DCT coefficients of the grey image at 64 px
(`imagehash.phash`). Measured on aligned faces of 128 px: copies that were shifted by up to 1.5 px,
scaled by 2 %, brightened and saved as JPEG of quality 60 differ in 30 bits (median), 50 (90 %);
among 4.5 million pairs of different files the three with at most 50 bits were all the same photo,
the nearest two persons differ in 54.
"""

from __future__ import annotations

from collections.abc import Sequence

import imagehash
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pulse_sr.images.pixels import Pixels, to_pillow

#: Crops whose hashes differ in at most this many bits are the same picture.
MOST_BITS = 48
_SIDE = 16
_BLOCK_ENTRIES = 4_000_000


def perceptual_hash(crop: Pixels) -> str:  # [3, S, S]
    """Returns the hash as 64 hexadecimal digits."""
    return str(imagehash.phash(to_pillow(crop), hash_size=_SIDE))


class SeenHashes:
    """The hashes of the crops so far, in order."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._bits = np.empty((64, _SIDE * _SIDE // 8), np.uint8)

    def nearest(self, text: str) -> str | None:
        """Returns the name of the nearest crop if it is a near-duplicate, else None."""
        if not self._names:
            return None
        different = np.unpackbits(self._bits[: len(self._names)] ^ _bytes(text), axis=1)
        distances = different.sum(axis=1)
        best = int(distances.argmin())
        return self._names[best] if distances[best] <= MOST_BITS else None

    def add(self, name: str, text: str) -> None:
        """Remembers a crop."""
        if len(self._names) == len(self._bits):
            self._bits = np.concatenate([self._bits, np.empty_like(self._bits)])
        self._bits[len(self._names)] = _bytes(text)
        self._names.append(name)


def near_duplicates(hashes: Sequence[str]) -> list[list[int]]:
    """Groups hashes: two are in one group if a chain of near-duplicates links them.

    Args:
        hashes: as `perceptual_hash` gives them.

    Returns:
        the positions of each group of two or more, ascending; groups by their first position.
    """
    if not hashes:
        return []
    first = _linked(np.stack([_bytes(text) for text in hashes]))
    groups: dict[int, list[int]] = {}
    for place, leader in enumerate(first.tolist()):
        groups.setdefault(leader, []).append(place)
    return [group for group in groups.values() if len(group) > 1]


def _linked(packed: NDArray[np.uint8]) -> NDArray[np.intp]:  # [N, 32] -> [N]
    """Returns for each hash the first one that a chain of near-duplicates links it with."""
    bits = np.unpackbits(packed, axis=1)
    # With bits as signs, a product of two rows is the number of bits less twice those that differ:
    # whole numbers, exact in float32, and a matrix product compares a block of rows with the rest.
    signs = bits.astype(np.float32) * 2 - 1
    least = bits.shape[1] - 2 * MOST_BITS
    first = np.arange(len(signs))
    step = max(1, _BLOCK_ENTRIES // len(signs))  # pairs take tens of megabytes at the most
    for start in range(0, len(signs), step):
        near = signs[start : start + step] @ signs[start:].T >= least
        rows, columns = np.nonzero(np.triu(near, k=1))
        if len(rows):
            first = _merge(first, rows + start, columns + start)
    return first


def _merge(
    first: NDArray[np.intp], one: NDArray[np.intp], other: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Returns `first` after linking each of `one` with its partner in `other`."""
    size = len(first)
    ends = (np.concatenate([np.arange(size), one]), np.concatenate([first, other]))
    links = coo_array((np.ones(len(ends[0]), np.uint8), ends), shape=(size, size))
    _, labels = connected_components(links, directed=False)
    _, leaders = np.unique(labels, return_index=True)
    return leaders[labels]


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(bytes.fromhex(text), np.uint8)
