"""The list of inputs of a run folder: an index of what lies in the folders of the inputs.

`manifest.json` is a JSON list with one row per input: stem, path, sha256, status ("ok",
"below_target" or "failed"), seconds, samples, fingerprint, and for failures error and hint. Several
processes may add rows at the same time (`--shard`), so each change reads, merges and writes under a
lock. So do the threads of one process.

The manifest is written whole. A run that wrote it after each input would take time with the square
of their number, so the rows come in batches (`Index`). What a killed process did not write is in
`result.json`, from which the next call repairs the list.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, Required, TypedDict

from msgspec import Meta

from pulse_sr.errors import UsageError
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import (
    Amount,
    Count,
    FileName,
    Side,
    check_shape,
    json_bytes,
    load_json,
    read_json,
)
from pulse_sr.files.lock import folder_lock
from pulse_sr.images.places import OTHER_FOLDER, check_place, in_the_way

log = logging.getLogger(__name__)

#: Between the threads of a process, also where the file system has no locks.
_THREADS = threading.Lock()

NAME = "manifest.json"
PAGE = "index.html"
RECORD = "result.json"
PHOTO = "photo.json"
COMPARED = "compare.json"

#: Rows wait this long at most for more of them, in seconds; and so many times as long as the last
#: batch took, so that writing stays a small part of a run with any number of inputs.
_BATCH_S, _BATCH_SHARE = 5.0, 20.0

Row = dict[str, Any]
Status = Literal["ok", "below_target", "failed"]


class NotedShape(TypedDict):
    """The input of a record, with what was changed on reading it."""

    path: str
    sha256: str
    notes: list[str]


class CropShape(TypedDict):
    """What a row of `align` has of a crop."""

    name: FileName
    score: float
    real_size: Amount
    near_duplicate_of: str | None
    phash: Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
    lr: dict[str, Annotated[str, Meta(pattern=r"\Alr_\d{1,5}/[^/\\\x00]+\.png\Z")]]


class LeftOutShape(TypedDict):
    """What a row of `align` has of a face without a crop."""

    reason: str


class MethodShape(TypedDict, total=False):
    """What a row of `compare` has of an enlargement."""

    method: Required[str]
    title: Required[str]
    file: Required[FileName]
    lr_psnr: Required[float | None]
    psnr: float | None
    ssim: float | None
    distance: float | None


class RowShape(TypedDict, total=False):
    """A row of any command; each has its own part of these."""

    stem: Required[FileName]
    path: str
    sha256: str
    status: Status
    seconds: Amount
    samples: Count
    fingerprint: str
    base: FileName
    error: str
    hint: str
    notes: list[str]
    names: list[FileName]
    faces: list[CropShape]
    left_out: list[LeftOutShape]
    file: FileName
    width: Side
    height: Side
    methods: list[MethodShape]


def read_rows(out: Path) -> list[Row]:
    """Returns the rows of `out` that are whole; none if there is no manifest or it is damaged."""
    return _read(out)[0]


def _read(out: Path) -> tuple[list[Row], bool]:
    """The rows that are whole, and whether the file holds nothing but them."""
    listed: list[Any] | None = read_json(out / NAME, list)
    if listed is None:
        return [], not (out / NAME).exists()
    rows = [row for row in listed if _is_row(row)]
    if len(rows) < len(listed):
        number = len(listed) - len(rows)
        log.warning("%s has %d damaged rows: they count as missing", out / NAME, number)
    return rows, len(rows) == len(listed)


def _is_row(row: Any) -> bool:
    try:
        check_shape(row, RowShape)
    except ValueError:
        return False
    return True


def put_rows(out: Path, rows: Iterable[Row]) -> None:
    """Adds rows, each in the place of the one of the same stem, and writes the manifest."""
    with _THREADS, folder_lock(out):
        listed, whole = _read(out)
        by_stem = {row["stem"]: row for row in (*listed, *rows)}
        if not whole:
            _keep_aside(out)
        _write(out, [by_stem[stem] for stem in sorted(by_stem)])


def drop_rows(out: Path, unwanted: Callable[[Row], bool]) -> list[Row]:
    """Removes rows and returns those that stay; writes nothing if there is none to remove."""
    with _THREADS, folder_lock(out):
        rows, whole = _read(out)
        kept = [row for row in rows if not unwanted(row)]
        if len(kept) < len(rows):
            if not whole:
                _keep_aside(out)
            _write(out, kept)
    return kept


def check_manifest(out: Path, page: bool = False) -> None:
    """Refuses a folder whose `manifest.json`, or `index.html` with `page`, is somebody else's.

    Raises:
        UsageError: it is.
    """
    if page:
        check_place(out, [out / PAGE], error=UsageError)
    if os.path.lexists(out / NAME) and not (out / NAME).is_file():
        raise UsageError(in_the_way(out / NAME), OTHER_FOLDER)
    try:
        listed = load_json(out / NAME)
    except (OSError, ValueError):  # missing, or damaged: then it is kept aside
        return
    if not isinstance(listed, list):
        raise UsageError(in_the_way(out / NAME), OTHER_FOLDER)


class Index:
    """The manifest as a run knows it, whose own rows are written in batches, from any thread.

    A pickled copy knows the rows and keeps those that are put, but writes none.

    Args:
        out: the run folder.
        rows: of its manifest.

    Attributes:
        rows: by stem, with those that wait to be written.
    """

    def __init__(self, out: Path, rows: Iterable[Row]) -> None:
        self.out, self.rows = out, {row["stem"]: row for row in rows}
        self._waiting: list[Row] = []
        self._mutex = threading.Lock()
        self._next = time.monotonic() + _BATCH_S
        self._is_copy = False

    def __getstate__(self) -> dict[str, Any]:
        return {"out": self.out, "rows": self.rows}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["out"], state["rows"].values())  # type: ignore[misc]
        self._is_copy = True

    def put(self, row: Row) -> None:
        """Adds a row, or replaces the one of the same stem; it is written with its batch.

        Raises:
            SetupError: the disk is full, or the place can not be written.
        """
        with self._mutex:
            self.rows[row["stem"]] = row
            if self._is_copy:
                return
            self._waiting.append(row)
            if time.monotonic() >= self._next:
                self._flush()

    def repair(self, row: Row) -> None:
        """Puts a row made from a `result.json`, if the one that is listed is not of that result."""
        listed, same = self.rows.get(row["stem"], {}), ("fingerprint", "samples")
        if [listed.get(name) for name in same] != [row[name] for name in same]:
            self.put(row)

    def flush(self) -> None:
        """Writes the rows that wait; raises as `put`."""
        with self._mutex:
            if self._waiting:
                self._flush()

    def _flush(self) -> None:
        started = time.monotonic()
        put_rows(self.out, self._waiting)
        self._waiting = []  # only now: what could not be written may be tried again
        now = time.monotonic()
        self._next = now + max(_BATCH_S, _BATCH_SHARE * (now - started))


def base_of(row: Row) -> str:
    """Returns the stem of the input that a row belongs to: one of its faces may have its own."""
    return str(row.get("base") or row["stem"])


def _keep_aside(out: Path) -> None:
    """Gives a damaged manifest another name, since it may be somebody else's file."""
    number = 1
    while (aside := out / f"{NAME}.damaged-{number}").exists():
        number += 1
    with contextlib.suppress(OSError):
        os.rename(out / NAME, aside)


def _write(out: Path, rows: list[Row]) -> None:
    write_atomic(out / NAME, json_bytes(rows))
