"""Many files decoded by several threads: Pillow works outside Python's lock.

Threads, not processes: they need no guarded main module and a killed training leaves none behind.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from pulse_sr.data.picture import decode_bytes
from pulse_sr.data.sources import ImageSource, Opener, reason_of
from pulse_sr.errors import PulseError
from pulse_sr.images.pixels import Pixels

#: Threads that decode: one for each core, at most 8.
WORKERS = min(os.cpu_count() or 1, 8)
#: Files that wait for a thread: bounds the memory, keeps the threads busy.
_QUEUED_PER_WORKER = 4

Result = TypeVar("Result")


@dataclass(frozen=True)
class DecodedFile:
    """A file after decoding.

    Attributes:
        sha256: of its bytes; empty if they could not be read.
        pixels: uint8 `[3, R, R]`; None if it is no image that can be read.
        size: width and height in pixels, after EXIF rotation.
        one_colour: all pixels are the same.
        reason: why there are no pixels.
    """

    sha256: str
    pixels: Pixels | None
    size: tuple[int, int] = (0, 0)
    one_colour: bool = False
    reason: str = ""


def decode_files(
    source: ImageSource,
    resolution: int | None,
    workers: int | None = None,
    positions: Iterable[int] | None = None,
) -> Generator[tuple[int, DecodedFile], None, None]:
    """Decodes images of a source, in the order in which it hands them out.

    Args:
        source: of the images.
        resolution: R; None keeps the side of each image's middle square.
        workers: threads; None: one for each core, at most 8.
        positions: which images, by their place in the source; None for all of them.

    Yields:
        (position, image); few images are in memory at a time.
    """

    def take(name: str, opener: Opener) -> DecodedFile:
        sha256 = ""
        try:
            data = opener()
            sha256 = hashlib.sha256(data).hexdigest()
            image = decode_bytes(name, data, resolution)
        except PulseError as error:
            return DecodedFile(sha256, None, reason=reason_of(error.message, name))
        one_colour = bool((image.pixels == image.pixels[:, :1, :1]).all())
        return DecodedFile(sha256, image.pixels, (image.width, image.height), one_colour)

    yield from in_threads(source, take, workers, positions)


def hash_files(source: ImageSource) -> list[str]:
    """The SHA-256 of each file of a source, in the order of training; empty where unreadable."""

    def take(name: str, opener: Opener) -> str:
        try:
            return hashlib.sha256(opener()).hexdigest()
        except PulseError:
            return ""

    found = dict(in_threads(source, take))
    return [found[place] for place in range(len(source.names))]


def in_threads(
    source: ImageSource,
    take: Callable[[str, Opener], Result],
    workers: int | None = None,
    positions: Iterable[int] | None = None,
) -> Iterator[tuple[int, Result]]:
    """What `take` makes of each file's name and opener, with the file's place in the source.

    Arguments as for `decode_files`.
    """
    workers = workers or WORKERS
    names = source.names
    waiting: deque[tuple[int, Future[Result]]] = deque()
    pool = ThreadPoolExecutor(workers, "decoding")
    try:
        for place, opener in source.read(positions):
            waiting.append((place, pool.submit(take, names[place], opener)))
            if len(waiting) > workers * _QUEUED_PER_WORKER:
                done, future = waiting.popleft()
                yield done, future.result()
        for done, future in waiting:
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)
