"""The checksum by which a file is known again."""

from __future__ import annotations

import errno
import hashlib
import os


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as hexadecimal digits; the file is not read into memory as a whole.

    Raises:
        OSError: it can not be read, or is a pipe or a device: opening one could wait for ever.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
