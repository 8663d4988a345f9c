"""Fetching a checkpoint that its makers publish: on request only, resumed, checked."""

from __future__ import annotations

import contextlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from pulse_sr.errors import SetupError, UsageError, first_line
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.documents import FileName, load_json

TABLE = Path(__file__).with_name("downloads.json")
TIMEOUT_S, _BLOCK = 60, 2**20

#: Called with the bytes that are there and the bytes of the whole file, None if that is not known.
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True)
class Download:
    """A file that can be fetched.

    Attributes:
        name: by which it is asked for.
        url: where its makers publish it.
        sha256: of the file; None where no checksum is published.
        size: in bytes; None where it is not published.
        licence: of the weights.
        data: what they were trained on.
        commercial: whether the licence allows commercial use.
    """

    name: str
    url: str
    sha256: str | None
    size: int | None
    licence: str
    data: str
    commercial: bool


def downloads() -> dict[str, Download]:
    """What can be fetched, by name.

    Raises:
        SetupError: the list is missing or damaged.
    """
    try:
        entries = load_json(TABLE, dict[FileName, dict[str, Any]])
        found = [{"name": name, **entry} for name, entry in entries.items()]
        return {each.name: each for each in msgspec.convert(found, list[Download])}
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise SetupError(
            f"the list of what can be fetched can not be read ({first_line(error)})",
            "reinstall pulse-sr",
        ) from error


def find_download(name: str) -> Download:
    """The entry of a name.

    Raises:
        UsageError: there is none.
    """
    known = downloads()
    if name not in known:
        raise UsageError(f"{name!r} is nothing that can be fetched", f"one of: {', '.join(known)}")
    return known[name]


def fetch(entry: Download, folder: Path, progress: Progress | None = None) -> Path:
    """Fetch a file, going on where an earlier call was interrupted.

    Args:
        entry: what to fetch.
        folder: where the file goes; made if need be.
        progress: told of every block.

    Returns:
        the file, whole; it is checked if its checksum is known.

    Raises:
        SetupError: there is no network, the server refuses, the disk is full, or the checksum
            differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{entry.name}{Path(entry.url).suffix}"
    if not target.is_file():
        partial = target.with_name(f"{target.name}.part")
        try:
            _fetch_rest(entry, partial, progress or (lambda done, whole: None))
            os.replace(partial, target)
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise SetupError(
                f"{entry.url} could not be downloaded: {reason}",
                f"the same command goes on; or fetch it elsewhere: pulse-sr prior import FILE "
                f"--name {entry.name}",
            ) from error
    digest = file_sha256(target)
    if entry.sha256 is not None and digest != entry.sha256:
        with contextlib.suppress(OSError):
            target.unlink()
        raise SetupError(
            f"{entry.url} gave sha256 {digest[:12]}..., expected {entry.sha256[:12]}...",
            "it was deleted; fetch it again, and compare with its makers if it happens again",
        )
    return target


def _fetch_rest(entry: Download, partial: Path, progress: Progress) -> None:
    start = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(entry.url, headers={"Range": f"bytes={start}-"})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing is left to fetch, or the file is another one
            whole = error.headers.get("Content-Range", "").rpartition("/")[2]
            if whole == str(start):
                return
            partial.unlink()
        raise
    with response:
        if response.status != 206:
            start = 0  # the server sends the whole file
        length = response.headers.get("Content-Length")
        whole_size = start + int(length) if length else entry.size
        with open(partial, "r+b" if start else "wb") as file:
            file.seek(start)
            done = start
            while block := response.read(_BLOCK):
                file.write(block)
                done += len(block)
                progress(done, whole_size)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    for expected in (whole_size, entry.size):
        if expected is not None and done != expected:
            raise ValueError(f"{done:,} bytes of {expected:,} arrived")
