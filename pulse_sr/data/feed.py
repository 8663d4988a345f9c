"""Batches that are ready when the device asks for them.

Shapes: N images of the set, n images of this process in a batch, R resolution.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

import numpy as np
import torch
from torch import Tensor

from pulse_sr.data.order import ImageStream, Rows, Stream

#: Share of the free memory of a GPU that the images may take.
DEVICE_SHARE = 0.25
_CHUNK_BYTES = 64 << 20


class Feed(ABC):
    """The batches of a training, on its device; the very ones of `Stream.batch`.

    Use it as a context manager, or call `close` at the end.
    """

    @abstractmethod
    def batch(self, start: int) -> Tensor:
        """The batch at position `start` of the stream, its `rows` on the device.

        Any position may be asked for; one after the other is fast.
        """

    def close(self) -> None:  # noqa: B027  a feed that holds nothing has nothing to do
        """Ends the work in the background; what was asked for before stays valid."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


class PrefetchFeed(Feed):
    """One thread gathers the next batches, in pinned memory for a GPU, while the device works."""

    def __init__(
        self,
        stream: Stream,
        count: int,
        device: torch.device,
        rows: Rows | None = None,
        ahead: int = 3,
    ) -> None:
        """Sets up the thread; nothing is read before the first batch is asked for.

        Args:
            stream: the data in their order.
            count: items of the whole batch, over all processes.
            device: where the batches go.
            rows: the part of each batch that this process wants; None for all of it.
            ahead: batches that are kept ready.
        """
        self._stream, self._count, self._device, self._rows = stream, count, device, rows
        self._ahead = ahead
        self._waiting: deque[tuple[int, Future[Tensor]]] = deque()
        self._thread = ThreadPoolExecutor(1, "images")

    def batch(self, start: int) -> Tensor:
        """See `Feed.batch`. An error of the thread is raised here, for the batch it belongs to."""
        if not self._waiting or self._waiting[0][0] != start:
            self._drop()
            self._request(start)
        _, ready = self._waiting.popleft()
        last = self._waiting[-1][0] if self._waiting else start
        for number in range(1, self._ahead - len(self._waiting) + 1):
            self._request(last + number * self._count)
        return ready.result().to(self._device, non_blocking=True)

    def close(self) -> None:
        """Ends the thread after the batch that it works on."""
        self._drop()
        self._thread.shutdown(cancel_futures=True)

    def _request(self, start: int) -> None:
        self._waiting.append((start, self._thread.submit(self._gather, start)))

    def _gather(self, start: int) -> Tensor:
        images = self._stream.batch(start, self._count, self._rows)
        # Only from pinned memory a copy to a GPU runs beside the work of this process.
        return images.pin_memory() if self._device.type == "cuda" else images

    def _drop(self) -> None:
        for _, future in self._waiting:
            future.cancel()
        self._waiting.clear()


class ResidentFeed(Feed):
    """The whole set lies on the device as uint8; a batch is an index into it."""

    def __init__(
        self, stream: ImageStream, count: int, device: torch.device, rows: Rows | None = None
    ) -> None:
        """Copies the images to the device. Arguments as for `PrefetchFeed`."""
        self._stream, self._count, self._rows = stream, count, rows
        self._images = _copy_to(stream.images, device)

    def batch(self, start: int) -> Tensor:
        """See `Feed.batch`."""
        indices = torch.from_numpy(self._stream.indices(start, self._count, self._rows))
        return self._images[indices.to(self._images.device)]


def open_feed(
    stream: Stream,
    count: int,
    device: torch.device,
    rows: Rows | None = None,
    device_bytes: int | None = None,
) -> Feed:
    """The feed that suits the device: resident on a GPU that has room, else prefetched.

    Args:
        stream: the data in their order; only an `ImageStream` can be resident.
        count: items of the whole batch, over all processes.
        device: where the batches go.
        rows: the part of each batch that this process wants; None for all of it.
        device_bytes: what the images may take of the device; None: a quarter of what a GPU has
            free now, nothing elsewhere.
    """
    if device_bytes is None:
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
        device_bytes = int(free * DEVICE_SHARE)
    if isinstance(stream, ImageStream) and 0 < stream.images.nbytes <= device_bytes:
        return ResidentFeed(stream, count, device, rows)
    return PrefetchFeed(stream, count, device, rows)


def _copy_to(images: np.ndarray, device: torch.device) -> Tensor:
    """Copies in pieces: the memory map is never in memory as a whole."""
    resident = torch.empty(images.shape, dtype=torch.uint8, device=device)
    step = max(1, _CHUNK_BYTES // images[0].nbytes)
    for first in range(0, len(images), step):
        piece = np.array(images[first : first + step])
        resident[first : first + step] = torch.from_numpy(piece)
    return resident
