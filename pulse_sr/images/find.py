"""Files, folders and globs to the paths of pictures.

Shapes: h w size; pixels are uint8 RGB [3, h, w] unless a signature says otherwise. No torch here.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image

from pulse_sr.errors import UsageError
from pulse_sr.images.read import REFUSED_FORMATS


def find_images(inputs: Sequence[str]) -> list[Path]:
    """Expands files, folders and globs into picture paths, in the order given, without repeats.

    Files named outright are kept whatever their suffix. Folders (not their subfolders) and globs
    give the files with a suffix that Pillow reads, sorted by name, without hidden ones.

    Raises:
        UsageError: a path that does not exist, a folder or glob without images.
    """
    found: dict[Path, Path] = {}
    for text in inputs:
        for path in _expand(text):
            found.setdefault(path.resolve(), path)
    return list(found.values())


def _expand(text: str) -> list[Path]:
    path = Path(text)
    if path.is_dir():
        return _known_images(path.iterdir(), f"the folder {text} has no images")
    if path.exists():
        return [path]
    if glob.has_magic(text):
        matches = map(Path, glob.glob(text, recursive=True))
        return _known_images(matches, f"no image matches {text}")
    raise UsageError(f"{text} does not exist", "check the path")


def _known_images(paths: Iterable[Path], complaint: str) -> list[Path]:
    readable = {
        suffix
        for suffix, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in REFUSED_FORMATS
    }
    images = sorted(
        path
        for path in paths
        if path.suffix.lower() in readable and not path.name.startswith(".") and path.is_file()
    )
    if not images:
        raise UsageError(complaint, "give image files such as PNG or JPEG")
    return images
