"""Files of tensors: safetensors, with everything that is not a tensor as JSON in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict

import safetensors
import safetensors.torch
from torch import Tensor

from pulse_sr.errors import SetupError, first_line
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import Count, check_shape, json_text, parse_json

#: What the two functions that read raise when a file is missing, damaged or of another kind.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, safetensors.SafetensorError)


class ImportedShape(TypedDict, total=False):
    """What a prior was imported from."""

    sha256: str
    notes: list[str]


class TrainingShape(TypedDict, total=False):
    """How a network was trained."""

    images: Count


class CardShape(TypedDict, total=False):
    """What is read of a card; all of it is shown."""

    licence: str | None
    alignment: dict[str, Any] | None
    imported: ImportedShape
    training: TrainingShape
    trained_with: list[str]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], key: str, header: object) -> None:
    """Write tensors and a header atomically.

    Args:
        path: the file.
        tensors: of any shapes and number formats, on any device.
        key: the entry of the file's metadata that holds the header and names the kind of file.
        header: anything that JSON can hold; numbers that are not finite become null.

    Raises:
        SetupError: the file can not be written.
    """
    stored = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    metadata = {key: json_text(header, sort_keys=True)}
    write_atomic(path, safetensors.torch.save(stored, metadata))


def read_tensors_header(path: Path, key: str, shape: Any = dict) -> dict[str, Any]:
    """The header of a file, without its tensors.

    Args:
        path: the file.
        key: see `write_tensors`.
        shape: of the header, see `documents.parse_json`.

    Raises:
        UNREADABLE: there is no such file, it is damaged, or it has no such header.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        header: dict[str, Any] = parse_json((file.metadata() or {})[key], shape)
    return header


def require_shape(path: Path, header: dict[str, Any], shape: Any) -> None:
    """Refuse a file whose header lacks what is read of it, or has it otherwise.

    Raises:
        SetupError: it does.
    """
    try:
        check_shape(header, shape)
    except ValueError as error:
        raise SetupError(
            f"the header of {path} is damaged ({first_line(error)})",
            "restore the file, or train it again",
        ) from error


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, on the CPU, by the rest of their names.

    Raises:
        UNREADABLE: there is no such file, or it is damaged.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  no mapping
        return {name[len(prefix) :]: file.get_tensor(name) for name in names}
