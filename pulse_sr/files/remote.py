"""Files at URLs (s3://, gs://, https://, ...), through fsspec.

An object store shows an object when all of it is there, as a rename shows a file on a disk.
Elsewhere a file is sent under another name and renamed. https://filesystem-spec.readthedocs.io
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from pulse_sr.errors import InputError, SetupError, UsageError, first_line
from pulse_sr.files.atomic import make_folder

T = TypeVar("T")

_URL = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://.+")
#: Where what is being sent can not be seen yet.
_STORES = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "oci", "r2", "memory"}
_WEB = {"http", "https"}
_TRIES, _PIECE = 3, 1 << 20


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether a text names something that fsspec opens, not a path of this machine."""
    return isinstance(text, str) and _URL.fullmatch(text) is not None


def file_system(url: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it.

    Raises:
        SetupError: fsspec, or its package for such URLs, is not installed.
        UsageError: fsspec knows no such URLs.
    """
    try:
        from fsspec.core import url_to_fs
    except ImportError as error:
        raise SetupError(
            f"{url} needs fsspec, which is not installed", "pip install 'pulse-sr[cluster]'"
        ) from error
    try:
        return url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:  # fsspec names the package
        raise SetupError(f"{url} can not be used: {first_line(error)}", "install it") from error
    except (ValueError, TypeError) as error:
        raise UsageError(f"{url} can not be used: {first_line(error)}", "check the URL") from error


def list_url(url: str, *, recursive: bool = False) -> list[str]:
    """The files that a URL stands for: itself, those of a folder or of a glob, by name.

    Raises:
        UsageError, SetupError: see `file_system`; there is nothing, or it can not be listed.
    """
    system, path = file_system(url)

    def look() -> list[str]:
        if any(each in path for each in "*?[") and not _is_web(system):
            return [each for each in system.glob(path) if not system.isdir(each)]
        if _is_web(system) or not system.isdir(path):
            return [path]
        if recursive:
            return list(system.find(path))
        return [each["name"] for each in system.ls(path, detail=True) if each["type"] == "file"]

    return sorted(system.unstrip_protocol(each) for each in _tried(look, url))


def fetch(url: str, path: Path, most: int) -> None:
    """Copies a file of up to `most` bytes to a path of this machine, whole or not at all.

    Raises:
        UsageError: there is no such file.
        InputError: it is larger.
        SetupError: it can not be read, or the copy not written.
    """
    system, place = file_system(url)
    make_folder(path.parent)
    beside = path.with_name(f".{path.name}.part")

    def copy() -> None:
        size = 0
        with system.open(place, "rb") as source, open(beside, "wb") as target:
            while piece := source.read(_PIECE):
                size += len(piece)
                if size > most:
                    raise InputError(f"{url} is larger than {most} bytes", "make it smaller")
                target.write(piece)
        os.replace(beside, path)

    try:
        _tried(copy, url)
    finally:
        beside.unlink(missing_ok=True)


def send(path: Path, url: str) -> None:
    """Copies a file of this machine to a URL, where it is seen whole or not at all.

    Raises:
        SetupError: it can not be written there.
    """
    system, place = file_system(url)

    def copy() -> None:
        if _protocols(system) & _STORES:
            system.pipe_file(place, path.read_bytes())
            return
        folder, _, name = place.rpartition("/")
        system.makedirs(folder, exist_ok=True)
        beside = f"{folder}/.{os.getpid()}-{name}.part"
        system.put_file(str(path), beside)
        system.mv(beside, place)

    _tried(copy, url)


def _is_web(system: Any) -> bool:
    return bool(_protocols(system) & _WEB)


def _protocols(system: Any) -> set[str]:
    return {system.protocol} if isinstance(system.protocol, str) else set(system.protocol)


def _tried(call: Callable[[], T], url: str) -> T:
    """What a call gives, which may be repeated: networks fail now and then."""
    for left in reversed(range(_TRIES)):
        try:
            return call()
        except FileNotFoundError as error:
            raise UsageError(f"{url} does not exist", "check the URL") from error
        except (OSError, RuntimeError, TimeoutError) as error:
            if not left or isinstance(error, PermissionError):
                raise SetupError(
                    f"{url} can not be reached: {first_line(error)}",
                    "check the connection and the rights; the same command resumes",
                ) from error
            time.sleep(1.0)
        except ModuleNotFoundError as error:
            raise SetupError(f"{url} can not be used: {first_line(error)}", "install it") from error
    raise AssertionError
