"""Which archives a path stands for: braces and globs, as WebDataset names its shards."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from pulse_sr.errors import UsageError, cut
from pulse_sr.files.paths import check_path

#: Archives of a data set.
_MOST_SHARDS = 100_000
_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")


def expand_shards(pattern: str) -> list[Path]:
    """The files that a path with braces (`{000..003}`, `{a,b}`) or a glob stands for, in order.

    Raises:
        UsageError: when a file is missing or nothing matches.
    """
    if os.path.exists(pattern):
        return [check_path(pattern)]
    found: dict[Path, None] = {}  # in order, none twice
    for text in _expand_braces(pattern):
        matches = sorted(glob.glob(text)) if glob.has_magic(text) else [text]
        if not matches or not os.path.exists(matches[0]):
            raise UsageError(
                f"{text} is not a folder of images, nor a tar or zip of them", "check the path"
            )
        found |= dict.fromkeys(map(check_path, matches))
        if len(found) > _MOST_SHARDS:
            raise UsageError(f"{pattern} stands for more than {_MOST_SHARDS} files", "check it")
    return list(found)


def shards_in(folder: Path) -> list[Path]:
    """The archives directly in a folder, in order."""
    return sorted(
        path
        for path in folder.iterdir()
        if path.name.lower().endswith(_SUFFIXES)
        and not path.name.startswith(".")
        and path.is_file()
    )


def title_of(location: str) -> str:
    """A short name for archives: `faces` for `data/faces-{000..003}.tar.gz`."""
    name = re.sub(r"\{[^{}]*\}|\[[^\]]*\]|[*?]", "", Path(location).name)
    for suffix in sorted(_SUFFIXES, key=len, reverse=True):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name.strip("-_.") or "images"


def _expand_braces(pattern: str) -> Iterator[str]:
    braces = re.search(r"\{([^{}]+)\}", pattern)
    if braces is None:
        yield pattern
        return
    for choice in _choices(braces[1]):
        yield from _expand_braces(pattern[: braces.start()] + choice + pattern[braces.end() :])


def _choices(inside: str) -> Iterator[str]:
    numbers = re.fullmatch(r"(\d+)\.\.(\d+)", inside)
    if numbers is None:
        yield from inside.split(",")
        return
    first, last = numbers.groups()
    if max(len(first), len(last)) > len(str(_MOST_SHARDS)):
        raise UsageError(f"{{{cut(inside)}}} stands for too many files", "{000..003}")
    width = max(map(len, numbers.groups())) if "0" in (first[0], last[0]) else 0
    step = 1 if int(first) <= int(last) else -1
    for number in range(int(first), int(last) + step, step):
        yield str(number).zfill(width)
