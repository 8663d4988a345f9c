"""Zips: listed by their directory at the end, read member by member."""

from __future__ import annotations

import lzma
import posixpath
import stat
import struct
import zipfile
import zlib
from pathlib import Path

from pulse_sr.data.members import MOST_BYTES, Listing, Member, clean, follow_links
from pulse_sr.errors import UsageError, first_line

#: A member may be unpacked to this many times its packed bytes if that is much: pictures do not
#: pack that well, and those that do (one colour, without compression of their own) are smaller.
_MOST_RATIO, _MUCH_BYTES = 100, 64 << 20
#: Bytes at a time: of bzip2 and LZMA the module unpacks all that it has read.
_PIECE = 4096
_MOST_LINK_BYTES = 4096
_ENCRYPTED = 0x1  # of the flags
_LOCKED = "is encrypted"


class Zip:
    """A zip, opened (`members.Archive`)."""

    broken = (
        *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
        *(
            OSError,
            EOFError,
            RuntimeError,
            ValueError,
            IndexError,
        ),  # other methods, odd names, changed
    )

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._file = zipfile.ZipFile(path)
        except zipfile.BadZipFile as error:
            words = (
                f"the list of its files, at its end, is missing or damaged ({first_line(error)})"
            )
            raise zipfile.BadZipFile(words) from error

    def list(self, shard: int) -> Listing:
        """See `Archive.list`.

        Raises:
            UsageError: all files are encrypted.
        """
        members: dict[str, Member] = {}
        links: dict[str, str] = {}
        for place, info in enumerate(self._file.infolist()):
            name = clean(info.filename.replace("\\", "/"))
            if info.is_dir() or info.filename.endswith("\\"):
                continue
            members[name] = Member(name, shard, place, info.file_size, _refusal(info))
            if stat.S_ISLNK(info.external_attr >> 16) and not members[name].refusal:
                target = self._target(members[name])
                links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), target))
        if members and all(member.refusal == _LOCKED for member in members.values()):
            raise UsageError(f"{self._path} is encrypted", "unpack it and give the folder")
        follow_links(members, links, shard)
        return Listing(members)

    def _target(self, link: Member) -> str:
        if link.size > _MOST_LINK_BYTES:
            return ""
        try:
            return self.read(link).decode("utf-8", "replace")
        except self.broken:
            return ""

    def read(self, member: Member) -> bytes:
        """See `Archive.read`; the checksum is verified."""
        data = bytearray()
        with self._file.open(self._file.infolist()[member.place]) as file:
            while piece := file.read(_PIECE):
                data += piece
        return bytes(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def is_zip(path: Path) -> bool:
    """Whether a file begins as a zip does; one without files, or a part of one, too."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in (b"PK\3\4", b"PK\5\6", b"PK\7\x08")
    except OSError:
        return False


def _refusal(info: zipfile.ZipInfo) -> str:
    if info.flag_bits & _ENCRYPTED:
        return _LOCKED
    packed, size = info.compress_size, info.file_size
    if _MUCH_BYTES < size <= MOST_BYTES and size > _MOST_RATIO * packed:
        return f"would be unpacked from {packed} to {size} bytes, no picture is packed like that"
    return ""
