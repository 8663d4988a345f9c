"""The priors that come with the package, with their checksums."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import prior_path, read_header, read_prior

FOLDER = Path(__file__).parents[1] / "priors" / "bundled"
REGISTRY = "registry.json"


def bundled() -> dict[str, dict[str, str]]:
    """Name -> file and sha256 of the bundled priors; the first is the default.

    Raises:
        SetupError: when the registry is missing or damaged.
    """
    try:
        registry: dict[str, dict[str, str]] = json.loads((FOLDER / REGISTRY).read_text())
    except (OSError, ValueError) as error:
        raise SetupError(
            f"the list of bundled priors can not be read ({error})", "reinstall pulse-sr"
        ) from error
    return registry


def list_priors() -> list[dict[str, Any]]:
    """The cards of the bundled priors, the default first."""
    return [
        _card(FOLDER / entry["file"], name, entry["sha256"]) for name, entry in bundled().items()
    ]


def read_card(name_or_path: str | Path | None) -> dict[str, Any]:
    """The card of a bundled prior (None: the default one) or of a file; reads no weights.

    Raises:
        UsageError: no such prior.
        SetupError: the file is damaged.
    """
    priors = bundled()
    name = next(iter(priors)) if name_or_path is None else str(name_or_path)
    if name in priors:
        return _card(FOLDER / priors[name]["file"], name, priors[name]["sha256"])
    if not Path(name).exists():
        raise UsageError(f"no prior {name!r}", f"give a path, or one of: {', '.join(priors)}")
    card: dict[str, Any] = read_header(prior_path(Path(name)))["card"]
    return card


def _card(file: Path, name: str, sha256: str) -> dict[str, Any]:
    header = read_header(file)
    facts = {
        "name": name,
        "architecture": header["architecture"],
        "resolution": header["config"]["resolution"],
        "sha256": sha256,
    }
    return header["card"] | facts


def load(name_or_path: str | Path | None, device: torch.device) -> Prior:
    """Read a prior by its bundled name or from a path; None is the default one.

    Raises:
        UsageError: no such prior.
        SetupError: the file is damaged, or is not the one that the package was built with.
    """
    priors = bundled()
    name = next(iter(priors)) if name_or_path is None else str(name_or_path)
    if name not in priors:
        if not Path(name).exists():
            known = ", ".join(priors)
            raise UsageError(f"no prior {name!r}", f"give a path, or one of: {known}")
        return read_prior(Path(name), device)
    file = FOLDER / priors[name]["file"]
    if not file.is_file():
        raise SetupError(f"the bundled prior {file} is missing", "reinstall pulse-sr")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if digest != priors[name]["sha256"]:
        raise SetupError(
            f"{file} has checksum {digest[:12]}..., expected {priors[name]['sha256'][:12]}...",
            "the file was changed or damaged: reinstall pulse-sr",
        )
    return read_prior(file, device)
