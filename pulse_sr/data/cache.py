"""Training images decoded once, to a memory-mapped array that is keyed by their content.

CACHE/images-R-KEY.npy   uint8 [N, 3, R, R]
CACHE/images-R-KEY.json  which files the rows come from, with their hashes, sizes and times

KEY is a hash of the hashes of the files in order. Another folder with the same content, or the same
one after `touch`, has the same key. The times only save the hashing: as long as names, sizes and
times are those of the index, the files are not opened. The array is renamed into its place last, so
an array that is there is whole.

Shapes: N images, R resolution.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from pulse_sr.data.cache_index import CacheIndex, Row, cache_key
from pulse_sr.data.decode import DecodedFile, decode_files, hash_files
from pulse_sr.data.picture import MIN_IMAGES
from pulse_sr.data.sources import ImageSource, Refusal
from pulse_sr.errors import InputError, SetupError, is_disk_full
from pulse_sr.files.atomic import make_folder, write_text_atomic
from pulse_sr.files.lock import folder_lock

log = logging.getLogger(__name__)

#: Called with (images done, all images, of these skipped).
Progress = Callable[[int, int, int], None]

_UNFINISHED = ".decoding-"
_HINT = "free some space or choose another folder with -o DIR; the same command resumes"


@dataclass(frozen=True)
class CachedImages:
    """The images of a training.

    Attributes:
        pixels: uint8 `[N, 3, R, R]`, a read-only memory map.
        names: of the images, by row.
        skipped: (name, reason) of what could not be read.
        source: where the images come from.
        content_sha256: of the files that the rows come from, in order; the resolution is not in it.
        enlarged: how many images are smaller than R.
        cropped: how many are not square, and lost what is outside their middle.
        one_colour: how many have a single colour.
        copies: how many files have the same bytes as an earlier one.
    """

    pixels: np.ndarray
    names: tuple[str, ...]
    skipped: tuple[Refusal, ...]
    source: str
    content_sha256: str
    enlarged: int = 0
    cropped: int = 0
    one_colour: int = 0
    copies: int = 0

    @property
    def images(self) -> int:
        """N."""
        return len(self.names)

    def notes(self) -> list[str]:
        """What the user should know of these data, one line each; empty if there is nothing."""
        total, side = self.images, self.pixels.shape[-1]
        counted = [
            (self.enlarged, f"smaller than {side} px and enlarged: a prior learns their blur"),
            (self.cropped, "not square: only their middle is learned"),
            (self.one_colour, "of a single colour: nothing can be learned from them"),
            (self.copies, "exact copies of others: they count more than once"),
        ]
        found = [f"{count} of {total} images are {words}" for count, words in counted if count]
        if self.skipped:
            name, reason = self.skipped[0]
            found.insert(0, f"{len(self.skipped)} files were skipped, the first: {name} {reason}")
        return found


def cache_images(
    source: ImageSource,
    cache_dir: Path,
    resolution: int,
    progress: Progress | None = None,
    workers: int | None = None,
) -> CachedImages:
    """Decodes images once; a later call with the same content opens what was written.

    An image that can not be read is named in the log, skipped and counted. Of several processes
    that want the same cache one decodes, the others wait.

    Args:
        source: of the images.
        cache_dir: folder of the cache.
        resolution: R.
        progress: called after each image that is decoded.
        workers: threads that decode; None: one for each core, at most 8.

    Raises:
        InputError: fewer than 16 images can be read.
        SetupError: the disk is full, or the folder can not be written.
    """
    try:
        make_folder(cache_dir)
        with folder_lock(cache_dir) as alone:
            if alone:
                _remove_unfinished(cache_dir)
            index = _find(source, cache_dir, resolution)
            if index is None:
                index = _decode(source, cache_dir, resolution, progress, workers)
    except BrokenPipeError:  # of the caller's progress
        raise
    except OSError as error:
        raise _write_error(error, cache_dir) from error
    cached = _open(index, cache_dir)
    for note in cached.notes():
        log.warning("%s", note)
    return cached


def _find(source: ImageSource, cache_dir: Path, resolution: int) -> CacheIndex | None:
    """The index of a whole array that holds these images."""
    known = [
        index
        for path in sorted(cache_dir.glob(f"images-{resolution}-*.json"))
        if (index := CacheIndex.read(path)) is not None and _is_whole(index, cache_dir)
    ]
    stamps = source.stamps()
    for index in known:
        if index.is_of(source, stamps):
            return index
    if not known:
        return None
    log.info("comparing the images of %s with the cache", source.location)
    hashes = hash_files(source)
    key = cache_key(resolution, hashes)
    for index in known:
        if index.key == key:
            moved = index.moved(source, stamps)
            write_text_atomic(cache_dir / f"{moved.stem}.json", moved.to_json())
            return moved
    return None


def _is_whole(index: CacheIndex, cache_dir: Path) -> bool:
    try:
        array = np.load(cache_dir / f"{index.stem}.npy", mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return False
    side = index.resolution
    return bool(array.dtype == np.uint8 and array.shape == (len(index.rows()), 3, side, side))


def _open(index: CacheIndex, cache_dir: Path) -> CachedImages:
    rows = index.rows()
    return CachedImages(
        pixels=np.load(cache_dir / f"{index.stem}.npy", mmap_mode="r"),
        names=tuple(row.name for row in rows),
        skipped=index.skipped(),
        source=index.location,
        content_sha256=index.content_sha256(),
        enlarged=sum(min(row.width, row.height) < index.resolution for row in rows),
        cropped=sum(row.width != row.height for row in rows),
        one_colour=sum(row.one_colour for row in rows),
        copies=len(rows) - len({row.sha256 for row in rows}),
    )


def _decode(
    source: ImageSource,
    cache_dir: Path,
    resolution: int,
    progress: Progress | None,
    workers: int | None,
) -> CacheIndex:
    stamps, total = source.stamps(), len(source.names)
    if total < MIN_IMAGES:
        raise InputError(
            f"{source.location} holds {total} images, training needs at least {MIN_IMAGES}",
            "give a folder, tar or zip of images such as PNG or JPEG",
        )
    _check_space(cache_dir, total * 3 * resolution**2)
    log.info("decoding %d images to %d px", total, resolution)
    with _unfinished_file(cache_dir) as (temporary, file):
        decoded = decode_files(source, resolution, workers)
        rows = _write_rows(file, decoded, source, resolution, progress)
        kept = [place for place, row in enumerate(rows) if not row.reason]
        _require_enough(len(kept), total)
        _close_gaps(file, kept, resolution)
        file.flush()
        os.fsync(file.fileno())
        location, refused = os.path.abspath(source.location), tuple(source.refused)
        index = CacheIndex(resolution, location, stamps, tuple(rows), refused, source.member)
        write_text_atomic(cache_dir / f"{index.stem}.json", index.to_json())
        os.replace(temporary, cache_dir / f"{index.stem}.npy")
    return index


def _require_enough(kept: int, total: int) -> None:
    if kept < MIN_IMAGES:
        raise InputError(
            f"only {kept} of {total} images could be read, training needs at least {MIN_IMAGES}",
            "check the files: train-prior DATA --check-data names them",
        )


def _write_rows(
    file: IO[bytes],
    decoded: Generator[tuple[int, DecodedFile], None, None],
    source: ImageSource,
    resolution: int,
    progress: Progress | None,
) -> list[Row]:
    """Writes each image to its place as it comes; those that can not be read leave a gap.

    Plain writing, not through a map: on a full disk it raises, where a map ends the process.
    """
    names = source.names
    rows = [Row(name) for name in names]
    start, row_bytes = len(_header(len(names), resolution)), 3 * resolution**2
    skipped = 0
    with contextlib.closing(decoded):
        for done, (place, found) in enumerate(decoded, start=1):
            rows[place] = Row(
                names[place], found.sha256, *found.size, found.one_colour, found.reason
            )
            if found.pixels is None:
                skipped += 1
                log.warning("skipped: %s %s", names[place], found.reason)
            else:
                file.seek(start + place * row_bytes)
                file.write(found.pixels.tobytes())
            if progress is not None:
                progress(done, len(names), skipped)
    return rows


def _close_gaps(file: IO[bytes], kept: list[int], resolution: int) -> None:
    """Moves the rows together and writes the head of the file."""
    head, row_bytes = _header(len(kept), resolution), 3 * resolution**2
    for target, place in enumerate(kept):
        if target != place:
            file.seek(len(head) + place * row_bytes)
            pixels = file.read(row_bytes)
            file.seek(len(head) + target * row_bytes)
            file.write(pixels)
    file.truncate(len(head) + len(kept) * row_bytes)
    file.seek(0)
    file.write(head)


def _header(count: int, resolution: int) -> bytes:
    """The head of the npy file; NumPy leaves room for the number to grow, so its size is fixed."""
    head = io.BytesIO()
    fields = {"descr": "|u1", "fortran_order": False, "shape": (count, 3, resolution, resolution)}
    np.lib.format.write_array_header_1_0(head, fields)
    return head.getvalue()


def _check_space(cache_dir: Path, needed: int) -> None:
    free = shutil.disk_usage(cache_dir).free
    if free < needed:
        raise SetupError(
            f"the decoded images take {needed / 1e6:.0f} MB, the disk of {cache_dir} has "
            f"{free / 1e6:.0f} MB left",
            _HINT,
        )


@contextlib.contextmanager
def _unfinished_file(cache_dir: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file under a temporary name, which is gone afterwards unless it was renamed."""
    path = cache_dir / f"{_UNFINISHED}{os.getpid()}-{secrets.token_hex(4)}"
    try:
        with open(path, "xb+") as file:
            yield path, file
    finally:
        path.unlink(missing_ok=True)


def _remove_unfinished(cache_dir: Path) -> None:
    """Removes what killed processes left: with the lock in hand, nobody else is decoding here."""
    for path in cache_dir.glob(f"{_UNFINISHED}*"):
        path.unlink(missing_ok=True)


def _write_error(error: OSError, cache_dir: Path) -> SetupError:
    place = error.filename or cache_dir
    if is_disk_full(error):
        return SetupError(f"the disk is full: could not write the images to {place}", _HINT)
    reason = error.strerror or type(error).__name__
    return SetupError(f"could not write the images to {place}: {reason}", _HINT)
