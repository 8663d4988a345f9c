"""Training images in WebDataset tars, read in place: nothing is unpacked to the disk.

A sample is the members that share a key: the path up to the first dot of the file's name. What
follows is the field: `000.jpg` is the image of the sample `000`, `000.json` its sidecar, and
`000.seg.png` another field, not an image to learn from. Members of a sample without such an image
are judged by their last suffix alone, so that a plain tar of `photo.v2.jpg` works too.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar, cast

from pulse_sr.data.picture import (
    NOT_TRAINING_DATA,
    is_image_name,
    is_licence_name,
)
from pulse_sr.data.shards import title_of
from pulse_sr.data.sources import (
    ImageSource,
    Opener,
    Refusal,
    Stamp,
    read_licences,
    stamp_of,
)
from pulse_sr.errors import InputError, UsageError
from pulse_sr.images.find import image_suffixes

_MOST_BYTES = 1 << 30  # of a member, as of a file
_BLOCK = 512
_BROKEN = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)

Tag = TypeVar("Tag")


@dataclass(frozen=True, slots=True)
class _Member:
    """Where the bytes of a file lie: `shard` counts the tars; a size of -1: a link to nothing."""

    name: str
    shard: int
    offset: int
    size: int


class TarSource(ImageSource):
    """The images of one or several tars, gzip'ed or not."""

    def __init__(self, location: str, shards: Sequence[Path], folder: Path | None = None) -> None:
        """Takes the tars; they are listed when `names` is first asked for.

        Args:
            location: what was given for them.
            shards: the tars.
            folder: that holds them and their licence, if that was given.
        """
        self.location = location
        self.title = folder.resolve().name if folder is not None else title_of(location)
        self._shards, self._folder = list(shards), folder

    @property
    def names(self) -> Sequence[str]:
        """See `ImageSource.names`. Raises UsageError when a file is no tar."""
        return self._listing.names

    @property
    def refused(self) -> Sequence[Refusal]:
        """See `ImageSource.refused`."""
        return self._listing.refused

    def stamps(self) -> dict[str, Stamp]:
        """See `ImageSource.stamps`."""
        return {str(shard): stamp_of(shard) for shard in self._shards}

    def read(self, positions: Iterable[int] | None = None) -> Iterator[tuple[int, Opener]]:
        """See `ImageSource.read`; the order is that of the archives, read once from the front."""
        names, images = self._listing.names, self._listing.images
        places = range(len(images)) if positions is None else positions
        # In messages a member goes by its name among all of them.
        yield from self._stream((each, replace(images[each], name=names[each])) for each in places)

    def sidecars(self, positions: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """See `ImageSource.sidecars`."""
        images, files = self._listing.images, self._listing.files
        places = [place for place in positions if place < len(images)]
        keys = [
            (images[p].shard, str(PurePosixPath(images[p].name).with_suffix(".json")))
            for p in places
        ]
        wanted = [
            (place, files[key]) for place, key in zip(places, keys, strict=True) if key in files
        ]
        yield from _readable(self._stream(wanted))

    def licences(self) -> dict[str, str]:
        """See `ImageSource.licences`: at most one folder deep, and beside the tars of a folder."""
        wanted = [
            (member.name, member)
            for member in self._listing.files.values()
            if is_licence_name(posixpath.basename(member.name)) and member.name.count("/") < 2
        ]
        inside = {
            name: text.decode("utf-8", "replace") for name, text in _readable(self._stream(wanted))
        }
        return (read_licences(self._folder) if self._folder is not None else {}) | inside

    @cached_property
    def _listing(self) -> _Listing:
        return _list_shards(self._shards)

    def _stream(self, wanted: Iterable[tuple[Tag, _Member]]) -> Iterator[tuple[Tag, Opener]]:
        """The bytes of members, going forward through one archive after the other."""
        opened, archive = -1, None
        try:
            for tag, member in sorted(wanted, key=lambda each: (each[1].shard, each[1].offset)):
                if member.shard != opened:
                    if archive is not None:
                        archive.close()
                    archive, opened = _open_again(self._shards[member.shard]), member.shard
                assert archive is not None
                yield tag, _read_member(archive, member)
        finally:
            if archive is not None:
                archive.close()


@dataclass(frozen=True)
class _Listing:
    """What the tars hold.

    Attributes:
        names: of the images, in the order of training.
        images: the same.
        files: all files by (shard, name).
        refused: archives that end too early, with reasons.
    """

    names: list[str]
    images: list[_Member]
    files: dict[tuple[int, str], _Member]
    refused: list[Refusal]


def _list_shards(shards: Sequence[Path]) -> _Listing:
    files: dict[tuple[int, str], _Member] = {}
    images: list[_Member] = []
    refused: list[Refusal] = []
    for number, path in enumerate(shards):
        members, reason = _list_members(path, number)
        files |= {(number, name): member for name, member in members.items()}
        images += [members[name] for name in _image_names(members)]
        refused += [(path.name, reason)] if reason else []
    twice = any(count > 1 for count in Counter(member.name for member in images).values())
    named = [
        (f"{title_of(shards[member.shard].name)}/{member.name}" if twice else member.name, member)
        for member in images
    ]
    named.sort(key=lambda each: (each[0].split("/"), each[1].shard))
    return _Listing([name for name, _ in named], [member for _, member in named], files, refused)


def _list_members(path: Path, shard: int) -> tuple[dict[str, _Member], str]:
    """The files in a tar by name, the last of a name winning, and why they may not be all."""
    members: dict[str, _Member] = {}
    links: dict[str, str] = {}
    try:
        with _open_archive(path) as archive, tarfile.open(fileobj=archive, mode="r:") as tar:
            for info in tar:
                name = posixpath.normpath(info.name).lstrip("/")
                if info.isreg():
                    members[name] = _Member(name, shard, info.offset_data, info.size)
                elif info.issym():
                    target = posixpath.join(posixpath.dirname(name), info.linkname)
                    links[name] = posixpath.normpath(target)
                elif info.islnk():
                    links[name] = posixpath.normpath(info.linkname).lstrip("/")
            archive.seek(tar.offset)
            end = archive.read(_BLOCK)
            reason = "" if end and not end.strip(b"\0") else "it has no end mark"
    except _BROKEN as error:
        if not members:
            raise UsageError(
                f"{path} is not a folder of images, nor a tar of them: {error}", "check the file"
            ) from error
        reason = str(error)
    for name in links:
        members[name] = _follow(name, links, members, shard)
    return members, f"is damaged after {len(members)} files: {reason}" if reason else ""


def _follow(
    name: str, links: Mapping[str, str], members: Mapping[str, _Member], shard: int
) -> _Member:
    target = name
    for _ in range(len(links)):  # a loop of links leads nowhere
        target = links.get(target, target)
    found = members.get(target)
    if found is None or target in links:
        return _Member(name, shard, 0, -1)
    return _Member(name, shard, found.offset, found.size)


def _image_names(members: Iterable[str]) -> list[str]:
    """Those of the names that are images to learn from (see the head of the file)."""
    paths = [PurePosixPath(name) for name in members]
    apart = {
        path.parent for path in paths if path.name == NOT_TRAINING_DATA and len(path.parts) > 1
    }
    seen = [
        path
        for path in paths
        if is_image_name(path.name)
        and not any(part.startswith(".") and part != ".." for part in path.parts)
        and apart.isdisjoint(path.parents)
    ]
    keys = {path: str(path.parent / path.name.split(".", 1)[0]) for path in seen}
    fields = {path: "." + path.name.split(".", 1)[1].lower() for path in seen}
    plain = {keys[path] for path in seen if fields[path] in image_suffixes()}
    return [
        str(path) for path in seen if fields[path] in image_suffixes() or keys[path] not in plain
    ]


def _open_archive(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(path))
    if start == b"\xfd7zXZ\0":
        return cast(IO[bytes], lzma.open(path))
    return open(path, "rb")


def _open_again(path: Path) -> IO[bytes]:
    try:
        return _open_archive(path)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read any more: {error.strerror}", "look at it"
        ) from error


def _read_member(archive: IO[bytes], member: _Member) -> Opener:
    """The bytes, read now, or the error that opening them raises."""
    try:
        data = _bytes_of(archive, member)
    except InputError as error:
        return _Failure(error)
    return lambda: data


def _bytes_of(archive: IO[bytes], member: _Member) -> bytes:
    if member.size < 0:
        raise InputError(f"{member.name} links to a file that the tar does not hold")
    if member.size > _MOST_BYTES:
        raise InputError(f"{member.name} has {member.size} bytes, the limit is {_MOST_BYTES}")
    if not member.size:
        raise InputError(f"{member.name} is empty (0 bytes)", "pack the file again")
    try:
        archive.seek(member.offset)
        data = archive.read(member.size)
    except _BROKEN as error:
        raise InputError(f"{member.name} cannot be read: {error}", "pack it again") from error
    if len(data) < member.size:
        raise InputError(
            f"{member.name} is cut off: {len(data)} of {member.size} bytes", "pack it again"
        )
    return data


@dataclass(frozen=True)
class _Failure:
    """An opener that raises."""

    error: InputError

    def __call__(self) -> bytes:
        raise self.error


def _readable(opened: Iterable[tuple[Tag, Opener]]) -> Iterator[tuple[Tag, bytes]]:
    for tag, opener in opened:
        try:
            yield tag, opener()
        except InputError:
            continue
