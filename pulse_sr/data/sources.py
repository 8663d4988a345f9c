"""Where training images come from: a folder, or archives (`pulse_sr.data.archive`).

A source lists its images once, in the order of training, and then hands out their bytes in the
order in which they are cheap to read.
"""

from __future__ import annotations

import io
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pulse_sr.data.picture import (
    framing_in,
    licence_files,
    resolution_of_sides,
    walk_files,
)
from pulse_sr.data.selection import select_images, sidecars_of
from pulse_sr.errors import InputError, PulseError, UsageError
from pulse_sr.images.find import words_of
from pulse_sr.images.read import read_bytes

log = logging.getLogger(__name__)

#: Reads one file. Raises a PulseError, whose message begins with the file's name, if it can not.
Opener = Callable[[], bytes]
#: Name and reason.
Refusal = tuple[str, str]
#: Size in bytes and time of the last change in ns; (-1, 0) for what can not be looked at.
Stamp = tuple[int, int]

_MOST_HEADERS = 200


class ImageSource(ABC):
    """The images of a data set.

    Attributes:
        location: what was given: a folder, an archive, a pattern of archives.
        title: a short name for cards and folders.
        member: the field of a sample that is its image (`selection.select_images`); None: not said.
    """

    location: str
    title: str
    member: str | None

    @property
    @abstractmethod
    def names(self) -> Sequence[str]:
        """The images in the order of training: sorted by the parts of their paths, `/` between."""

    @property
    @abstractmethod
    def refused(self) -> Sequence[Refusal]:
        """What could not even be listed: folders, the rest of a damaged archive."""

    @property
    @abstractmethod
    def left_out(self) -> Mapping[str, int]:
        """How many other files there are, by their kinds (`selection.Selection`)."""

    @abstractmethod
    def stamps(self) -> dict[str, Stamp]:
        """The files on the disk that hold the images. As long as they keep, nothing has changed."""

    @abstractmethod
    def read(self, positions: Iterable[int] | None = None) -> Iterator[tuple[int, Opener]]:
        """The images at some positions of `names`, in any order; None for all of them.

        The openers may be called in other threads.
        """

    @abstractmethod
    def sidecars(self, positions: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """The JSON files beside the images at these positions, in any order, where there are."""

    @abstractmethod
    def licences(self) -> dict[str, str]:
        """The files that hold a licence or a notice, with their text."""

    def framings(self) -> dict[int, dict[str, Any]]:
        """How the faces lie in the images, by position, from the sidecars of `align`."""
        texts = self.sidecars(range(len(self.names)))
        found = ((position, framing_in(text)) for position, text in texts)
        return {position: framing for position, framing in found if framing is not None}

    def alignment(self) -> dict[str, Any] | None:
        """The `alignment` of a prior's card: the framing of the first image; None without one."""
        return next((framing_in(text) for _, text in self.sidecars([0])), None)

    def left_out_words(self) -> str:
        """The kinds that are left out, to stand behind a number of images; empty without them."""
        return f" (left out: {words_of(self.left_out)})" if self.left_out else ""

    def largest_resolution(self) -> int:
        """The largest power of two that the median image has in its shorter side.

        Up to 200 images are looked at, evenly picked.

        Raises:
            InputError: when none of them can be read.
        """
        count = len(self.names)
        sides = []
        for _, opener in self.read(range(0, count, max(1, count // _MOST_HEADERS))):
            try:
                with Image.open(io.BytesIO(opener())) as image:
                    sides.append(min(image.size))
            except Exception:  # damaged in any way: it is named when it is decoded
                continue
        return resolution_of_sides(sides)


class FolderSource(ImageSource):
    """A folder of image files, nested."""

    def __init__(self, folder: Path, member: str | None = None) -> None:
        """Lists the folder.

        Args:
            folder: of the images.
            member: see `ImageSource`.

        Raises:
            UsageError: when it does not exist, or no file has the field `member`.
        """
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder", "give a folder of images")
        self.location, self.title, self.member = str(folder), folder.resolve().name, member
        self._folder = folder
        files, refused = walk_files(folder)
        found = select_images(map(self._name, files), member, in_samples=False)
        self._names, self._left_out = found.images, found.left_out
        self._refused = [(self._name(path), reason) for path, reason in refused]

    def _name(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()

    @property
    def names(self) -> Sequence[str]:
        """See `ImageSource.names`."""
        return self._names

    @property
    def refused(self) -> Sequence[Refusal]:
        """See `ImageSource.refused`."""
        return self._refused

    @property
    def left_out(self) -> Mapping[str, int]:
        """See `ImageSource.left_out`."""
        return self._left_out

    def stamps(self) -> dict[str, Stamp]:
        """See `ImageSource.stamps`."""
        return {name: stamp_of(self._folder / name) for name in self._names}

    def read(self, positions: Iterable[int] | None = None) -> Iterator[tuple[int, Opener]]:
        """See `ImageSource.read`."""
        for position in range(len(self._names)) if positions is None else positions:
            name = self._names[position]
            yield position, _opener(self._folder / name, name)

    def sidecars(self, positions: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """See `ImageSource.sidecars`."""
        for position in (place for place in positions if place < len(self._names)):
            for sidecar in sidecars_of(self._names[position], self.member):
                try:
                    text = (self._folder / sidecar).read_bytes()
                except OSError:
                    continue
                yield position, text
                break

    def licences(self) -> dict[str, str]:
        """See `ImageSource.licences`: those directly in the folder."""
        return read_licences(self._folder)


def read_licences(folder: Path) -> dict[str, str]:
    """The files directly in `folder` that hold a licence or a notice, with their text."""
    return {file.name: file.read_text("utf-8", "replace") for file in licence_files(folder)}


def stamp_of(path: Path) -> Stamp:
    """Size and time of a file, following links; (-1, 0) if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return (-1, 0)
    return (found.st_size, found.st_mtime_ns)


def reason_of(message: str, name: str) -> str:
    """What a message says of the file whose name it begins with."""
    return message.removeprefix(name).lstrip()


def _opener(path: Path, name: str) -> Opener:
    def read() -> bytes:
        try:
            return read_bytes(path)
        except PulseError as error:
            reason = reason_of(error.message, str(path))
            raise InputError(f"{name} {reason}", error.hint) from error
        except OSError as error:  # a folder on the way that may not be entered
            raise InputError(f"{name} cannot be read: {error.strerror}") from error

    return read
