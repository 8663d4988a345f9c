"""The supervised networks that come with the package, with their checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.options import suggest
from pulse_sr.sr.files import SrModel, read_model, read_model_header

FOLDER = Path(__file__).parents[1] / "sr" / "bundled"
REGISTRY = "registry.json"


def bundled_networks() -> dict[str, dict[str, str]]:
    """Name -> file and sha256 of the bundled networks; the first is the default.

    Raises:
        SetupError: when the registry is missing or damaged.
    """
    try:
        registry: dict[str, dict[str, str]] = json.loads((FOLDER / REGISTRY).read_text())
    except (OSError, ValueError) as error:
        raise SetupError(
            f"the list of bundled networks can not be read ({error})", "reinstall pulse-sr"
        ) from error
    return registry


def list_networks() -> list[dict[str, Any]]:
    """The cards of the bundled networks, the default first."""
    found = []
    for name, entry in bundled_networks().items():
        header = read_model_header(FOLDER / entry["file"])
        facts = {"architecture": header["architecture"], "scale": header["scale"]}
        found.append(header["card"] | {"name": name} | facts | {"sha256": entry["sha256"]})
    return found


def load_network_of_scale(scale: int, device: torch.device) -> SrModel | None:
    """The first bundled network that enlarges so many times; None: there is none.

    Raises:
        SetupError: see `load_network`.
    """
    names = [card["name"] for card in list_networks() if card["scale"] == scale]
    return load_network(names[0], device) if names else None


def load_network(name_or_path: str | Path | None, device: torch.device) -> SrModel:
    """Read a network by its bundled name or from a path; None is the default one.

    Raises:
        UsageError: no such network.
        SetupError: the file is damaged, or is not the one that the package was built with.
    """
    known = bundled_networks()
    name = next(iter(known)) if name_or_path is None else str(name_or_path)
    if name not in known:
        if not Path(name).exists():
            raise UsageError(f"no network {name!r}", f"give a path; {suggest(name, known)}")
        return read_model(Path(name), device)
    file = FOLDER / known[name]["file"]
    if not file.is_file():
        raise SetupError(f"the bundled network {file} is missing", "reinstall pulse-sr")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != known[name]["sha256"]:
        raise SetupError(
            f"{file} has checksum {digest[:12]}..., expected {known[name]['sha256'][:12]}...",
            "the file was changed or damaged: reinstall pulse-sr",
        )
    model = read_model(file, device)
    model.name = name
    return model
