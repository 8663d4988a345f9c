"""Training images: a folder decoded once into a memory-mapped array.

Shapes: N images, R resolution.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pulse_sr.errors import InputError, UsageError
from pulse_sr.images import Pixels, read_image, to_pillow

log = logging.getLogger(__name__)

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
MIN_IMAGES = 16
#: A folder that holds a file of this name is left out: `align` puts low-res versions and its
#: report beside the crops.
NOT_TRAINING_DATA = ".not-training-data"
_LICENCES = ("licen", "copying", "notice")


def list_images(folder: Path) -> list[Path]:
    """Image files below `folder`, nested ones too, in a stable order.

    Nested folders with a file `NOT_TRAINING_DATA` are left out.

    Raises:
        UsageError: when the folder does not exist.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "give a folder of images")
    apart = {marker.parent for marker in folder.glob(f"*/**/{NOT_TRAINING_DATA}")}
    found = (p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    return sorted(p for p in found if apart.isdisjoint(p.parents))


def alignment_of(paths: list[Path]) -> dict[str, Any] | None:
    """How the faces lie in the images, from the sidecar that `align` wrote for the first of them.

    Returns:
        the `alignment` of a prior's card; None for images without sidecars.
    """
    try:
        sidecar = json.loads(paths[0].with_suffix(".json").read_text(encoding="utf-8"))
        framing = sidecar["framing"]
    except (IndexError, OSError, ValueError, KeyError, TypeError):
        return None
    return framing if isinstance(framing, dict) else None


def decode(path: Path, resolution: int | None) -> np.ndarray:
    """An image as uint8 `[3, R, R]`: centre-cropped to a square, resized by Lanczos.

    Raises:
        InputError: when it can not be read.
    """
    rgb = to_pillow(centre_square(read_image(path).pixels))
    if resolution is not None:
        rgb = rgb.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.asarray(rgb).transpose(2, 0, 1)


def centre_square(pixels: Pixels) -> Pixels:  # [3, h, w] -> [3, S, S], S = min(h, w)
    """The middle square of a picture."""
    height, width = pixels.shape[1:]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return pixels[:, top : top + side, left : left + side]


def licence_files(folder: Path) -> list[Path]:
    """The files directly in `folder` whose names say that they hold a licence or a notice."""
    return sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name.casefold().startswith(_LICENCES)
    )


def largest_resolution(paths: list[Path]) -> int:
    """The largest power of two that the median image has in its shorter side."""
    sides = []
    for path in paths[:: max(1, len(paths) // 200)]:
        try:
            with Image.open(path) as image:
                sides.append(min(image.size))
        except OSError:
            continue
    if not sides:
        raise InputError("none of the images could be read", "check the folder")
    return 2 ** int(np.log2(np.median(sides)))


def cache_images(folder: Path, cache_dir: Path, resolution: int | None) -> np.ndarray:
    """Decode a folder once to a memory-mapped uint8 array `[N, 3, R, R]`.

    The cache is keyed by the names, sizes and times of the files and by the resolution, and is
    written atomically. A damaged image is named in the log and skipped.

    Raises:
        UsageError: when the folder does not exist.
        InputError: when fewer than 16 images can be read.
    """
    paths = list_images(folder)
    if len(paths) < MIN_IMAGES:
        raise InputError(
            f"{folder} holds {len(paths)} images, training needs at least {MIN_IMAGES}",
            "give a folder of png, jpg, webp, bmp or tiff images",
        )
    resolution = resolution or largest_resolution(paths)
    key = hashlib.sha256(str(resolution).encode())
    for path in paths:
        stat = path.stat()
        key.update(f"{path.relative_to(folder)}:{stat.st_size}:{stat.st_mtime_ns}\n".encode())
    file = cache_dir / f"images-{resolution}-{key.hexdigest()[:16]}.npy"
    if not file.exists():
        log.info("decoding %d images to %d px", len(paths), resolution)
        _write_cache(file, paths, resolution)
    return np.load(file, mmap_mode="r")


def _write_cache(file: Path, paths: list[Path], resolution: int) -> None:
    images = np.empty((len(paths), 3, resolution, resolution), np.uint8)
    count = 0
    for path in paths:
        try:
            images[count] = decode(path, resolution)
            count += 1
        except InputError as error:
            log.warning("skipped: %s", error.message)
    if count < MIN_IMAGES:
        raise InputError(f"only {count} of {len(paths)} images could be read", "check them")
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        np.save(temporary, images[:count])
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


class ImageStream:
    """Batches of training images in an order that depends on the seed and the position alone."""

    def __init__(self, images: np.ndarray, seed: int) -> None:
        self.images = images
        self.seed = seed
        self._epoch = -1
        self._order: list[int] = []

    def batch(self, start: int, count: int) -> torch.Tensor:
        """Images `start` to `start + count` of the endless stream, uint8 `[count, 3, R, R]`."""
        indices = list(self._indices(start, count))
        return torch.from_numpy(self.images[np.sort(indices)])

    def _indices(self, start: int, count: int) -> Iterator[int]:
        size = len(self.images)
        for position in range(start, start + count):
            epoch, place = divmod(position, size)
            if epoch != self._epoch:
                rng = rng_of(self.seed, "epoch", epoch)
                self._order = torch.randperm(size, generator=rng).tolist()
                self._epoch = epoch
            yield self._order[place]


def rng_of(*key: object) -> torch.Generator:
    """A CPU generator seeded by the hash of `key`."""
    digest = hashlib.sha256(":".join(map(str, key)).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
