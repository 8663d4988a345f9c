"""Training images in tars and zips, read in place: nothing is unpacked to the disk."""

from __future__ import annotations

import contextlib
import posixpath
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from pulse_sr.data.members import Archive, Listing, Member, bytes_of
from pulse_sr.data.picture import is_licence_name
from pulse_sr.data.selection import select_images, sidecars_of
from pulse_sr.data.shards import title_of
from pulse_sr.data.sources import (
    ImageSource,
    Opener,
    Refusal,
    Stamp,
    read_licences,
    stamp_of,
)
from pulse_sr.data.tar import Tar
from pulse_sr.data.zip import Zip, is_zip
from pulse_sr.errors import InputError, UsageError, first_line

Tag = TypeVar("Tag")


class ArchiveSource(ImageSource):
    """The images of one or several tars and zips."""

    def __init__(
        self,
        location: str,
        shards: Sequence[Path],
        folder: Path | None = None,
        member: str | None = None,
    ) -> None:
        """Takes the archives; they are listed when `names` is first asked for.

        Args:
            location: what was given for them.
            shards: the archives.
            folder: that holds them and their licence, if that was given.
            member: see `ImageSource`.
        """
        self.location, self.member = location, member
        self.title = folder.resolve().name if folder is not None else title_of(location)
        self._shards, self._folder = list(shards), folder

    @property
    def names(self) -> Sequence[str]:
        """See `ImageSource.names`.

        Raises:
            UsageError: a file is no archive, or no member has the field `member`.
        """
        return self._contents.names

    @property
    def refused(self) -> Sequence[Refusal]:
        """See `ImageSource.refused`."""
        return self._contents.refused

    @property
    def left_out(self) -> Mapping[str, int]:
        """See `ImageSource.left_out`."""
        return self._contents.left_out

    def stamps(self) -> dict[str, Stamp]:
        """See `ImageSource.stamps`."""
        return {str(shard): stamp_of(shard) for shard in self._shards}

    def read(self, positions: Iterable[int] | None = None) -> Iterator[tuple[int, Opener]]:
        """See `ImageSource.read`; the order is that of the archives, read once from the front."""
        names, images = self._contents.names, self._contents.images
        places = range(len(images)) if positions is None else positions
        # In messages a member goes by its name among all of them.
        yield from self._stream((each, replace(images[each], name=names[each])) for each in places)

    def sidecars(self, positions: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """See `ImageSource.sidecars`."""
        images, files = self._contents.images, self._contents.files
        wanted = []
        for place in (position for position in positions if position < len(images)):
            image = images[place]
            names = sidecars_of(image.name, self.member)
            found = (files[image.shard, each] for each in names if (image.shard, each) in files)
            wanted += [(place, sidecar) for sidecar in found][:1]
        yield from _readable(self._stream(wanted))

    def licences(self) -> dict[str, str]:
        """See `ImageSource.licences`: at most one folder deep, and beside those of a folder."""
        wanted = [
            (member.name, member)
            for member in self._contents.files.values()
            if is_licence_name(posixpath.basename(member.name)) and member.name.count("/") < 2
        ]
        inside = {
            name: text.decode("utf-8", "replace") for name, text in _readable(self._stream(wanted))
        }
        return (read_licences(self._folder) if self._folder is not None else {}) | inside

    @cached_property
    def _contents(self) -> _Contents:
        return _list_shards(self._shards, self.member)

    def _stream(self, wanted: Iterable[tuple[Tag, Member]]) -> Iterator[tuple[Tag, Opener]]:
        """The bytes of members, going forward through one archive after the other."""
        opened = -1
        with contextlib.ExitStack() as stack:
            for tag, member in sorted(wanted, key=lambda each: (each[1].shard, each[1].place)):
                if member.shard != opened:
                    stack.close()
                    archive, opened = _open_again(self._shards[member.shard]), member.shard
                    stack.callback(archive.close)
                yield tag, _read_member(archive, member)


@dataclass(frozen=True)
class _Contents:
    """What the archives hold.

    Attributes:
        names: of the images, in the order of training.
        images: the same.
        files: all files by (shard, name).
        refused: archives that end too early, with reasons.
        left_out: see `ImageSource`.
    """

    names: list[str]
    images: list[Member]
    files: dict[tuple[int, str], Member]
    refused: list[Refusal]
    left_out: Mapping[str, int]


def _list_shards(shards: Sequence[Path], member: str | None) -> _Contents:
    listings = [_list_shard(path, number) for number, path in enumerate(shards)]
    images: list[Member] = []
    left_out: Counter[str] = Counter()
    for listing in listings:
        chosen = select_images(listing.members, member, in_samples=True)
        images += [listing.members[name] for name in chosen.images]
        left_out.update(chosen.left_out)
    twice = any(count > 1 for count in Counter(image.name for image in images).values())
    named = [
        (f"{title_of(shards[image.shard].name)}/{image.name}" if twice else image.name, image)
        for image in images
    ]
    named.sort(key=lambda each: (each[0].split("/"), each[1].shard))
    return _Contents(
        [name for name, _ in named],
        [image for _, image in named],
        {
            (n, name): each
            for n, found in enumerate(listings)
            for name, each in found.members.items()
        },
        [(p.name, found.damage) for p, found in zip(shards, listings, strict=True) if found.damage],
        left_out,
    )


def _open(path: Path) -> Archive:
    return Zip(path) if is_zip(path) else Tar(path)


def _list_shard(path: Path, number: int) -> Listing:
    try:
        with contextlib.closing(_open(path)) as archive:
            return archive.list(number)
    except (*Tar.broken, *Zip.broken) as error:
        raise UsageError(
            f"{path} is not a folder of images, nor a tar or zip of them: {first_line(error)}",
            "check the file",
        ) from error


def _open_again(path: Path) -> Archive:
    try:
        return _open(path)
    except (*Tar.broken, *Zip.broken) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read any more: {reason}", "look at it") from error


def _read_member(archive: Archive, member: Member) -> Opener:
    """The bytes, read now, or the error that opening them raises."""
    try:
        data = bytes_of(archive, member)
    except InputError as error:
        return _Failure(error)
    return lambda: data


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
