"""The index beside a cache of decoded images: what its rows come from, as JSON."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
from msgspec import structs

from pulse_sr.data.sources import ImageSource, Refusal, Stamp
from pulse_sr.files.documents import Side, check_shape, json_text, read_json

#: Counts the ways of decoding: another number, another key.
_VERSION = 1


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A file of the data set.

    Attributes:
        name: below the source.
        sha256: of its bytes; empty if they could not be read.
        width: in pixels, after EXIF rotation.
        height: the same.
        one_colour: all of its pixels are the same.
        reason: why it has no row in the array; empty for those that have.
    """

    name: str
    sha256: str = ""
    width: int = 0
    height: int = 0
    one_colour: bool = False
    reason: str = "could not be read"


@dataclass(frozen=True)
class CacheIndex:
    """What a cache holds.

    Attributes:
        resolution: R.
        location: absolute path of the source.
        stamps: size and time of each file on the disk, when the images were last compared.
        files: all files, in the order of training.
        refused: what could not be listed, with reasons.
        member: see `ImageSource`.
    """

    resolution: Side
    location: str
    stamps: dict[str, Stamp]
    files: tuple[Row, ...]
    refused: tuple[Refusal, ...] = ()
    member: str | None = None

    @property
    def key(self) -> str:
        """See `cache_key`."""
        return cache_key(self.resolution, [row.sha256 for row in self.files])

    @property
    def stem(self) -> str:
        """Name of the cache's files without their suffixes."""
        return f"images-{self.resolution}-{self.key[:16]}"

    def rows(self) -> list[Row]:
        """The files that have a row in the array, in its order."""
        return [row for row in self.files if not row.reason]

    def skipped(self) -> tuple[Refusal, ...]:
        """What has none, with reasons."""
        unread = [(row.name, row.reason) for row in self.files if row.reason]
        return (*self.refused, *unread)

    def content_sha256(self) -> str:
        """A hash of the hashes of the files with rows, in order."""
        return _hash_lines(row.sha256 for row in self.rows())

    def is_of(self, source: ImageSource, stamps: dict[str, Stamp]) -> bool:
        """Whether these are the images of a source, none of which was touched since."""
        same = (os.path.abspath(source.location), source.member, stamps)
        return (self.location, self.member, self.stamps) == same

    def moved(self, source: ImageSource, stamps: dict[str, Stamp]) -> CacheIndex:
        """The same content, found in another place or under other names and times."""
        renamed = zip(self.files, source.names, strict=True)
        return replace(
            self,
            location=os.path.abspath(source.location),
            stamps=stamps,
            files=tuple(structs.replace(row, name=name) for row, name in renamed),
            refused=tuple(source.refused),
            member=source.member,
        )

    def to_json(self) -> str:
        """The document; a file is a list of the fields of its `Row`."""
        fields = vars(self) | {"files": [list(structs.astuple(row)) for row in self.files]}
        return json_text({"version": _VERSION} | fields) + "\n"

    @classmethod
    def read(cls, path: Path) -> CacheIndex | None:
        """The index in a file; None if it is damaged or of another version."""
        document = read_json(path, dict[str, Any], _check)
        if document is None or document.get("version") != _VERSION:
            return None
        return msgspec.convert(document, cls)


def _check(document: dict[str, Any]) -> None:
    """Raises ValueError for an index of this version that is none."""
    if document.get("version") == _VERSION:
        check_shape(document, CacheIndex)


def cache_key(resolution: int, hashes: Iterable[str]) -> str:
    """What the array depends on: resolution, way of decoding and content, in order."""
    return _hash_lines([f"{_VERSION} {resolution}", *hashes])


def _hash_lines(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
