"""Files of tensors: safetensors, with everything that is not a tensor as JSON in the header."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pulse_sr.errors import SetupError, cut, first_line, kind_and_line
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import Count, check_shape, json_text, parse_json

N = TypeVar("N", bound=nn.Module)

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


def check_finite(tensors: Mapping[str, Tensor], file: Path, prefix: str = "") -> None:
    """Refuses weights that are not numbers; their names in the file begin with `prefix`.

    Raises:
        SetupError: a tensor has nan or infinite values; the message names it.
    """
    for name, values in tensors.items():
        if values.is_floating_point() and not values.isfinite().all():
            bad = values.numel() - int(values.isfinite().sum())
            raise SetupError(
                f"{file}: {bad} of the {values.numel()} values of tensor {cut(prefix + name)} are "
                "nan or infinite",
                "the file is damaged: restore it, get it again, or train it again",
            )


def load_network(file: Path, build: Callable[[], N], prefix: str = "") -> N:
    """A network with the weights of a file, float32 on the CPU; too large a one is never built.

    Args:
        file: with the tensors of `network.state_dict()`, whose names begin with `prefix`.
        build: makes the network that the file's header describes.
        prefix: see `read_tensors`.

    Raises:
        UNREADABLE: the file is damaged, or holds other tensors than the network has.
        SetupError: a weight is nan or infinite.
    """
    with torch.device("meta"):  # shapes alone: a header may ask for more than there is
        expected = build()
    check_shapes(expected.state_dict(), read_shapes(file, prefix))
    weights = {
        name: value.float() if value.is_floating_point() else value
        for name, value in read_tensors(file, prefix).items()
    }
    check_finite(weights, file, prefix)
    network = build()
    network.load_state_dict(weights)
    return network


@contextlib.contextmanager
def explain_damage(file: Path) -> Iterator[None]:
    """Names the file in whatever a damaged one leads to.

    Raises:
        SetupError: anything of `UNREADABLE`, or what torch raises for tensors that do not fit.
    """
    try:
        yield
    except (*UNREADABLE, RuntimeError, AttributeError) as error:
        reason = kind_and_line(error)
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
