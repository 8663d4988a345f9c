"""Checkpoints: the training state as tensors plus a JSON header, no pickles, written atomically."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Required, TypedDict

import torch
import torch.nn as nn

from pulse_sr.errors import SetupError, first_line
from pulse_sr.files.documents import Amount, Count
from pulse_sr.files.tensors import UNREADABLE, read_tensors, read_tensors_header, write_tensors

HEADER_KEY = "pulse-sr-training"
STATE_NAME = "state.safetensors"
GROUP_STEP = "group.step"


class HeaderShape(TypedDict, total=False):
    """What is read of the header of a checkpoint; a task reads more."""

    config: Required[dict[str, Any]]
    images: Required[Count]
    seconds: Required[Amount]
    data: str


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The state of an optimizer with one parameter group as named tensors.

    Of an Adam with a first decay of zero the first moment is the last gradient, which the next step
    overwrites: it is left out, a quarter of the file. AdaBelief counts its steps in the group.
    """
    dropped = {"exp_avg"} if _forgets(optimizer) else set()
    group = optimizer.param_groups[0]
    counted = {GROUP_STEP: torch.tensor(group["step"])} if "step" in group else {}
    return counted | {
        f"{index}.{name}": value
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
        if name not in dropped
    }


def _forgets(optimizer: torch.optim.Optimizer) -> bool:
    """Whether the first moment of an Adam is the last gradient alone."""
    return bool(optimizer.param_groups[0].get("betas", (1.0,))[0] == 0)


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor]) -> None:
    """Restore `optimizer_tensors`."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    groups = optimizer.state_dict()["param_groups"]
    if GROUP_STEP in tensors:
        groups[0]["step"] = int(tensors[GROUP_STEP])
    for key, value in tensors.items():
        if key == GROUP_STEP:
            continue
        index, name = key.split(".", 1)
        if name != "step":  # the fused kernels walk raw memory: moments lie as their parameter does
            value = torch.empty_like(parameters[int(index)]).copy_(value)
        state.setdefault(int(index), {})[name] = value
    if _forgets(optimizer):
        for i, entry in state.items():
            entry["exp_avg"] = torch.zeros_like(parameters[i])
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def save_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
    header: dict[str, Any],
) -> None:
    """Write modules, optimizers and the header of a training run."""
    parts = {name: module.state_dict() for name, module in modules.items()}
    parts |= {name: optimizer_tensors(optimizer) for name, optimizer in optimizers.items()}
    tensors = {
        f"{part}/{key}": value for part, entries in parts.items() for key, value in entries.items()
    }
    write_tensors(path, tensors, HEADER_KEY, header)


def read_checkpoint_header(path: Path) -> dict[str, Any]:
    """The header of a checkpoint.

    Raises:
        SetupError: when the file is damaged.
    """
    try:
        return read_tensors_header(path, HEADER_KEY, HeaderShape)
    except UNREADABLE as error:
        raise unfit(path, error) from error


def parts_of_checkpoint(path: Path) -> set[str]:
    """The names of the modules and optimizers in a checkpoint.

    Raises:
        SetupError: when the file is damaged.
    """
    try:
        return {key.split("/", 1)[0] for key in read_tensors(path)}
    except UNREADABLE as error:
        raise unfit(path, error) from error


def load_checkpoint(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Restore a checkpoint in place.

    Raises:
        SetupError: when the file is damaged or belongs to other networks.
    """
    try:
        for name, module in modules.items():
            module.load_state_dict(read_tensors(path, f"{name}/"))
        for name, optimizer in optimizers.items():
            load_optimizer(optimizer, read_tensors(path, f"{name}/"))
    except (*UNREADABLE, RuntimeError, AttributeError) as error:
        raise unfit(path, error) from error


def unfit(path: Path, error: Exception) -> SetupError:
    """What there is to say of a checkpoint that is damaged or belongs to other networks."""
    return SetupError(
        f"{path} does not fit this run ({first_line(error)})",
        "use the options the run was started with, or another -o folder",
    )
