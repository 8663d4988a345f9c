"""What kind of model a file holds, from its header alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from pulse_sr.errors import SetupError, UsageError, kind_and_line
from pulse_sr.files.tensors import UNREADABLE, read_tensors_header
from pulse_sr.models.descriptor import Kind, Model
from pulse_sr.priors.architectures import ARCHITECTURES
from pulse_sr.priors.files import HEADER_KEY, prior_path, read_header, read_prior
from pulse_sr.sr.architectures import NETWORKS
from pulse_sr.sr.files import model_path, read_model, read_model_header


@dataclass(frozen=True)
class Family:
    """How the files of an architecture are described and read.

    Attributes:
        kind: see `Model`.
        read: `(path, device)` to the network.
    """

    kind: Kind
    read: Callable[[Path, torch.device], Any]


#: The architectures whose files can be read, by the name that their header has.
FAMILIES: dict[str, Family] = {name: Family("prior", read_prior) for name in ARCHITECTURES} | {
    name: Family("sr", read_model) for name in NETWORKS
}


def is_ours(path: Path) -> bool:
    """Whether a file has a header of this program."""
    if is_foreign(path):
        return False
    try:
        with safe_open(path, "pt") as file:
            return HEADER_KEY in (file.metadata() or {})
    except UNREADABLE:
        return True  # reading it says what is wrong


def is_foreign(path: Path) -> bool:
    """Whether a file is no safetensors file: it has to be imported before it can be used."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        # What safetensors begin with: the length of the header as 8 bytes, then the header.
        return file.read(9)[8:] != b"{"


def describe(path: Path, device: torch.device, kind: Kind = "prior") -> Model:
    """What a file, or the folder of a training run, holds; reads no weights.

    Args:
        path: the file or the folder.
        device: where the network will be.
        kind: what the user takes it for: messages about a file that says nothing speak of it.

    Raises:
        UsageError: there is no such file, or it has to be imported first.
        SetupError: the file is damaged, or of no known architecture.
    """
    file = prior_path(path) if kind == "prior" else model_path(path)
    if is_foreign(file):
        raise UsageError(
            f"{path} is no safetensors file: a checkpoint of another program?",
            f"pulse-sr prior import {path}",
        )
    header = _header(file, kind)
    family = FAMILIES[header["architecture"]]
    # What the network's configuration has to say of sizes: that of a generator its resolution, that
    # of any other how many times it enlarges.
    size = "resolution" if family.kind == "prior" else "scale"
    try:
        return Model(
            kind=family.kind,
            architecture=header["architecture"],
            name=header["name"],
            path=file,
            device=device,
            card=header["card"],
            read=family.read,
            **{size: int(header["config"][size])},  # type: ignore[arg-type]
        )
    except (LookupError, TypeError, ValueError) as error:
        raise SetupError(
            f"the header of {file} is incomplete ({kind_and_line(error)})",
            "the file is damaged: restore it, or train it again",
        ) from error


def _header(file: Path, kind: Kind) -> dict[str, Any]:
    """The header of a prior, or of a supervised network."""
    try:
        found = read_tensors_header(file, HEADER_KEY)
    except UNREADABLE:
        found = {"kind": kind}  # reading it as one says what is wrong
    return read_model_header(file) if found.get("kind") == "sr" else read_header(file)
