"""Files, folders and globs to the paths of pictures, and what of them was left out."""

from __future__ import annotations

import functools
import glob
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from pulse_sr.errors import UsageError
from pulse_sr.files.paths import (
    EITHER,
    FILE,
    FOLDER,
    check_path,
    problem_of,
    problem_of_name,
    read_text,
    real_path,
)
from pulse_sr.images.decode import REFUSED_FORMATS, register_heif
from pulse_sr.images.write import MADE_UP, OWN_MARK, OWN_WORDS

log = logging.getLogger(__name__)

_GIVE_IMAGES = "give image files such as PNG or JPEG"
_ONE_A_LINE = "one path or URL a line"
LIST_SUFFIX = ".txt"
#: What `run` and `compare` write: the kinds of pictures, and the records beside them.
_OWN_KINDS = (".png", ".jpg", ".gif")
_RECORDS = ("result.json", "photo.json", "compare.json")
#: Of a list: some 100,000 lines.
_MOST_BYTES = 2**24


def find_images(
    inputs: Sequence[str | Path] | Path, *, recursive: bool = False, out: Path | None = None
) -> list[Path]:
    """Expands files, folders, globs and lists into picture paths.

    Files named outright are kept whatever they are. Folders and globs give the files with a suffix
    that can be read, sorted by name, without hidden ones, without what lies in `out` (unless the
    folder that is looked through lies in there itself), and without pictures of earlier runs, which
    say so (`write.OWN_MARK`, `write.MADE_UP`). What is left out is a warning in the log.

    Args:
        inputs: files, folders, globs and lists (`listed_inputs`); a path alone is one of them.
        recursive: take the subfolders of folders too.
        out: the folder of the results, which are no inputs.

    Returns:
        the pictures, in the order given, without repeats.

    Raises:
        UsageError: a path that does not exist or is no regular file, a folder or glob without
            images.
    """
    found: dict[Path, Path] = {}
    given = [inputs] if isinstance(inputs, str | Path) else inputs  # a text is a sequence too
    for text in listed_inputs([str(each) for each in given]):
        paths, left_out = _expand(text, recursive, None if out is None else out.resolve())
        if left_out:
            log.warning("left out of %s: %s", text, left_out)
        for path in paths:
            found.setdefault(path.resolve(), path)
    return list(found.values())


def listed_inputs(inputs: Sequence[str]) -> list[str]:
    """Returns the inputs with each list, a text file named *.txt, replaced by its lines.

    Blank lines and those that begin with # are left out. Paths are relative to the working folder,
    as on the command line.

    Raises:
        UsageError: a list can not be read, or has no line.
    """
    found: list[str] = []
    for text in inputs:
        if not text.lower().endswith(LIST_SUFFIX) or problem_of(text, FILE):
            found.append(text)
            continue
        lines = read_text(text, _MOST_BYTES, called="the list ").splitlines()
        named = [line.strip() for line in lines if line.strip() and not line.startswith("#")]
        if not named:
            raise UsageError(f"the list {text} names no inputs", _ONE_A_LINE)
        found += named
    return found


def pictures_by_stem(folder: Path) -> dict[str, Path]:
    """The pictures of a folder by their names without suffix, samples of this program too.

    Raises:
        UsageError: it is no folder, has no pictures, or two of them of one name.
    """
    check_path(folder, FOLDER)
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        if path.name[0] != "." and kind_of(path.name) in image_suffixes() and path.is_file():
            found[path.stem].append(path)
    if not found:
        raise UsageError(f"the folder {folder} has no images", _GIVE_IMAGES)
    for stem, paths in found.items():
        if len(paths) > 1:
            names = " and ".join(path.name for path in paths)
            raise UsageError(f"{folder} holds {names}: two pictures named {stem}", "keep one")
    return {stem: paths[0] for stem, paths in found.items()}


@functools.cache
def image_suffixes() -> frozenset[str]:
    """The suffixes of the formats that are read, in lower case, with their dots."""
    register_heif()
    extensions = Image.registered_extensions()
    readable = set(Image.OPEN) - REFUSED_FORMATS
    return frozenset(suffix for suffix, kind in extensions.items() if kind in readable)


def kind_of(name: str) -> str:
    """What a file is by its name, in words that follow a number: its suffix in lower case."""
    return os.path.splitext(name)[1].lower() or "without a suffix"


def words_of(left_out: Mapping[str, int]) -> str:
    """The files that were left out by their kinds, as `3 .txt, 1 .raw`; empty if there are none."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(left_out.items()))


def _expand(text: str, recursive: bool, out: Path | None) -> tuple[list[Path], str]:
    path = Path(text)
    if problem_of_name(text) or not glob.has_magic(text) or os.path.lexists(text):
        path = check_path(text, EITHER)
        if not path.is_dir():
            return [path], ""
    inside = path if path.is_dir() else _fixed_part(path)
    if out is not None and out in real_path(inside).parents:
        out = None
    if path.is_dir():
        complaint = f"the folder {text} has no images"
        return _pictures(_below(path, recursive), complaint, out)
    matches = sorted(map(Path, glob.glob(text, recursive=True)))
    if not matches and "[" in text:
        raise UsageError(
            f"no image matches {text}", "[...] stands for one of the letters within; [[] is a ["
        )
    files = (match for match in matches if not match.is_dir())
    return _pictures(files, f"no image matches {text}", out)


def _fixed_part(pattern: Path) -> Path:
    """The folder below which everything lies that a pattern can match."""
    return next(each for each in pattern.parents if not glob.has_magic(str(each)))


def _below(folder: Path, recursive: bool) -> Iterator[Path]:
    """The entries of a folder by name; with `recursive` the files of its subfolders in place."""
    for entry in sorted(folder.iterdir()):
        if recursive and entry.is_dir() and not entry.is_symlink() and entry.name[0] != ".":
            yield from _below(entry, recursive)
        else:
            yield entry


def _pictures(paths: Iterable[Path], complaint: str, out: Path | None) -> tuple[list[Path], str]:
    """The pictures among the paths, and in words how many others of which kinds there are."""
    images: list[Path] = []
    others: Counter[str] = Counter()
    for path in paths:
        if path.name.startswith("."):
            continue
        kind = _kind(path, out)
        if kind:
            others[kind] += 1
        else:
            images.append(path)
    left_out = words_of(others)
    if not images:
        raise UsageError(complaint + (f" ({left_out})" if left_out else ""), _GIVE_IMAGES)
    return images, left_out


def _kind(path: Path, out: Path | None) -> str:
    """What stands against the path as a picture; empty if nothing does."""
    if out is not None and real_path(path).is_relative_to(out):
        return "in the output folder"
    if path.is_dir():
        return "subfolders (--recursive takes them)"
    kind = kind_of(path.name)
    if kind not in image_suffixes():
        return kind
    if not path.is_file():
        return "not regular files"
    return "pictures of earlier runs" if kind in _OWN_KINDS and _is_of_a_run(path) else ""


def _is_of_a_run(path: Path) -> bool:
    """Whether a picture is made up, or lies as one of ours beside the record of a result.

    Crops, degraded and enlarged pictures are ours too, and are inputs.
    """
    found = _texts(path)
    if OWN_MARK in found or _begins(found, ("Comment", "comment"), MADE_UP):
        return True
    recorded = any((path.parent / name).is_file() for name in _RECORDS)
    return recorded and is_own_picture(path)


def is_own_picture(path: Path) -> bool:
    """Whether a file is a picture that says it was made by this program."""
    return _begins(_texts(path), ("Software", "comment"), OWN_WORDS)


def _begins(found: Mapping[Any, Any], keys: Iterable[str], words: str | tuple[str, ...]) -> bool:
    values = (found.get(key, "") for key in keys)
    return any(
        (each.decode("latin-1") if isinstance(each, bytes) else str(each)).startswith(words)
        for each in values
    )


def _texts(path: Path) -> dict[str | tuple[int, int], Any]:
    """What a picture says of itself; nothing if the file is none."""
    try:
        with Image.open(path) as image:  # reads the chunks before the pixels
            return image.info
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return {}  # the reader says what is wrong
