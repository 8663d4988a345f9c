"""What the importers share: what they return, and how tensors of a file become a network.

An importer is a function `(content, path)` that returns `Imported`, or None for a file that is not
of its family. It refuses a network of its family that can not be searched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.errors import SetupError, UsageError, first_line
from pulse_sr.files.tensors import check_finite, check_shapes
from pulse_sr.files.unpickler import Record
from pulse_sr.priors import stylegan2
from pulse_sr.priors.stylegan2 import RESAMPLE_TAPS, StyleGAN2Config

N = TypeVar("N", bound=nn.Module)

#: Largest resolution, number of names of a file's modules and tensors, and length of one.
MAX_RESOLUTION, MAX_NAMES, MAX_NAME = 4096, 100_000, 1000
_MEAN = "mapping.w_avg"
#: Endings of the names of tensors that a file may lack.
_FREE = (_MEAN, "noise_const", "num_batches_tracked")
#: Samples that the mean style is estimated from where a file holds none.
MEAN_SAMPLES = 16384


@dataclass(frozen=True)
class Imported:
    """A generator that was found in a file.

    Attributes:
        architecture: its name in `priors.architectures`.
        generator: with its weights, float32 on the CPU.
        source: what the file is, in words for the card.
        notes: what had to be estimated or left out, in words for the card.
        beside: names of other files, in the folder of the one that was read, that it came from too.
    """

    architecture: str
    generator: nn.Module
    source: str
    notes: list[str] = field(default_factory=list)
    beside: tuple[str, ...] = ()


def refuse(path: Path, what: str) -> UsageError:
    """The error for a network that can not be searched; `what` names it."""
    return UsageError(
        f"{path} holds {what}",
        "unconditional StyleGAN2, StyleGAN (PULSE's) and FastGAN generators can be imported",
    )


def state_of(record: Record, path: Path) -> dict[str, Any]:
    """The attributes of a module that was pickled whole.

    Raises:
        SetupError: the record is none of a module.
    """
    if not isinstance(record.state, dict) or not isinstance(record.state.get("_modules"), dict):
        raise SetupError(f"{path}: a {record.class_name} without its modules", _AGAIN)
    return record.state


def tensors_of(record: Record, path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a module that was pickled whole, as its `state_dict` names them.

    Raises:
        SetupError: a record is none of a module, or modules hold one another without end.
    """
    found: dict[str, Tensor] = {}
    modules, left = [("", record)], MAX_NAMES
    for prefix, module in modules:
        state = state_of(module, path)
        for kind in ("_parameters", "_buffers", "_modules"):
            own = state.get(kind)
            for key, value in own.items() if isinstance(own, dict) else ():
                name, left = f"{prefix}{key}", left - 1
                if left < 0 or len(name) > MAX_NAME:
                    raise SetupError(f"{path}: modules hold one another without end", _AGAIN)
                if isinstance(value, Tensor):
                    found[name] = value
                elif isinstance(value, Record):
                    modules.append((f"{name}.", value))
    return found


def tensor_dict(content: Any, *keys: str) -> dict[str, Tensor] | None:
    """The tensors by name that stand in a checkpoint under one of some keys, or None.

    The prefix `module.` of a network that ran on several devices is taken away.
    """
    for key in keys:
        inner = content.get(key) if isinstance(content, dict) else None
        if isinstance(inner, dict) and inner:
            found = {
                str(name).removeprefix("module."): value
                for name, value in inner.items()
                if isinstance(value, Tensor)
            }
            if found:
                return found
    return None


def stylegan2_of(
    weights: Mapping[str, Tensor], path: Path, lr_multiplier: float = 0.01
) -> stylegan2.Generator:
    """A StyleGAN2 generator from tensors under the names of the official PyTorch release.

    The shape follows from the tensors; see `network_of` for those that may be missing.

    Raises:
        UsageError: it is no unconditional StyleGAN2 of three channels in the skip architecture.
        SetupError: tensors are missing or have other shapes.
        LookupError, ValueError: there are none of some layer, or they have no shape of one.
    """
    config = _stylegan2_config(weights, lr_multiplier)
    sides = config.sides
    if any(re.search(r"\.skip\.weight$", key) for key in weights):
        raise refuse(path, "a StyleGAN2 of the residual architecture, only skip is supported")
    if any(f"synthesis.b{side}.torgb.weight" not in weights for side in sides):
        raise refuse(path, "a StyleGAN2 without RGB layers at every size, only skip is supported")
    channels = len(weights["synthesis.b4.torgb.weight"])
    if channels != 3:
        raise refuse(path, f"a StyleGAN2 of {channels} channels, only RGB is supported")
    check_filters(weights, path)
    return network_of(lambda: stylegan2.Generator(config), weights, path)


def _stylegan2_config(weights: Mapping[str, Tensor], lr_multiplier: float) -> StyleGAN2Config:
    sides = [2**k for k in range(2, MAX_RESOLUTION.bit_length())]
    channels = [
        len(weights[name])
        for name in (f"synthesis.b{side}.conv1.weight" for side in sides)
        if name in weights
    ]
    layers = sum(bool(re.fullmatch(r"mapping\.fc\d+\.weight", key)) for key in weights)
    w_dim, z_dim = weights["mapping.fc0.weight"].shape
    resolution = 2 ** (len(channels) + 1)
    return StyleGAN2Config(resolution, z_dim, w_dim, layers, tuple(channels), lr_multiplier)


def check_filters(weights: Mapping[str, Tensor], path: Path) -> None:
    """Refuses resampling filters other than [1, 3, 3, 1], of whatever gain.

    Raises:
        UsageError: there is one.
    """
    taps = torch.tensor(RESAMPLE_TAPS)
    expected = torch.outer(taps, taps) / taps.sum() ** 2
    for key, value in weights.items():
        if re.search(r"(resample_filter|blur\.kernel|upsample\.kernel)$", key):
            value = value.float()
            near = value.shape == (4, 4) and (value / value.sum() - expected).abs().max() < 1e-4
            if not near:  # nor is one of zeros
                raise refuse(path, f"a StyleGAN2 whose {key} is not [1, 3, 3, 1]")


def network_of(
    build: Callable[[], N], weights: Mapping[str, Tensor], path: Path, unused: tuple[str, ...] = ()
) -> N:
    """A network with the tensors of a file, float32; one that the file can not fill is never built.

    Fixed noise maps that are missing are drawn, a mean style that is missing is estimated.

    Args:
        build: makes the network, of which the file may ask for more than there is memory.
        weights: by the names of its `state_dict`, and others.
        path: the file.
        unused: beginnings of the names of tensors that do not matter.

    Raises:
        SetupError: some are missing, have other shapes, or are not finite.
    """
    with torch.device("meta"):  # shapes alone
        expected = build().state_dict()
    chosen = {
        key: weights[key] if value.ndim else weights[key].squeeze()  # some write [1] for a number
        for key, value in expected.items()
        if key in weights and not key.startswith(unused)
    }
    free = {
        key: value
        for key, value in expected.items()
        if key not in chosen and (key.startswith(unused) or key.endswith(_FREE))
    }
    try:
        check_shapes(expected, {k: tuple(v.shape) for k, v in (free | chosen).items()})
    except ValueError as error:
        raise SetupError(f"{path}: its tensors do not fit ({first_line(error)})", _AGAIN) from error
    stored = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in chosen.values()}
    if sum(map(torch.numel, chosen.values())) > sum(each.nbytes() for each in stored.values()):
        raise SetupError(f"{path}: its tensors share their numbers", _AGAIN)
    chosen = {key: value.float() for key, value in chosen.items()}
    check_finite(chosen, path)
    rng = torch.Generator().manual_seed(0)
    for key, value in free.items():
        if key.endswith("noise_const"):
            chosen[key] = torch.randn(value.shape, generator=rng)
    network = build()
    network.load_state_dict(chosen, strict=False)
    if _MEAN in free:
        _estimate_mean(network)
    return network


@torch.no_grad()
def _estimate_mean(generator: Any) -> None:
    """Makes the mean style that of 16,384 samples."""
    rng = torch.Generator().manual_seed(0)
    total = torch.zeros(generator.config.w_dim, dtype=torch.float64)
    for _ in range(16):
        z = torch.randn(MEAN_SAMPLES // 16, generator.config.z_dim, generator=rng)
        total += generator.mapping(z).double().sum(dim=0)
    generator.mapping.w_avg.copy_(total / MEAN_SAMPLES)


def he_gain(weight: Tensor, gain: float = 1.0) -> float:
    """`gain / sqrt(fan-in)`: the run-time factor of an equalised layer."""
    return gain / math.sqrt(weight[0].numel())


_AGAIN = "the file is damaged or of another program: download it again"
