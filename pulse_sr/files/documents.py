"""JSON: written strictly, so that every reader takes it, and read back with care.

JSON has no number for nan and infinity (RFC 8259, section 6): such values are written as null.

What is read back may have been cut off, edited or made by somebody else. Each kind of document has
a shape, a type that `msgspec` compares it with; a document is used as a whole or not at all.
"""

from __future__ import annotations

import json
import logging
import math
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from pulse_sr.errors import cut, first_line, shown

log = logging.getLogger(__name__)

#: Limits of what is read back: bytes, levels of nesting, digits of whole numbers.
MOST_BYTES, MOST_LEVELS, MOST_DIGITS = 128 * 2**20, 64, 20

#: A name that stays in its folder, such as that of a file beside the document.
FileName = Annotated[str, Meta(pattern=r"\A(?!\.{1,2}\Z)[^/\\\x00]+\Z", max_length=255)]
#: How many, and which: 0 or more, 1 or more.
Count = Annotated[int, Meta(ge=0, le=2**53)]
Place = Annotated[int, Meta(ge=1, le=100_000)]
#: A side in pixels.
Side = Annotated[int, Meta(ge=1, le=2**31)]
#: A duration, a width, a distance.
Amount = Annotated[float, Meta(ge=0)]
Sha256 = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]


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


def parse_json(text: bytes | str, shape: Any = Any, *, nan_as_null: bool = False) -> Any:
    """The document that a text holds.

    Args:
        text: JSON in which no object has two entries of one name.
        shape: a type that `msgspec` knows; what it does not name may be there as well.
        nan_as_null: take the words NaN and Infinity, which are not JSON, for null.

    Returns:
        the document as it is written, of plain dicts, lists, strings and finite numbers.

    Raises:
        ValueError: it is damaged, larger or deeper than the limits, or of another shape.
    """
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES // 2**20} MB")
    try:
        document = json.loads(
            text,
            parse_constant=_null if nan_as_null else _no_number,
            parse_int=_whole,
            object_pairs_hook=_object,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    _check_limits(document, MOST_LEVELS)
    check_shape(document, shape)
    return document


def check_shape(document: Any, shape: Any) -> None:
    """Compare a document with a shape.

    Raises:
        ValueError: it is of another one.
    """
    try:
        msgspec.convert(document, shape)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def load_json(path: Path, shape: Any = Any) -> Any:
    """The document in a file.

    Raises:
        OSError: there is no such file, or it can not be read.
        ValueError: see `parse_json`; or it is no regular file.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe: opening it would wait for somebody to write
        raise ValueError("it is no regular file")
    with path.open("rb") as file:
        return parse_json(file.read(MOST_BYTES + 1), shape)


def read_json(
    path: Path,
    shape: Any = Any,
    check: Callable[[Any], None] = lambda document: None,
    *,
    quiet: bool = False,
) -> Any:
    """The document in a file that we wrote; None if it is missing or damaged.

    Args:
        path: the file.
        shape: see `parse_json`.
        check: raises ValueError for a document of that shape whose parts do not fit together.
        quiet: a damaged file, which may be somebody else's, is no warning in the log.
    """
    try:
        document = load_json(path, shape)
        check(document)
    except OSError:
        return None
    except ValueError as error:
        if not quiet:
            log.warning("%s is damaged (%s): it counts as missing", path, first_line(error))
        return None
    return document


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
        # Logs of earlier versions have a bare NaN where a loss was not finite.
        record: dict[str, Any] = parse_json(line, dict, nan_as_null=True)
    except ValueError:
        return None
    return record


def _null(name: str) -> None:
    return None


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a whole number has {len(text):,} digits")
    return int(text)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has two entries of one name")
    return found


def _check_limits(document: Any, levels: int) -> None:
    """Raises ValueError for numbers and nesting that no document of ours has."""
    if isinstance(document, (dict, list)):
        if not levels:
            raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
        for each in document.values() if isinstance(document, dict) else document:
            _check_limits(each, levels - 1)
    elif isinstance(document, float) and not math.isfinite(document):
        raise ValueError("a number is not finite")


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
