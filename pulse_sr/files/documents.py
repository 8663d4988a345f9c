"""JSON: written strictly, so that every reader takes it, and read back with care.

JSON has no number for nan and infinity (RFC 8259, section 6): such values are written as null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pulse_sr.errors import cut, shown


def json_text(
    document: Any, indent: int | None = None, *, sort_keys: bool = False, ascii_only: bool = True
) -> str:
    """A document as JSON, on one line without `indent`; in ASCII any file name can be written."""
    options: dict[str, Any] = {"indent": indent, "sort_keys": sort_keys, "ensure_ascii": ascii_only}
    try:
        return json.dumps(document, allow_nan=False, **options)
    except ValueError:  # rare: only then the document is walked through
        return json.dumps(_finite(document), allow_nan=False, **options)


def json_bytes(document: Any) -> bytes:
    """A document as the content of a file that people read too."""
    return (json_text(document, indent=2) + "\n").encode("ascii")


def json_line(record: Any) -> str:
    """A record as one line of a file of them."""
    return json_text(record, ascii_only=False) + "\n"


def is_finite(document: Any) -> bool:
    """Whether no number in a document is nan or infinite."""
    if isinstance(document, dict):
        return all(map(is_finite, document.values()))
    if isinstance(document, (list, tuple)):
        return all(map(is_finite, document))
    return not isinstance(document, float) or math.isfinite(document)


def read_json(path: Path) -> Any:
    """The document in a file; None if it is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records in a file of one a line; lines that are none are left out, no file has none."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        for line in file:
            record = record_in(line)
            if record is not None:
                yield record


def record_in(line: bytes) -> dict[str, Any] | None:
    """The record that a line holds; None for a damaged one."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


#: What the description of a network may ask for: widths and sides, layers of a kind, entries.
MOST_WIDTH, MOST_LAYERS, MOST_ENTRIES = 8192, 256, 64
_LAYERS = ("mapping_layers", "blocks", "convolutions")


def check_description(config: Any) -> None:
    """Refuses the description of a network that would take more than any network needs to build.

    Args:
        config: names to whole numbers, finite numbers, switches, words, or flat lists of numbers.

    Raises:
        ValueError: it is of another form, or a number is out of range; the message names it.
    """
    if not isinstance(config, Mapping) or len(config) > MOST_ENTRIES:
        raise ValueError("the configuration is no table of a network's sizes")
    for name, value in config.items():
        values = value if isinstance(value, (list, tuple)) else [value]
        most = MOST_LAYERS if name in _LAYERS else MOST_WIDTH
        if len(values) > MOST_ENTRIES or not all(_is_plain(each, most) for each in values):
            raise ValueError(f"{cut(str(name))} is {shown(value)}, sizes are whole, up to {most}")


def _is_plain(value: Any, most: int) -> bool:
    if isinstance(value, str):
        return len(value) <= MOST_ENTRIES
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or (isinstance(value, int) and 0 <= value <= most)


def _finite(document: Any) -> Any:
    """The document with None for every number that is not finite."""
    if isinstance(document, dict):
        return {key: _finite(value) for key, value in document.items()}
    if isinstance(document, (list, tuple)):
        return [_finite(each) for each in document]
    return document if is_finite(document) else None
