"""What a user names as training data, to a source of images."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from pulse_sr.data.idx import IdxSource, is_idx
from pulse_sr.data.shards import expand_shards, shards_in
from pulse_sr.data.sources import FolderSource, ImageSource
from pulse_sr.data.tar import TarSource

log = logging.getLogger(__name__)


def open_source(data: str | os.PathLike[str]) -> ImageSource:
    """The images of a folder, of one or several tars, or of an idx file.

    Args:
        data: a folder of images; a tar, gzip'ed or not; a pattern of tars such as
            `faces-{000..003}.tar` or `faces-*.tar`; a folder of tars without other images; an
            idx file such as `t10k-images-idx3-ubyte.gz`.

    Raises:
        UsageError: when there is no such thing.
        InputError: an idx file is damaged.
    """
    folder = Path(data)
    if is_idx(folder):
        return IdxSource(folder)
    if not folder.is_dir():
        return TarSource(str(data), expand_shards(str(data)))
    source, shards = FolderSource(folder), shards_in(folder)
    if shards and not source.names:
        return TarSource(str(data), shards, folder)
    if shards:
        log.warning("%s holds images: its %d tars are left out", folder, len(shards))
    return source
