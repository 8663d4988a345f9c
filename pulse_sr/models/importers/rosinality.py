"""Checkpoints of rosinality's stylegan2-pytorch: `g_ema`, and often `latent_avg`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from pulse_sr.models.importers.layout import (
    Imported,
    check_filters,
    he_gain,
    stylegan2_of,
    tensor_dict,
)


def import_rosinality(content: Any, path: Path) -> Imported | None:
    """The averaged generator.

    Raises:
        UsageError: it is not of three channels.
        SetupError: tensors are missing.
    """
    tensors = tensor_dict(content, "g_ema", "params_ema")
    if tensors is None or "conv1.conv.weight" not in tensors or "input.input" not in tensors:
        return None
    check_filters(tensors, path)
    weights = {name: value for key, each in tensors.items() for name, value in _renamed(key, each)}
    average, notes = content.get("latent_avg"), []
    if isinstance(average, Tensor):
        weights["mapping.w_avg"] = average.flatten()
    else:
        notes.append("the mean style was estimated: the file has none")
    source = "checkpoint of rosinality's stylegan2-pytorch"
    return Imported("stylegan2", stylegan2_of(weights, path), source, notes)


def _renamed(key: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    """The official name and layout of a tensor; filters have none."""
    if match := re.fullmatch(r"style\.(\d+)\.(weight|bias)", key):
        yield f"mapping.fc{int(match[1]) - 1}.{match[2]}", value
    elif key == "input.input":
        yield "synthesis.b4.const", value[0]
    elif match := re.fullmatch(r"noises\.noise_(\d{1,2})", key):
        yield f"{_layer(int(match[1]))}.noise_const", value[0, 0]
    elif match := re.fullmatch(r"(conv1|convs\.(\d{1,2}))\.(.+)", key):
        prefix = _layer(0 if match[2] is None else int(match[2]) + 1)
        yield from _convolution(prefix, match[3], value)
    elif match := re.fullmatch(r"(to_rgb1|to_rgbs\.(\d{1,2}))\.(.+)", key):
        side = 4 if match[2] is None else 8 << int(match[2])
        yield from _rgb(f"synthesis.b{side}.torgb", match[3], value)


def _layer(index: int) -> str:
    """The first convolution works at 4 px, then two at each size."""
    return f"synthesis.b{4 << (index + 1) // 2}.conv{0 if index % 2 else 1}"


def _convolution(prefix: str, name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name == "conv.weight":
        # Its run-time factor goes into the weight: demodulation has a small constant beside it.
        yield f"{prefix}.weight", value[0] * he_gain(value[0])
    elif name.startswith("conv.modulation."):
        yield f"{prefix}.affine.{name.removeprefix('conv.modulation.')}", value
    elif name == "noise.weight":
        yield f"{prefix}.noise_strength", value.squeeze()
    elif name == "activate.bias":
        yield f"{prefix}.bias", value


def _rgb(prefix: str, name: str, value: Tensor) -> Iterator[tuple[str, Tensor]]:
    if name == "conv.weight":
        yield f"{prefix}.weight", value[0]
    elif name.startswith("conv.modulation."):
        yield f"{prefix}.affine.{name.removeprefix('conv.modulation.')}", value
    elif name == "bias":
        yield f"{prefix}.bias", value.flatten()
