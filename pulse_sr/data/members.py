"""The files in an archive: where they lie, and their bytes, read without unpacking to the disk."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from pulse_sr.errors import InputError, first_line

#: Of a member, as of a file.
MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its path, `/` between the parts.
        shard: counts the archives of a set.
        place: where it lies; those of an archive are read in ascending order.
        size: in bytes, as the archive says.
        refusal: why it is not even tried, in words that follow the name.
    """

    name: str
    shard: int
    place: int
    size: int
    refusal: str = ""


@dataclass(frozen=True)
class Listing:
    """The files of an archive by name, the last of a name winning.

    Attributes:
        members: by name.
        damage: why they may not be all; empty if they are.
    """

    members: dict[str, Member]
    damage: str = ""


class Archive(Protocol):
    """An archive, opened."""

    @property
    def broken(self) -> tuple[type[Exception], ...]:
        """What its functions raise when the archive is damaged."""

    def list(self, shard: int) -> Listing:
        """All files; raises `broken` if there is none before the damage."""

    def read(self, member: Member) -> bytes:
        """The bytes of a member, at most `member.size`; raises `broken`."""

    def close(self) -> None:
        """Close the file."""


def bytes_of(archive: Archive, member: Member) -> bytes:
    """The bytes of a member.

    Raises:
        InputError: it is refused, empty, too large or damaged.
    """
    if member.refusal:
        raise InputError(f"{member.name} {member.refusal}")
    if member.size > MOST_BYTES:
        raise InputError(f"{member.name} has {member.size} bytes, the limit is {MOST_BYTES}")
    if not member.size:
        raise InputError(f"{member.name} is empty (0 bytes)", "pack the file again")
    try:
        data = archive.read(member)
    except archive.broken as error:
        raise InputError(
            f"{member.name} cannot be read: {first_line(error)}", "pack it again"
        ) from error
    if len(data) < member.size:
        raise InputError(
            f"{member.name} is cut off: {len(data)} of {member.size} bytes", "pack it again"
        )
    return data


def clean(name: str) -> str:
    """The path of a member in its plainest form, below the archive."""
    return posixpath.normpath(name).lstrip("/")


def follow_links(members: dict[str, Member], links: Mapping[str, str], shard: int) -> None:
    """Put the files that links (name to target) lead to into their places."""
    found: dict[str, Member] = {}
    for name in links:
        target = name
        for _ in range(len(links)):  # a loop of links leads nowhere
            target = links.get(target, target)
        if target in members and target not in links:
            found[name] = replace(members[target], name=name)
        else:
            words = "links to a file that the archive does not hold"
            found[name] = Member(name, shard, 0, 0, words)
    members |= found
