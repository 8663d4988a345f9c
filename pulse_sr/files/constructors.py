"""The functions that checkpoints call when they are unpickled, as functions of ours.

Each takes what the file gives, checks it, and makes a tensor, a plain container or a `Record`. The
names of numpy 1 and 2 and of Python 2 and 3 stand side by side.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulse_sr.files.unpickler import (
    Constructor,
    Damaged,
    Forbidden,
    Global,
    Record,
    describe,
    new_object,
)

MAX_DIMS = 8

#: Classes whose objects become records: parts of networks, and the options of a command.
_RECORDS = re.compile(
    r"argparse\.Namespace|"
    r"(torch\.nn|torch_utils|training|dnnlib|pg_modules|timm)\.[\w.]+|"
    r"torch\.(float|bfloat|int|uint|complex)\d+|torch\.bool|(builtins|__builtin__)\.object|numpy\.ndarray"
)

STORAGES: dict[str, torch.dtype] = {
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.DoubleStorage": torch.float64,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


def is_record(name: str) -> bool:
    """Whether a name is that of a class that checkpoints hold objects of, or of a storage."""
    return name in STORAGES or _RECORDS.fullmatch(name) is not None


@dataclass(frozen=True, eq=False)
class Storage:
    """Numbers that tensors are views of."""

    data: torch.UntypedStorage
    dtype: torch.dtype

    @property
    def numel(self) -> int:
        """How many numbers there are."""
        return self.data.nbytes() // self.dtype.itemsize


def storage_dtype(kind: Any) -> torch.dtype:
    """The number format of a storage class as a file names it.

    Raises:
        Forbidden: it is no storage class.
    """
    if not isinstance(kind, Global) or kind.name not in STORAGES:
        raise Forbidden(f"a storage of the kind {describe(kind)}")
    return STORAGES[kind.name]


def view_of(
    storage: Any, offset: Any, size: Any, stride: Any, *rest: Any
) -> Tensor:  # torch._utils._rebuild_tensor and _rebuild_tensor_v2
    """A tensor of the numbers of a storage.

    Raises:
        Forbidden: it reaches outside of the storage, or repeats numbers without end.
    """
    if not isinstance(storage, Storage):
        raise Forbidden("a tensor without a storage")
    size, stride = _whole_numbers(size), _whole_numbers(stride)
    [offset] = _whole_numbers((offset,))
    if len(size) != len(stride):
        raise Forbidden(f"a tensor of {len(size)} sizes and {len(stride)} strides")
    count = math.prod(size)
    last = offset + sum((s - 1) * step for s, step in zip(size, stride, strict=True))
    if count and (last >= storage.numel or count > storage.numel):
        raise Damaged(f"a tensor of {count} numbers in a storage of {storage.numel}")
    return torch.empty(0, dtype=storage.dtype).set_(storage.data, offset, size, stride)  # type: ignore[call-overload, no-any-return]


def _whole_numbers(values: Any) -> tuple[int, ...]:
    """The sizes of a tensor. Products of many numbers, and the members of a tensor, would take
    more time and memory than the file has bytes."""
    if not isinstance(values, tuple | list) or len(values) > MAX_DIMS:
        raise Forbidden(f"a shape that is no list of up to {MAX_DIMS} sizes")
    if not all(type(each) is int and 0 <= each < 2**62 for each in values):
        raise Forbidden("sizes that are no whole numbers")
    return tuple(values)


def _parameter(data: Any, *rest: Any) -> Tensor:
    if not isinstance(data, Tensor):
        raise Forbidden("a parameter without a tensor")
    return data


def _dictionary(*pairs: Any) -> dict[Any, Any]:
    if not pairs:
        return {}
    # Protocols before 2 give the pairs at once.
    result: dict[Any, Any] = {}
    for pair in _short(*pairs):
        if not isinstance(pair, tuple | list) or len(pair) != 2 or not isinstance(pair[0], str):
            raise Forbidden("an entry that is no pair of a text and a value")
        result[pair[0]] = pair[1]
    return result


def _set(*members: Any) -> set[Any]:
    if not members:
        return set()
    values = _short(*members)
    if not all(isinstance(each, str | int | float | None) for each in values):
        raise Forbidden("a set of objects")
    return set(values)


def _short(values: Any) -> Sequence[Any]:
    """A list that is copied: so short that doing it often costs little."""
    if not isinstance(values, list | tuple) or len(values) > 1000:
        raise Forbidden("a container made of something else than a short list")
    return values


def _persistent_object(meta: Any) -> Record:
    """NVIDIA's persistent classes: name and state; their source text is left where it is."""
    if not isinstance(meta, dict) or meta.get("type") != "class":
        raise Forbidden("a persistent object that is no class")
    name, state = meta.get("class_name"), meta.get("state")
    if not isinstance(name, str) or not isinstance(state, dict):
        raise Forbidden("a persistent object without a name or a state")
    return Record(name, state)


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Forbidden("a text in another encoding than latin1")
    return text.encode("latin1")


def _text(*values: Any) -> str:
    if not all(isinstance(each, str | int) for each in values):
        raise Forbidden("a device that is no text")
    return ":".join(map(str, values))


class NumberFormat:
    """Stands for `numpy.dtype`: real numbers of one size."""

    def __init__(self, name: Any, *rest: Any) -> None:
        if not isinstance(name, str) or not re.fullmatch(r"[<>|=]?(f[248]|[iu][1248]|b1)", name):
            raise Forbidden(f"numbers of the format {describe(name)}")
        self.dtype = np.dtype(name)

    def set_state(self, state: Any) -> None:
        """Takes the byte order; nothing else is there for numbers."""
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Forbidden("a byte order that does not exist")
        self.dtype = self.dtype.newbyteorder(state[1])


class Array:
    """Stands for `numpy.ndarray`; `tensor` holds the numbers once they are there."""

    def __init__(self, *rest: Any) -> None:
        self.tensor: Tensor | None = None

    def set_state(self, state: Any) -> None:
        """Takes `(version, shape, dtype, Fortran order, bytes)`."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise Forbidden("an array without its five parts")
        _, shape, number_format, fortran, data = state
        self.tensor = _numbers(data, number_format, shape, "F" if fortran is True else "C")


def _array_of(data: Any, number_format: Any, shape: Any, order: Any) -> Array:
    array = Array()
    array.tensor = _numbers(data, number_format, shape, order)
    return array


def _scalar(number_format: Any, data: Any) -> float:
    return float(_numbers(data, number_format, (), "C"))


def _numbers(data: Any, number_format: Any, shape: Any, order: Any) -> Tensor:
    if not isinstance(number_format, NumberFormat) or order not in ("C", "F"):
        raise Forbidden("an array without a number format")
    shape = _whole_numbers(shape)
    if isinstance(data, str):  # written by Python 2
        data = data.encode("latin1")
    size = math.prod(shape) * number_format.dtype.itemsize
    if not isinstance(data, bytes | bytearray) or len(data) != size:
        raise Damaged(f"an array of the shape {list(shape)} without its {size} bytes")
    array = np.frombuffer(data, number_format.dtype).reshape(shape, order=order)
    return torch.from_numpy(array.astype(number_format.dtype.newbyteorder("="), order="C"))


def _with_names(modules: str, names: str, function: Callable[..., Any]) -> dict[str, Constructor]:
    return {f"{m}.{n}": function for m in modules.split() for n in names.split()}


CONSTRUCTORS: Mapping[str, Constructor] = {
    **_with_names("collections", "OrderedDict", _dictionary),
    **_with_names("dnnlib dnnlib.util", "EasyDict", _dictionary),
    **_with_names("builtins __builtin__", "set frozenset", _set),
    **_with_names("builtins __builtin__", "bytes", lambda: b""),  # how protocol 2 has none
    **_with_names("copyreg copy_reg", "_reconstructor", new_object),
    **_with_names("_codecs", "encode", _encode),
    **_with_names("torch", "Size", _whole_numbers),
    **_with_names("torch", "device", _text),
    **_with_names("torch._utils", "_rebuild_tensor _rebuild_tensor_v2", view_of),
    **_with_names("torch._utils", "_rebuild_parameter", _parameter),
    **_with_names("torch_utils.persistence", "_reconstruct_persistent_obj", _persistent_object),
    **_with_names("numpy", "dtype", NumberFormat),
    **_with_names("numpy.core.multiarray numpy._core.multiarray", "_reconstruct", Array),
    **_with_names("numpy.core.multiarray numpy._core.multiarray", "scalar", _scalar),
    **_with_names("numpy.core.numeric numpy._core.numeric", "_frombuffer", _array_of),
}
