"""What a command may write over, and which inputs would be written over.

A file is ours if a record names it, or if it says so itself: a picture by its text, a record by its
keys. Anything else is left alone, and whoever wants to write there is told.
"""

from __future__ import annotations

import os
from collections.abc import Container, Iterable
from itertools import islice
from pathlib import Path

from pulse_sr.errors import InputError, PulseError, UsageError
from pulse_sr.files.documents import load_json
from pulse_sr.files.paths import real_path
from pulse_sr.images.find import is_own_picture

#: What the beginning of a file of ours holds, by its suffix: the page of a run
#: (`report/templates/page.html`), and the matches of every step (`report.animation`).
_BEGINNINGS = {".html": b"<title>pulse-sr: ", ".csv": b"sample,step,lr_psnr"}
_HEAD_BYTES = 1000
#: The hint.
OTHER_FOLDER = "choose another folder with -o DIR, or move it away"


def refuse_inputs(
    inputs: Iterable[Path], out: Path, *, below: Iterable[Path] = (), flat: bool = False
) -> None:
    """Refuses inputs that are, or lie in, a place where results go; links do not hide them.

    Args:
        inputs: files and folders.
        out: the folder of the results.
        below: folders and files that are written, with everything in them.
        flat: files directly in `out` are written too.

    Raises:
        UsageError: there is one.
    """
    places, root = {real_path(each) for each in below}, real_path(out)
    for path in inputs:
        # Where it leads, and where it stands itself: a link can be replaced too.
        for place in (real_path(path), real_path(path.parent) / path.name):
            inside = not places.isdisjoint((place, *place.parents))
            if inside or (flat and place.parent == root):
                raise UsageError(
                    f"{path} lies where the results go, in {out}: one could replace it",
                    "choose another folder with -o DIR",
                )


def check_place(
    out: Path,
    files: Iterable[Path],
    named: Container[str] = (),
    error: type[PulseError] = InputError,
) -> None:
    """Refuses to write over what is not ours, and to write out of the folder of the results.

    Args:
        out: the folder of the results.
        files: in it, that are to be written.
        named: the names of those that a record has.
        error: what is raised.

    Raises:
        error: a file is in the way, or a folder is a link that leads elsewhere.
    """
    checked: set[Path] = set()
    for file in files:
        if file.parent not in checked:
            checked.add(file.parent)
            _check_folder(out, file.parent, error)
        if os.path.lexists(file) and (
            file.is_dir() or not (file.name in named or is_own_file(file))
        ):
            raise error(in_the_way(file), OTHER_FOLDER)


def stays_in(path: Path, folder: Path) -> bool:
    """Whether a path leads to a place in a folder, through links too."""
    return real_path(path).is_relative_to(real_path(folder))


def is_own_file(file: Path) -> bool:
    """Whether a file says itself that this program made it."""
    if file.is_symlink() or not file.is_file():
        return False
    if file.suffix == ".json":
        return _is_own_record(file)
    beginning = _BEGINNINGS.get(file.suffix)
    if beginning is not None:
        with file.open("rb") as opened:
            return beginning in opened.read(_HEAD_BYTES)
    return is_own_picture(file)


def _is_own_record(file: Path) -> bool:
    """By its keys; one that can not be read, by the pictures beside it."""
    try:
        document = load_json(file)
    except OSError:
        return False
    except ValueError:
        return any(is_own_picture(each) for each in islice(file.parent.glob("*.png"), 8))
    return (
        isinstance(document, dict)
        and "version" in document
        and not document.keys().isdisjoint(("schema", "fingerprint"))
    )


def _check_folder(out: Path, folder: Path, error: type[PulseError]) -> None:
    if os.path.lexists(folder) and not folder.is_dir():
        raise error(f"{folder} is no folder: it is left alone", OTHER_FOLDER)
    if real_path(folder) != real_path(out) / os.path.relpath(folder, out):
        raise error(_leads_out(folder, out), OTHER_FOLDER)


def in_the_way(file: Path) -> str:
    """What there is to say of somebody else's file."""
    return f"{file} exists and was not made by pulse-sr: it is left alone"


def _leads_out(folder: Path, out: Path) -> str:
    return f"{folder} is a link that leads out of {out}: it is left alone"
