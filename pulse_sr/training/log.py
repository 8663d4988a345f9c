"""The log of a training: one JSON object a line, never ahead of the state after a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pulse_sr.errors import SetupError
from pulse_sr.files.atomic import write_text_atomic


def append_record(file: Path, record: dict[str, Any]) -> None:
    """Add a line.

    Raises:
        SetupError: when it can not be written.
    """
    try:
        with open(file, "a") as log:
            log.write(json.dumps(record) + "\n")
    except OSError as error:
        raise SetupError(
            f"could not write {file}: {error.strerror}",
            "free some space; the same command goes on from the last checkpoint",
        ) from error


def rewind(file: Path, images_shown: int) -> None:
    """Drop the records of steps that come after the state: a kill undid them."""
    if not file.exists():
        return
    lines = file.read_text().splitlines(keepends=True)
    kept = [line for line in lines if _images_of(line) <= images_shown]
    if len(kept) < len(lines):
        write_text_atomic(file, "".join(kept))


def _images_of(line: str) -> float:
    """The position of a record; infinite for one that a kill cut short."""
    if not line.endswith("\n"):
        return math.inf
    images: int = json.loads(line)["images"]
    return images
