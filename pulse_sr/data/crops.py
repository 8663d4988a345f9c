"""Random patches of photos of any size, for training super-resolution.

A photo is decoded when its patches are due, as a whole and nowhere else: folders of large photos
need neither a cache on the disk nor one square each. A JPEG of 2000x1500 px takes 41 ms of a core;
several patches of one decoding cost little more than one, and stand next to each other in the
stream. A gzip'ed tar has to be unpacked up to its photos for every batch: unpack it before.

Shapes: N items of a batch, P side of a patch in pixels, h w size of a photo.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_sr.data.decode import WORKERS, in_threads
from pulse_sr.data.order import Order, Rows, pick, rng_of
from pulse_sr.data.picture import decode_whole, upright_size
from pulse_sr.data.sources import ImageSource, Opener, Refusal, reason_of
from pulse_sr.errors import InputError, PulseError
from pulse_sr.images.decode import explain_damage, open_header
from pulse_sr.images.pixels import Pixels


@dataclass(frozen=True)
class Photos:
    """The photos of a source that are large enough for a patch.

    Attributes:
        source: of the photos.
        positions: their places in the source.
        skipped: (name, reason) of the others.
        content_sha256: of the files, in order: other photos make another run.
    """

    source: ImageSource
    positions: tuple[int, ...]
    skipped: tuple[Refusal, ...]
    content_sha256: str


def list_photos(source: ImageSource, side: int) -> Photos:
    """Read every file and the header in it, but no pixels.

    Args:
        source: of the photos.
        side: P; smaller photos are skipped.

    Raises:
        InputError: when none is large enough.
    """

    def take(name: str, opener: Opener) -> tuple[str, str]:
        try:
            data = opener()
            with explain_damage(name, data):
                width, height = upright_size(open_header(name, data))
        except PulseError as error:
            return "", reason_of(error.message, name)
        small = min(width, height) < side
        reason = f"is {width}x{height}, smaller than a patch of {side} px" if small else ""
        return hashlib.sha256(data).hexdigest(), reason

    found = dict(in_threads(source, take))
    names = source.names
    refused = [(names[i], found[i][1]) for i in range(len(names)) if found[i][1]]
    positions = tuple(i for i in range(len(names)) if not found[i][1])
    if not positions:
        reason = " ".join(refused[0]) if refused else "it is empty"
        raise InputError(f"{source.location} holds no photo to learn from: {reason}", "add some")
    content = "\n".join(found[i][0] for i in positions)
    digest = hashlib.sha256(content.encode()).hexdigest()
    return Photos(source, positions, (*source.refused, *refused), digest)


class CropStream:
    """The endless stream of patches: every epoch has `per_photo` of each photo, one after another.

    Which photos, and where in them, depends on the seed and the position in the stream alone.
    """

    def __init__(self, photos: Photos, side: int, seed: int, per_photo: int = 1) -> None:
        """Nothing is read before the first batch.

        Args:
            photos: none smaller than a patch.
            side: P.
            seed: of the order and of the places.
            per_photo: patches of each photo in an epoch.
        """
        self.photos, self.side, self.seed, self.per_photo = photos, side, seed, per_photo
        self._order = Order(len(photos.positions), seed)

    def batch(self, start: int, count: int, rows: Rows | None = None) -> Tensor:
        """See `Stream.batch`: uint8 `[count, 3, P, P]`; only the photos of `rows` are read.

        Raises:
            InputError: a photo is damaged, or has become smaller.
        """
        items = pick(np.arange(start, start + count), rows)
        positions = self._positions(items)
        patches = np.empty((len(items), 3, self.side, self.side), np.uint8)

        def cut(position: int, opener: Opener) -> None:
            name = self.photos.source.names[position]
            photo = decode_whole(name, opener())
            for place in np.flatnonzero(positions == position):
                patches[place] = self._patch(name, photo, int(items[place]))

        wanted = self.photos.source.read(np.unique(positions).tolist())
        with ThreadPoolExecutor(WORKERS, "photos") as pool:
            for done in [pool.submit(cut, *each) for each in wanted]:
                done.result()
        return torch.from_numpy(patches)

    def _positions(self, items: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places in the source of the photos that the items of the stream are cut from."""
        if not len(items):
            return items
        turns = items // self.per_photo
        first = int(turns.min())
        chosen = self._order.span(first, int(turns.max()) - first + 1)[turns - first]
        known: Sequence[int] = self.photos.positions
        return np.array([known[number] for number in chosen])

    def _patch(self, name: str, photo: Pixels, item: int) -> Pixels:  # [3, h, w] -> [3, P, P]
        height, width = photo.shape[1:]
        if min(height, width) < self.side:
            raise InputError(f"{name} has become smaller than a patch", "put it back as it was")
        rng = rng_of(self.seed, "crop", item)
        top, left = (
            int(torch.randint(0, size - self.side + 1, (), generator=rng))
            for size in (height, width)
        )
        return photo[:, top : top + self.side, left : left + self.side]
