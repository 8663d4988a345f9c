"""What a user names as training data, to a source of images."""

from __future__ import annotations

import os
from pathlib import Path

from pulse_sr.data.archive import ArchiveSource
from pulse_sr.data.idx import IdxSource, is_idx
from pulse_sr.data.shards import expand_shards, shards_in
from pulse_sr.data.sources import FolderSource, ImageSource
from pulse_sr.files.paths import EITHER, check_path, problem_of_name


def open_source(data: str | os.PathLike[str], member: str | None = None) -> ImageSource:
    """The images of a folder, of one or several tars and zips, or of an idx file.

    Args:
        data: a folder of images; a tar, compressed or not; a zip; a pattern of them such as
            `faces-{000..003}.tar` or `faces-*.zip`; a folder of them without other images (beside
            images they are left out, and counted); an idx file such as `t10k-images-idx3-ubyte.gz`.
        member: the field of a sample that is its image (`selection.select_images`).

    Raises:
        UsageError: when there is no such thing, it is a pipe, or no file of a folder has the field.
        InputError: an idx file is damaged.
    """
    location, folder = os.fspath(data), Path(data)
    if problem_of_name(location) or os.path.lexists(location):
        check_path(location, EITHER)
    if is_idx(folder):
        return IdxSource(folder)
    if not folder.is_dir():
        return ArchiveSource(location, expand_shards(location), member=member)
    shards = shards_in(folder)
    if shards and not FolderSource(folder).names:
        return ArchiveSource(location, shards, folder, member)
    return FolderSource(folder, member)
