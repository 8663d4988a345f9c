"""Tars, compressed or not."""

from __future__ import annotations

import bz2
import gzip
import lzma
import posixpath
import tarfile
import zlib
from pathlib import Path
from typing import IO, cast

from pulse_sr.data.members import Listing, Member, clean, follow_links

_BLOCK = 512


class Tar:
    """A tar, opened (`members.Archive`)."""

    broken = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)

    def __init__(self, path: Path) -> None:
        self._file = _open(path)

    def list(self, shard: int) -> Listing:
        """See `Archive.list`."""
        members: dict[str, Member] = {}
        links: dict[str, str] = {}
        try:
            damage = self._list(shard, members, links)
        except self.broken as error:
            if not members:
                raise
            damage = str(error)
        counted = len(members)
        follow_links(members, links, shard)
        return Listing(members, damage and f"is damaged after {counted} files: {damage}")

    def _list(self, shard: int, members: dict[str, Member], links: dict[str, str]) -> str:
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            for info in tar:
                name = clean(info.name)
                if info.isreg():
                    members[name] = Member(name, shard, info.offset_data, info.size)
                elif info.issym():
                    target = posixpath.join(posixpath.dirname(name), info.linkname)
                    links[name] = posixpath.normpath(target)
                elif info.islnk():
                    links[name] = clean(info.linkname)
        self._file.seek(tar.offset)
        end = self._file.read(_BLOCK)
        return "" if end and not end.strip(b"\0") else "it has no end mark"

    def read(self, member: Member) -> bytes:
        """See `Archive.read`."""
        self._file.seek(member.place)
        return self._file.read(member.size)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _open(path: Path) -> IO[bytes]:
    with open(path, "rb") as file:
        start = file.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path))
    if start.startswith(b"BZh"):
        return cast(IO[bytes], bz2.open(path))
    if start == b"\xfd7zXZ\0":
        return cast(IO[bytes], lzma.open(path))
    return open(path, "rb")
