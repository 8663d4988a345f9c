"""Pickles of NVIDIA's TensorFlow StyleGAN2: three networks, their variables as numpy arrays."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from pulse_sr.files.constructors import Array
from pulse_sr.files.unpickler import Record
from pulse_sr.models.importers.layout import Imported, refuse, stylegan2_of


def import_tensorflow(content: Any, path: Path) -> Imported | None:
    """The averaged generator, the last of the three.

    Raises:
        UsageError: the network is a first StyleGAN, conditional, or another one.
        SetupError: variables are missing.
    """
    record = content[-1] if isinstance(content, tuple) and len(content) == 3 else content
    if not isinstance(record, Record) or not record.class_name.endswith("tflib.network.Network"):
        return None
    variables = dict(_variables(record))
    if "synthesis/4x4/Const/StyleMod/weight" in variables:
        raise refuse(
            path, "a TensorFlow StyleGAN of the first version; PULSE's .pt files can be read"
        )
    if any(
        name.startswith("mapping/LabelEmbed") or name == "mapping/LabelConcat/weight"
        for name in variables
    ):
        raise refuse(path, "a conditional TensorFlow network")
    if "synthesis/4x4/Const/const" not in variables:
        raise refuse(path, "a TensorFlow network that is no StyleGAN2 generator")
    weights = {
        name: value for key, each in variables.items() for name, value in _renamed(key, each)
    }
    generator = stylegan2_of(weights, path, _lr_multiplier(record))
    return Imported("stylegan2", generator, "pickle of NVIDIA's TensorFlow StyleGAN2")


def _variables(record: Record) -> Iterator[tuple[str, Tensor]]:
    """Variables by name, those of the component `mapping` under `mapping/...`."""
    whole, components = _state(record), _state(record).get("components")
    parts = [("", whole)]
    for name in ("mapping", "synthesis"):
        if isinstance(components, dict):
            parts.append((f"{name}/", _state(components.get(name))))
    for prefix, state in parts:
        for pair in state.get("variables") or ():
            if isinstance(pair, tuple | list) and len(pair) == 2:
                name, value = pair
                if isinstance(name, str) and isinstance(value, Array) and value.tensor is not None:
                    yield f"{prefix}{name}", value.tensor


def _state(record: Any) -> dict[str, Any]:
    found = record.state if isinstance(record, Record) else None
    return found if isinstance(found, dict) else {}


def _renamed(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The official PyTorch name and layout of a variable."""
    if key == "dlatent_avg":
        yield "mapping.w_avg", value
    elif match := re.fullmatch(r"mapping/Dense(\d+)/(weight|bias)", key):
        yield f"mapping.fc{match[1]}.{match[2]}", value.t() if match[2] == "weight" else value
    elif key == "synthesis/4x4/Const/const":
        yield "synthesis.b4.const", value[0]
    elif match := re.fullmatch(r"synthesis/noise(\d{1,2})", key):
        yield f"synthesis.{_layer_of_noise(int(match[1]))}.noise_const", value[0, 0]
    elif match := re.fullmatch(r"synthesis/(\d+)x\1/(Conv|Conv0_up|Conv1|ToRGB|Skip)/(\w+)", key):
        layer = {"Conv0_up": "conv0", "ToRGB": "torgb", "Skip": "skip"}.get(match[2], "conv1")
        yield from _layer(f"synthesis.b{match[1]}.{layer}", match[3], value)


def _layer(prefix: str, name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name == "weight":
        if prefix.endswith(".conv0"):  # it is turned in the graph before it is transposed
            value = value.flip(0, 1)
        yield f"{prefix}.weight", value.permute(3, 2, 0, 1)
    elif name in ("bias", "noise_strength"):
        yield f"{prefix}.{name}", value
    elif name == "mod_weight":
        yield f"{prefix}.affine.weight", value.t()
    elif name == "mod_bias":
        yield f"{prefix}.affine.bias", value.float() + 1


def _layer_of_noise(index: int) -> str:
    """noise0 belongs to 4 px, then two to each size."""
    return f"b{4 << (index + 1) // 2}.conv{0 if index % 2 else 1}"


def _lr_multiplier(record: Record) -> float:
    kwargs = record.state.get("static_kwargs")
    given = kwargs.get("mapping_lrmul", 0.01) if isinstance(kwargs, dict) else 0.01
    return float(given) if isinstance(given, float) and math.isfinite(given) else 0.01
