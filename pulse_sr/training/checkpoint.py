"""Checkpoints: the whole training state as tensors plus a JSON header, no pickles, written atomically."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
import torch.nn as nn

from pulse_sr.atomic import write_atomic
from pulse_sr.errors import SetupError

HEADER_KEY = "pulse-sr-training"


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state of an optimizer with one parameter group as named tensors."""
    return {
        f"{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore `optimizer_tensors`."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        if name != "step":  # the fused kernels walk raw memory: moments lie as their parameter does
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        state.setdefault(int(index), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_checkpoint(
    path: Path,
    modules: dict[str, nn.Module],
    optimizers: dict[str, torch.optim.Optimizer],
    header: dict[str, Any],
) -> None:
    """Write modules, optimizers and the header of a training run."""
    parts = {name: module.state_dict() for name, module in modules.items()}
    parts |= {name: optimizer_tensors(optimizer) for name, optimizer in optimizers.items()}
    tensors = {
        f"{part}/{key}": value.detach().cpu().contiguous()
        for part, entries in parts.items()
        for key, value in entries.items()
    }
    metadata = {HEADER_KEY: json.dumps(header, sort_keys=True)}
    write_atomic(path, safetensors.torch.save(tensors, metadata))


def load_checkpoint(
    path: Path, modules: dict[str, nn.Module], optimizers: dict[str, torch.optim.Optimizer]
) -> dict[str, Any]:
    """Restore a checkpoint in place and return its header.

    Raises:
        SetupError: when the file is damaged or belongs to other networks.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = json.loads(file.metadata()[HEADER_KEY])
        tensors = safetensors.torch.load_file(path)
        for name, module in modules.items():
            module.load_state_dict(_part(tensors, name))
        for name, optimizer in optimizers.items():
            load_optimizer(optimizer, _part(tensors, name))
    except (RuntimeError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        raise SetupError(
            f"{path} does not fit this run ({str(error).splitlines()[0]})",
            "use the options the run was started with, or another -o folder",
        ) from error
    return header


def _part(tensors: dict[str, torch.Tensor], name: str) -> dict[str, torch.Tensor]:
    prefix = f"{name}/"
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
