"""Checkpoints of other programs as plain data: torch's zip and stream formats, plain pickles.

Nothing in a file is executed (`unpickler`). All storages together never take more memory than the
file takes on the disk: zip members must be stored, as torch writes them, not compressed.
"""

from __future__ import annotations

import io
import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch

from pulse_sr.errors import SetupError, UsageError, first_line
from pulse_sr.files.constructors import CONSTRUCTORS, Storage, is_record, storage_dtype
from pulse_sr.files.paths import FILE, check_path
from pulse_sr.files.unpickler import Constructor, Damaged, Forbidden, Unpickler

MAX_FILE_BYTES, MAX_MEMBERS, MAX_STREAMS_INSIDE = 16 * 2**30, 100_000, 2
#: What a torch stream begins with, after the head of a pickle.
MAGIC = 0x1950A86A20F9469CFC6C
#: What is raised by reading a zip archive that is not whole.
_BAD_ZIP = (zipfile.BadZipFile, OSError, EOFError, NotImplementedError, RuntimeError)
_BAD_ZIP_FIELDS = (ValueError, LookupError, OverflowError, struct.error, MemoryError)


def read_checkpoint(path: Path) -> Any:
    """What a checkpoint holds: containers, numbers, texts, tensors on the CPU and `Record`s.

    Args:
        path: a file that torch.save or pickle.dump has written.

    Raises:
        UsageError: there is no such file, or it holds what no model file needs.
        SetupError: it is damaged or truncated.
    """
    check_path(path, FILE, MAX_FILE_BYTES)
    try:
        with open(path, "rb") as file:
            size = file.seek(0, io.SEEK_END)
            if not size:
                raise Damaged("it has 0 bytes")
            file.seek(0)
            if file.read(2) == b"PK":
                return _read_zip(file, size)
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                if content[257:262] == b"ustar":
                    raise Forbidden("a tar archive, as torch wrote them before 2017")
                return _read_pickles(content, size)  # type: ignore[arg-type]
    except OSError as error:
        raise UsageError(
            f"{path} can not be read: {error.strerror or error}", "give the path of a model file"
        ) from error
    except Forbidden as error:
        raise UsageError(
            f"{path} is refused: it holds {error}",
            "only tensors, containers and the parts of networks are read; nothing was executed",
        ) from error
    except Damaged as error:
        raise SetupError(
            f"{path} is damaged or truncated: {first_line(error)}",
            "download or copy the file again",
        ) from error


def _read_pickles(stream: IO[bytes], size: int, inside: int = 0) -> Any:
    """A plain pickle, or a torch stream if it begins with torch's number."""
    constructors = dict(CONSTRUCTORS)
    if inside < MAX_STREAMS_INSIDE:

        def load_from_bytes(data: Any) -> Any:
            if not isinstance(data, bytes | bytearray):
                raise Forbidden("a storage that is no bytes")
            return _read_pickles(io.BytesIO(data), len(data), inside + 1)

        constructors["torch.storage._load_from_bytes"] = load_from_bytes
    first = Unpickler(stream, constructors, is_record, size).load()
    if type(first) is int and first == MAGIC:
        return _read_stream(stream, size, constructors)
    return first


def _read_stream(stream: IO[bytes], size: int, constructors: Mapping[str, Constructor]) -> Any:
    """torch's format before 1.6, after its first number.

    The protocol's number, facts of the machine, the object, the keys of its storages; then the
    storages, each after a count of 8 bytes.
    """

    def next_pickle(persistent: Any = None) -> Any:
        return Unpickler(stream, constructors, is_record, size, persistent).load()

    next_pickle()
    facts = next_pickle()
    if not isinstance(facts, dict) or facts.get("little_endian") is not True:
        raise Forbidden("numbers in another byte order than little-endian")
    storages: dict[str, Storage] = {}
    left = size

    def persistent(key: Any) -> Storage:
        nonlocal left
        dtype, name, count = _storage_key(key)
        if name not in storages:
            left -= count * dtype.itemsize
            if left < 0:
                raise Damaged("its storages are larger than the file")
            storages[name] = Storage(torch.UntypedStorage(count * dtype.itemsize), dtype)
        return _checked(storages[name], dtype, count)

    result, names = next_pickle(persistent), next_pickle()
    if not isinstance(names, list) or sorted(map(str, names)) != sorted(storages):
        raise Damaged("the list of its storages is another one")
    for name in names:
        storage = storages[str(name)]
        [count] = struct.unpack("<q", _exactly(stream, 8))
        if count != storage.numel:
            raise Damaged(f"a storage of {count} numbers, expected {storage.numel}")
        _fill(storage.data, _exactly(stream, storage.data.nbytes()))
    return result


def _read_zip(content: IO[bytes], size: int) -> Any:
    """torch's format since 1.6: `NAME/data.pkl` and `NAME/data/KEY`, one member a storage."""
    try:
        with zipfile.ZipFile(content) as archive:
            members = {each.filename: each for each in archive.infolist()}
            _check_members(members, size)
            pickles = [name for name in members if name.endswith("data.pkl")]
            if len(pickles) != 1:
                raise Forbidden(f"a zip archive with {len(pickles)} data.pkl, where torch has one")
            return _read_members(archive, members, pickles[0].removesuffix("data.pkl"))
    except (*_BAD_ZIP, *_BAD_ZIP_FIELDS) as error:
        raise Damaged(f"the archive can not be read ({first_line(error)})") from error


def _check_members(members: Mapping[str, zipfile.ZipInfo], size: int) -> None:
    if len(members) > MAX_MEMBERS:
        raise Forbidden(f"an archive of {len(members)} members")
    for each in members.values():
        if each.compress_type != zipfile.ZIP_STORED or each.flag_bits & 1:
            raise Forbidden("an archive that is compressed or encrypted, which torch's are not")
    if sum(each.file_size for each in members.values()) > size:
        raise Damaged("its members are larger than the file")


def _read_members(
    archive: zipfile.ZipFile, members: Mapping[str, zipfile.ZipInfo], prefix: str
) -> Any:
    order = f"{prefix}byteorder"
    if order in members and archive.read(order) != b"little":
        raise Forbidden("numbers in another byte order than little-endian")
    storages: dict[str, Storage] = {}

    def persistent(key: Any) -> Storage:
        dtype, name, count = _storage_key(key)
        if name not in storages:
            member = members.get(f"{prefix}data/{name}")
            if member is None or member.file_size != count * dtype.itemsize:
                raise Damaged(f"the storage {name[:40]!a} is missing or has another size")
            storages[name] = Storage(torch.UntypedStorage(member.file_size), dtype)
            _fill(storages[name].data, archive.read(member))
        return _checked(storages[name], dtype, count)

    pickle = archive.read(f"{prefix}data.pkl")
    stream = io.BytesIO(pickle)
    return Unpickler(stream, CONSTRUCTORS, is_record, len(pickle), persistent).load()


def _storage_key(key: Any) -> tuple[torch.dtype, str, int]:
    """`("storage", class, key, device, count)`, in streams with a sixth entry for views."""
    if not isinstance(key, tuple) or len(key) not in (5, 6) or key[0] != "storage":
        raise Forbidden("a persistent id that is no storage")
    _, kind, name, _, count, *view = key
    dtype = storage_dtype(kind)
    if not isinstance(name, str) or type(count) is not int or not 0 <= count < 2**48:
        raise Forbidden("a storage without a key or a size")
    if any(each is not None for each in view):
        raise Forbidden("a storage that is a view of another one")
    return dtype, name, count


def _checked(storage: Storage, dtype: torch.dtype, count: int) -> Storage:
    if storage.dtype != dtype or storage.numel != count:
        raise Damaged("one storage in two number formats or sizes")
    return storage


def _exactly(stream: IO[bytes], count: int) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise Damaged("it ends early")
    return data


def _fill(storage: torch.UntypedStorage, data: bytes) -> None:
    if data:
        target = torch.empty(0, dtype=torch.uint8).set_(storage)  # type: ignore[call-overload]
        target.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
