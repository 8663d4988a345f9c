"""Files of tensors: safetensors, with everything that is not a tensor as JSON in the header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_text

#: What the two functions that read raise when a file is missing, damaged or of another kind.
UNREADABLE = (OSError, ValueError, LookupError, TypeError, safetensors.SafetensorError)


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


def read_tensors_header(path: Path, key: str) -> dict[str, Any]:
    """The header of a file, without its tensors.

    Raises:
        UNREADABLE: there is no such file, it is damaged, or it has no such header.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        header: dict[str, Any] = json.loads(file.metadata()[key])
    return header


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, on the CPU, by the rest of their names.

    Raises:
        UNREADABLE: there is no such file, or it is damaged.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  no mapping
        return {name[len(prefix) :]: file.get_tensor(name) for name in names}
