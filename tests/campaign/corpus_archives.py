"""Damaged and hostile archives of training images, made from a seed."""

from __future__ import annotations

import gzip
import io
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Iterator

from campaign.corpus_images import DAMAGES, Case, sound

#: Names that lead out of a folder, or can be no name.
NAMES = ("../a.png", "/etc/a.png", "..\\a.png", "C:\\a.png", "x" * 300 + ".png", "a\0b.png", "//")


def cases(seed: int) -> Iterator[Case]:
    """About 80 of them."""
    for suffix, whole in (("zip", _zip(_numbered())), ("tar", _tar(_numbered()))):
        for number in range(20):
            rng = random.Random(f"{seed}/{suffix}/{number}")
            kind = list(DAMAGES)[number % len(DAMAGES)]
            yield f"{kind}-{number}.{suffix}", DAMAGES[kind](whole, rng)
        yield f"empty.{suffix}", b""
    yield from _hostile_zips()
    yield from _hostile_tars()


def _numbered(count: int = 3) -> list[tuple[str, bytes]]:
    return [(f"{number}.png", sound("png")) for number in range(count)]


def _zip(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", compression) as archive:
        warnings.simplefilter("ignore")  # names that come twice
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return stream.getvalue()


def _tar(members: list[tuple[str, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _hostile_zips() -> Iterator[Case]:
    for number, name in enumerate(NAMES):
        yield f"name-{number}.zip", _zip([(name, sound("png")), *_numbered()])
    yield "twice.zip", _zip([*_numbered(), *_numbered()])
    bomb = [("bomb.png", bytes(200_000_000))]
    yield "bomb.zip", _zip(bomb, zipfile.ZIP_DEFLATED)
    yield "nothing.zip", _zip([])
    yield "many.zip", _zip([(f"{number}.txt", b"") for number in range(20_000)])
    whole = bytearray(_zip(_numbered()))
    directory = whole.index(b"PK\x01\x02")
    for name, place, value in (
        ("declared", directory + 24, 2**32 - 2),
        ("packed", directory + 20, 2**32 - 2),
        ("offset", directory + 42, 2**32 - 2),
        ("method", directory + 10, 99),
        ("encrypted", directory + 8, 1),
    ):
        changed = bytearray(whole)
        form = "<H" if name in ("method", "encrypted") else "<I"
        struct.pack_into(form, changed, place, value)
        yield f"{name}.zip", bytes(changed)
    overlapping = bytearray(whole)
    second = whole.index(b"PK\x01\x02", directory + 1)
    overlapping[second + 42 : second + 46] = bytes(4)
    yield "overlapping.zip", bytes(overlapping)
    yield "prefixed.zip", b"#!/bin/sh\n" * 50 + bytes(whole)


def _hostile_tars() -> Iterator[Case]:
    for number, name in enumerate(NAMES):
        yield f"name-{number}.tar", _tar([(name.replace("\0", ""), sound("png")), *_numbered()])
    yield "twice.tar", _tar([*_numbered(), *_numbered()])
    yield "nothing.tar", _tar([])
    yield "packed.tar", gzip.compress(_tar(_numbered()), mtime=0)
    for name, kind, target in (
        ("link-out", tarfile.SYMTYPE, "/etc/passwd"),
        ("link-up", tarfile.SYMTYPE, "../../x"),
        ("link-self", tarfile.SYMTYPE, "a.png"),
        ("hard-link", tarfile.LNKTYPE, "/etc/passwd"),
        ("device", tarfile.CHRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    ):
        stream = io.BytesIO(_tar(_numbered()))
        with tarfile.open(fileobj=stream, mode="a") as archive:
            member = tarfile.TarInfo("a.png")
            member.type, member.linkname = kind, target
            archive.addfile(member)
        yield f"{name}.tar", stream.getvalue()
    whole = bytearray(_tar(_numbered()))
    for name, size in (("huge", b"77777777777\0"), ("binary", b"\x80" + b"\x7f" * 11)):
        changed = bytearray(whole)
        changed[124:136] = size
        changed[148:156] = b" " * 8
        changed[148:156] = b"%06o\0 " % sum(changed[:512])
        yield f"{name}.tar", bytes(changed)
