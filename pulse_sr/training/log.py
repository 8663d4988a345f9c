"""The log of a training: one JSON object a line, never ahead of the state after a kill."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pulse_sr.errors import SetupError
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_line, read_records, record_in


def append_record(file: Path, record: dict[str, Any]) -> None:
    """Add a line; numbers that are not finite become null.

    Raises:
        SetupError: when it can not be written.
    """
    try:
        with open(file, "a", encoding="utf-8") as log:
            log.write(json_line(record))
    except OSError as error:
        raise SetupError(
            f"could not write {file}: {error.strerror}",
            "free some space; the same command goes on from the last checkpoint",
        ) from error


def read_log(file: Path, until_images: float = math.inf) -> Iterator[dict[str, Any]]:
    """The records up to some number of images; later ones, which a kill undid, and damaged lines
    are left out. A log that is not there yet has none."""
    return (each for each in read_records(file) if _images_of(each) <= until_images)


def rewind(file: Path, images_shown: int) -> None:
    """Drop the records of steps that come after the state, and damaged lines.

    What earlier versions wrote of numbers that are not finite, which is no JSON, becomes null.
    """
    if not file.exists():
        return
    lines = file.read_bytes().splitlines(keepends=True)
    whole = ((line, record_in(line)) for line in lines if line.endswith(b"\n"))
    kept = [_strict(line, found) for line, found in whole if _images_of(found) <= images_shown]
    if kept != lines:
        write_atomic(file, b"".join(kept))


def _strict(line: bytes, record: dict[str, Any] | None) -> bytes:
    return json_line(record).encode() if b"NaN" in line or b"Infinity" in line else line


def _images_of(record: dict[str, Any] | None) -> float:
    """The position of a record; nan, which is nowhere, for one that has none."""
    images = (record or {}).get("images")
    if isinstance(images, bool) or not isinstance(images, (int, float)):
        return math.nan
    return images
