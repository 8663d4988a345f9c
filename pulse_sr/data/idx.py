"""Images in one idx file, as MNIST comes: `t10k-images-idx3-ubyte`, gzip'ed or not.

The format: two zero bytes, the type (8: unsigned bytes), the number of dimensions, these as
big-endian words of 32 bits, then the values (LeCun et al., http://yann.lecun.com/exdb/mnist).

Shapes: N images, H W size.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pulse_sr.data.sources import ImageSource, Opener, Refusal, Stamp, stamp_of
from pulse_sr.errors import InputError, UsageError, first_line

_BYTES = 8  # the type of unsigned bytes
_IMAGES = 3  # dimensions of a list of grey images


def _open(path: Path) -> io.BufferedIOBase:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if packed else path.open("rb")  # type: ignore[return-value]


def is_idx(path: Path) -> bool:
    """Whether a file begins as an idx file of grey images does."""
    try:
        with _open(path) as file:
            return file.read(4) == bytes([0, 0, _BYTES, _IMAGES])
    except (OSError, EOFError, zlib.error):
        return False


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array of an idx file of unsigned bytes, of any number of dimensions.

    Raises:
        InputError: it is damaged, or holds something else.
    """
    try:
        with _open(path) as file:
            zeros, kind, dimensions = struct.unpack(">HBB", file.read(4))
            if (zeros, kind) != (0, _BYTES):
                raise InputError(f"{path} holds no bytes in idx format", "give a file of MNIST's")
            shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
            data = file.read(math.prod(shape) + 1)
    except (OSError, EOFError, zlib.error, struct.error) as error:
        raise InputError(
            f"{path} can not be read: {first_line(error)}", "copy the file again"
        ) from error
    if len(data) != math.prod(shape):
        raise InputError(
            f"{path} has {len(data)} bytes of pixels or more, expected {math.prod(shape)}",
            "copy the file again",
        )
    return np.frombuffer(data, np.uint8).reshape(shape)


class IdxSource(ImageSource):
    """The images of an idx file, named by their places in it."""

    def __init__(self, path: Path) -> None:
        """Reads the file; MNIST takes 47 MB.

        Raises:
            UsageError: it holds no images.
            InputError: it is damaged.
        """
        self.location, self.title, self.member = str(path), path.name.removesuffix(".gz"), None
        self._path, self._pixels = path, read_idx(path)
        if self._pixels.ndim != _IMAGES:
            raise UsageError(f"{path} holds no images", "give the file of the images")
        self._names = [f"{place:06d}" for place in range(len(self._pixels))]

    @property
    def names(self) -> Sequence[str]:
        """See `ImageSource.names`: in the order of the file."""
        return self._names

    @property
    def refused(self) -> Sequence[Refusal]:
        """See `ImageSource.refused`: nothing, a damaged file is refused as a whole."""
        return ()

    @property
    def left_out(self) -> Mapping[str, int]:
        """See `ImageSource.left_out`: nothing."""
        return {}

    def stamps(self) -> dict[str, Stamp]:
        """See `ImageSource.stamps`."""
        return {self._path.name: stamp_of(self._path)}

    def read(self, positions: Iterable[int] | None = None) -> Iterator[tuple[int, Opener]]:
        """See `ImageSource.read`: each image as a grey PNG."""
        for position in range(len(self._pixels)) if positions is None else positions:
            yield position, partial(_png, self._pixels[position])

    def sidecars(self, positions: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """See `ImageSource.sidecars`: there are none."""
        return iter(())

    def licences(self) -> dict[str, str]:
        """See `ImageSource.licences`: there are none."""
        return {}


def _png(pixels: NDArray[np.uint8]) -> bytes:  # [H, W]
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
