"""What is known of a model before its weights are read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from pulse_sr.errors import SetupError
from pulse_sr.files.digest import file_sha256

Kind = Literal["prior", "sr"]


@dataclass(frozen=True)
class Model:
    """A file that holds a network, described by its header.

    Attributes:
        kind: "prior" (a generator to search) or "sr" (from low to high resolution in one pass).
        architecture: "stylegan2", "fastgan", ...
        name: short name, part of every report.
        path: the file.
        device: where `build` puts the network.
        card: licence, data and training, as the file has them.
        read: `(path, device)` to the network.
        resolution: side of a prior's images in pixels.
        scale: how many times larger an "sr" network makes a picture.
        precisions: the number formats that it can run in.
        expected_sha256: checksum of the file that the package was built with; empty: any.
    """

    kind: Kind
    architecture: str
    name: str
    path: Path
    device: torch.device
    card: dict[str, Any]
    read: Callable[[Path, torch.device], Any] = field(repr=False)
    resolution: int | None = None
    scale: int | None = None
    precisions: tuple[str, ...] = ("fp32", "bf16")
    expected_sha256: str = ""

    @property
    def licence(self) -> str:
        """What the card says of it, or "unknown"."""
        return str(self.card.get("licence") or "unknown")

    @property
    def size(self) -> int:
        """Of the file, in bytes."""
        return self.path.stat().st_size

    @cached_property
    def sha256(self) -> str:
        """Checksum of the file, read when it is first asked for."""
        return file_sha256(self.path)

    def facts(self) -> dict[str, Any]:
        """The card with name, architecture, resolution or scale, checksum and licence."""
        facts = {
            "name": self.name,
            "architecture": self.architecture,
            "resolution": self.resolution,
            "scale": self.scale,
            "sha256": self.sha256,
            "licence": self.licence,
        }
        return self.card | {key: value for key, value in facts.items() if value is not None}

    def build(self) -> Any:
        """The network: a `Prior`, or a module of an "sr" architecture.

        Raises:
            SetupError: the file is damaged, or not the one that the package was built with.
        """
        if self.expected_sha256:
            check_sha256(self.path, self.expected_sha256)
        return self.read(self.path, self.device)


def check_sha256(path: Path, expected: str) -> None:
    """Refuses a file of the package that is another one than it was built with.

    Raises:
        SetupError: it is.
    """
    found = file_sha256(path)
    if found != expected:
        raise SetupError(
            f"{path} has checksum {found[:12]}..., expected {expected[:12]}...",
            "the file was changed or damaged: reinstall pulse-sr",
        )
