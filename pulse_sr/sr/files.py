"""Files of supervised networks: safetensors with everything that is not a tensor in the header.

A network is one file, or a folder that holds it as `model.safetensors`: a training run is one too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypedDict

import torch
import torch.nn as nn

from pulse_sr.errors import SetupError, UsageError, kind_and_line
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.documents import Place, check_description
from pulse_sr.files.tensors import (
    UNREADABLE,
    CardShape,
    explain_damage,
    load_network,
    read_tensors_header,
    require_shape,
    write_tensors,
)
from pulse_sr.sr.architectures import NETWORKS, build_network

FILE_NAME = "model.safetensors"
HEADER_KEY = "pulse-sr"
SCHEMA = 1
KIND = "sr"


@dataclass
class SrModel:
    """A supervised network, ready for use.

    Attributes:
        name: for people.
        architecture: out of `sr.architectures.NETWORKS`.
        network: `[N, 3, h, w]` in [0, 1] to `[N, 3, s h, s w]`, not clamped.
        card: data, licence, training.
        sha256: of the file; empty for a network that was never in one.
        file: where it was read from.
    """

    name: str
    architecture: str
    network: nn.Module
    card: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""
    file: Path | None = None

    @property
    def config(self) -> dict[str, Any]:
        """The arguments of the network's class."""
        found: dict[str, Any] = self.network.config  # type: ignore[assignment]
        return found

    @property
    def scale(self) -> int:
        """s."""
        return int(self.config["scale"])

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def describe(self) -> dict[str, Any]:
        """What `--json` and records say of it."""
        facts = {"name": self.name, "architecture": self.architecture, "scale": self.scale}
        return self.card | facts | {"sha256": self.sha256}


class ConfigShape(TypedDict):
    """The arguments of a network's class."""

    scale: Place


class HeaderShape(TypedDict):
    """What is read of the header of a network."""

    name: str
    config: ConfigShape
    card: CardShape


def save_model(path: Path, model: SrModel, dtype: torch.dtype = torch.float32) -> None:
    """Write a network atomically.

    Args:
        path: the file to write.
        model: its card goes into the header as it is.
        dtype: float32 or float16, what the weights are stored as.

    Raises:
        SetupError: the file can not be written.
    """
    tensors = {
        name: value.to(dtype) if value.is_floating_point() else value
        for name, value in model.network.state_dict().items()
    }
    header = {
        "schema": SCHEMA,
        "kind": KIND,
        "name": model.name,
        "scale": model.scale,
        "architecture": model.architecture,
        "config": model.config,
        "card": model.card,
    }
    write_tensors(path, tensors, HEADER_KEY, header)


def model_path(path: Path) -> Path:
    """The file of a network given as a file or as a folder.

    Raises:
        UsageError: when there is none.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        raise UsageError(f"no network at {path}", f"a folder needs a {FILE_NAME}")
    return file


def read_model_header(path: Path) -> dict[str, Any]:
    """The JSON header of a network's file.

    Raises:
        SetupError: when the file is damaged or holds no supervised network.
    """
    try:
        header = read_tensors_header(path, HEADER_KEY)
    except UNREADABLE as error:
        raise SetupError(
            f"{path} is not a readable network ({kind_and_line(error)})",
            "train one with `pulse-sr train-sr`, or name a bundled one",
        ) from error
    described = (header.get("schema"), header.get("kind"), header.get("architecture"))
    if described not in [(SCHEMA, KIND, name) for name in NETWORKS]:
        raise SetupError(
            f"{path} has schema, kind and architecture {described}, "
            f"expected {SCHEMA}, {KIND!r} and one of {', '.join(NETWORKS)}",
            "give the file of a supervised network",
        )
    require_shape(path, header, HeaderShape)
    with explain_damage(path):
        check_description(header["config"])
    return header


def read_model(path: Path, device: torch.device | str = "cpu") -> SrModel:
    """Read a network from a file or a folder; weights are float32 in memory, in eval mode.

    Raises:
        UsageError: when there is no such file.
        SetupError: when the file is damaged or holds no supervised network.
    """
    file = model_path(path)
    header = read_model_header(file)
    architecture = header["architecture"]
    with explain_damage(file):
        network = load_network(file, lambda: build_network(architecture, header["config"]))
    network.to(device).to(memory_format=torch.channels_last).eval().requires_grad_(False)
    digest = file_sha256(file)
    return SrModel(header["name"], architecture, network, header["card"], digest, file)
