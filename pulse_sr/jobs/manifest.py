"""The list of inputs of a run folder, and which folder belongs to which input.

`manifest.json` is a JSON list with one row per input: stem, path, sha256, status ("ok",
"below_target" or "failed"), seconds, samples, fingerprint, and for failures error and hint. Several
processes may add rows at the same time (`--shard`), so each change reads, merges and writes under a
lock. So do the threads of one process.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pulse_sr.files.atomic import write_atomic

try:
    import fcntl
except ImportError:  # Windows: no lock, so shards need their own folders there
    fcntl = None  # type: ignore[assignment]

#: Between the threads of a process, also where the file system has no locks.
_THREADS = threading.Lock()

NAME = "manifest.json"
PAGE = "index.html"

Row = dict[str, Any]


def read_rows(out: Path) -> list[Row]:
    """Returns the rows of `out`; none if there is no manifest or it is damaged."""
    rows = read_json(out / NAME)
    if not isinstance(rows, list):
        return []
    return [row for row in rows if isinstance(row, dict) and isinstance(row.get("stem"), str)]


def put_row(out: Path, row: Row) -> None:
    """Adds a row, or replaces the one of the same stem, and writes the manifest atomically."""
    with _locked(out):
        rows = [each for each in read_rows(out) if each["stem"] != row["stem"]]
        rows.append(row)
        rows.sort(key=lambda each: each["stem"])
        write_atomic(out / NAME, json_bytes(rows))


def drop_rows(out: Path, unwanted: Callable[[Row], bool]) -> None:
    """Removes rows; writes nothing if there is none to remove."""
    with _locked(out):
        rows = read_rows(out)
        kept = [row for row in rows if not unwanted(row)]
        if len(kept) < len(rows):
            write_atomic(out / NAME, json_bytes(kept))


def assign_stems(
    out: Path, inputs: Sequence[tuple[Path, str]], reserved: Sequence[str] = (NAME, PAGE)
) -> list[str]:
    """Returns the folder name of each input (path, sha256): its stem, or stem-2, stem-3, ...

    An input keeps the name that it has in `out` already: it is recognised by its path, or by its
    content if the file that was recorded is gone (moved, or named from another working directory).
    The others take the first free name, in the order given; `reserved` names are never free.
    """
    recorded = _recorded(out)
    stems: dict[int, str] = {}
    by_path = {_absolute(path): stem for stem, (path, _) in recorded.items() if path}
    for i, (path, _) in enumerate(inputs):
        if _absolute(path) in by_path:
            stems[i] = by_path.pop(_absolute(path))
    moved = {
        stem: sha for stem, (path, sha) in recorded.items() if not path or not Path(path).exists()
    }
    for i, (path, sha256) in enumerate(inputs):
        if i not in stems:
            _claim_moved(i, path, sha256, moved, stems)
    taken = Names(read_rows(out)).all | {stem.casefold() for stem in recorded} | set(reserved)
    for i, (path, _) in enumerate(inputs):
        if i not in stems:
            stems[i] = _free_name(clean_stem(path), taken)
            taken.add(stems[i].casefold())
    return [stems[i] for i in range(len(inputs))]


class Names:
    """Which inputs, by their stems, use which names; upper and lower case are the same.

    Args:
        rows: whose names are in use.
        stems: of more inputs.
    """

    def __init__(self, rows: Sequence[Row], stems: Sequence[str] = ()) -> None:
        self._users: dict[str, set[str]] = {}
        for row in rows:
            self.add(base_of(row), (row["stem"], *row.get("names", ())))
        for stem in stems:
            self.add(stem, (stem,))

    @property
    def all(self) -> set[str]:
        """The names, case-folded."""
        return set(self._users)

    def add(self, stem: str, names: Sequence[str]) -> None:
        """Notes that an input uses `names`."""
        for name in names:
            self._users.setdefault(str(name).casefold(), set()).add(stem)

    def taken(self, name: str, stem: str) -> bool:
        """Whether an input other than `stem` uses the name."""
        return bool(self._users.get(name.casefold(), set()) - {stem})


def base_of(row: Row) -> str:
    """Returns the stem of the input that a row belongs to: one of its faces may have its own."""
    return str(row.get("base") or row["stem"])


def face_names(base: str, count: int, names: Names) -> list[str]:
    """Returns the names of the faces of one input: `base`, or base-1, base-2, ... for several.

    Args:
        base: the stem that `assign_stems` gave to the input.
        count: how many faces it has.
        names: those in use; where another input is called base-1, the faces are called base-face1,
            base-face2, ...
    """
    if count == 1:
        return [base]
    middle = "-"
    while any(names.taken(f"{base}{middle}{k}", base) for k in range(1, count + 1)):
        middle += "face"
    return [f"{base}{middle}{k}" for k in range(1, count + 1)]


def clean_stem(path: Path | str | None) -> str:
    """Returns the file's stem, or "image" where that is no usable folder name."""
    stem = Path(path).stem if path is not None else ""
    return stem if stem.strip(". ") else "image"


def read_json(path: Path) -> Any:
    """Returns the document in `path`, or None if it is missing or not JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def json_bytes(document: Any) -> bytes:
    """Returns the document as readable JSON, in ASCII: file names need not be valid UTF-8."""
    return (json.dumps(document, indent=2, allow_nan=False) + "\n").encode("ascii")


def _recorded(out: Path) -> dict[str, tuple[str, str]]:
    """Which input each folder belongs to: stem -> (path, sha256)."""
    rows = read_rows(out)
    recorded = {
        base_of(row): (str(row.get("path") or ""), str(row.get("sha256") or "")) for row in rows
    }
    listed = {row["stem"] for row in rows}
    for file in sorted(out.glob("*/result.json")):
        if file.parent.name not in listed:
            document = read_json(file)
            document = document if isinstance(document, dict) else {}
            source, face = document.get("input", {}), document.get("face") or {}
            recorded[str(face.get("base") or file.parent.name)] = (
                str(source.get("path") or ""),
                str(source.get("sha256") or ""),
            )
    return recorded


def _claim_moved(
    i: int, path: Path, sha256: str, moved: dict[str, str], stems: dict[int, str]
) -> None:
    base, claimed = clean_stem(path), set(stems.values())
    for stem, known in moved.items():
        same_name = stem == base or stem.startswith(base + "-")
        if sha256 and sha256 == known and same_name and stem not in claimed:
            stems[i] = stem
            return


def _free_name(base: str, taken: set[str]) -> str:
    name, number = base, 1
    while name.casefold() in taken:
        number += 1
        name = f"{base}-{number}"
    return name


def _absolute(path: Path | str) -> str:
    return os.path.abspath(path)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; goes on without where the file system has none."""
    with _THREADS:
        if fcntl is None:
            yield
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
