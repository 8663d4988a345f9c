"""The checksum by which a file is known again."""

from __future__ import annotations

import hashlib
import os


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file, as hexadecimal digits; the file is not read into memory as a whole.

    Raises:
        OSError: the file can not be read.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
