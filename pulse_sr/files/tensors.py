"""Files of tensors: safetensors, with everything that is not a tensor as JSON in the header."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from pulse_sr.errors import SetupError, cut, first_line
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
        text = file.metadata()[key]
    try:
        header: dict[str, Any] = json.loads(text)
    except RecursionError as error:
        raise ValueError("its header is nested too deeply") from error
    return header


def read_shapes(path: Path, prefix: str = "") -> dict[str, tuple[int, ...]]:
    """The shapes of the tensors whose names begin with a prefix, by the rest of their names.

    No tensor is read, so that a description can be compared with a file before a network is built.

    Raises:
        UNREADABLE: there is no such file, or it is damaged.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  no mapping
        return {name[len(prefix) :]: tuple(file.get_slice(name).get_shape()) for name in names}


def check_shapes(expected: Mapping[str, Tensor], found: Mapping[str, tuple[int, ...]]) -> None:
    """Compares the tensors that a network has with those of a file.

    Raises:
        ValueError: one is missing, too many, or has another shape; the message names the first.
    """
    for name in sorted(expected.keys() | found.keys()):
        shapes = [
            "none" if shape is None else str(list(shape))
            for shape in (getattr(expected.get(name), "shape", None), found.get(name))
        ]
        if shapes[0] != shapes[1]:
            raise ValueError(f"{cut(name)}: shape {shapes[0]} expected, {shapes[1]} found")


def check_finite(tensors: Mapping[str, Tensor], file: Path) -> None:
    """Refuses weights that are not numbers.

    Raises:
        SetupError: a tensor has nan or infinite values; the message names it.
    """
    for name, values in tensors.items():
        if values.is_floating_point() and not values.isfinite().all():
            bad = values.numel() - int(values.isfinite().sum())
            raise SetupError(
                f"{file}: {bad} of the {values.numel()} values of tensor {cut(name)} are nan or "
                "infinite",
                "the file is damaged: restore it, get it again, or train it again",
            )


@contextlib.contextmanager
def explain_damage(file: Path) -> Iterator[None]:
    """Names the file in whatever a damaged one leads to.

    Raises:
        SetupError: anything of `UNREADABLE`, or what torch raises for tensors that do not fit.
    """
    try:
        yield
    except (*UNREADABLE, RuntimeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {cut(first_line(error))}"
        raise SetupError(
            f"{file} does not hold the tensors that its header names ({reason})",
            "the file is damaged: restore or retrain it",
        ) from error


def read_tensors(path: Path, prefix: str = "") -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, on the CPU, by the rest of their names.

    Raises:
        UNREADABLE: there is no such file, or it is damaged.
    """
    with safetensors.safe_open(path, framework="pt") as file:
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118  no mapping
        return {name[len(prefix) :]: file.get_tensor(name) for name in names}
