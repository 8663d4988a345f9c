"""What is a clean end of a command, and what two results have in common."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from campaign.children import MEGABYTES, SECONDS, Outcome
from pulse_sr.errors import LONGEST_MESSAGE

#: The exit codes of docs/interface.md.
DONE, SOME_FAILED, WRONG_CALL, WRONG_PLACE, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143
CODES = (DONE, SOME_FAILED, WRONG_CALL, WRONG_PLACE)
#: Keys of records, logs, headers whose values are times, digests of files with times, or how many
#: samples memory had room for at once.
_TIMES = {"seconds", "timing", "images_per_second", "prior_sha256", "slots"}
#: Files that show times (in pictures), or which process has the folder.
_OF_TIMES = {"curves.png", ".lock"}
#: What the command line says of an exception that it does not know, such as a TypeError.
_UNEXPECTED = re.compile(r"unexpected [A-Z]\w*: .*")
#: Where pages and cards show seconds; the other numbers of a page are in the records as well.
_SHOWN_SECONDS = re.compile(
    rb'(?<=<td class="n">)[^<]*|\b(load|search|prepare|project|write) [\d.]+|\bin [\d.]+ \w+(?= \|)'
)


def fault_of(outcome: Outcome, codes: tuple[int, ...] = CODES) -> str:
    """Why the end of a command is not clean; empty if it is."""
    said = outcome.stdout + outcome.stderr
    last = (outcome.stderr.strip().splitlines() or [""])[-1][:200]
    if outcome.hung:
        return f"it hung, {outcome.seconds:.0f} s"
    if "Traceback" in said:
        return f"a traceback: {last}"
    nobody_expected = _UNEXPECTED.search(said)
    if nobody_expected:
        return f"an unexpected error: {nobody_expected[0][:200]}"
    if outcome.code not in codes:
        return f"exit code {outcome.code}, {' or '.join(map(str, codes))} expected: {last}"
    if outcome.processor > SECONDS:
        return f"it computed for {outcome.processor:.0f} s"
    if outcome.megabytes > MEGABYTES:
        return f"it took {outcome.megabytes:.0f} MB"
    if outcome.code in (WRONG_CALL, WRONG_PLACE):
        return _lines_of(outcome.stderr)
    return ""


def _lines_of(stderr: str) -> str:
    """What is wrong with the words of an error: one line and at most one hint."""
    lines = stderr.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    if len(errors) != 1:
        return f"{len(errors)} lines of errors: {stderr[:200]!r}"
    if len(errors[0]) > len("error: ") + LONGEST_MESSAGE:
        return f"a line of {len(errors[0])} characters"
    return ""


def content_of(folder: Path, *, plainly: bool = False) -> dict[str, str]:
    """What each file in a folder holds: name to digest.

    Args:
        folder: the folder.
        plainly: by its bytes; else without times and the folder's name.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in _OF_TIMES:
            data = path.read_bytes()
            if not plainly:
                with contextlib.suppress(ValueError):  # half a document is compared as it is
                    data = _timeless(path.suffix, data)
            data = data.replace(str(folder).encode(), b"")
            found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def difference(found: dict[str, str], expected: dict[str, str]) -> str:
    """In which files two folders differ; empty if in none."""
    words = [f"{name} (missing)" for name in sorted(expected.keys() - found)]
    words += [f"{name} (new)" for name in sorted(found.keys() - expected)]
    both = sorted(found.keys() & expected)
    words += [f"{name} (other)" for name in both if found[name] != expected[name]]
    return ", ".join(words[:5])


def _timeless(suffix: str, data: bytes) -> bytes:
    if suffix == ".json":
        return _sorted(json.loads(data))
    if suffix == ".jsonl":
        return _sorted([json.loads(line) for line in data.splitlines()])
    if suffix == ".safetensors":
        size = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:size])
        about = header.get("__metadata__", {})
        about |= {key: json.loads(text) for key, text in about.items() if text.startswith("{")}
        return _sorted(header) + data[size:]
    if suffix in (".html", ".md"):
        return _SHOWN_SECONDS.sub(b"", data)
    return data


def _sorted(document: Any) -> bytes:
    return json.dumps(without_times(document), sort_keys=True).encode()


def without_times(value: Any) -> Any:
    """A document without what is other for every run."""
    if isinstance(value, list):
        return [without_times(each) for each in value]
    if isinstance(value, dict):
        return {key: without_times(each) for key, each in value.items() if not _is_time(key)}
    return value


def _is_time(key: str) -> bool:
    return key in _TIMES or key.endswith(("_s", "_seconds"))
