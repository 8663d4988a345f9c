"""What a name means: the models that come with the package, those that were imported, and files.

An imported prior is a folder in the user's cache, `priors/NAME`, like the folder of a training run.
"""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import torch

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.models.descriptor import Model
from pulse_sr.models.detect import describe
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import FILE_NAME
from stylegan_ops.build import user_cache

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[1] / "priors" / "bundled"
REGISTRY = "registry.json"

_CPU = torch.device("cpu")


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


def installed() -> dict[str, Path]:
    """Name -> folder of the priors that were imported or downloaded, by name."""
    folder = installed_folder()
    if folder is None or not folder.is_dir():
        return {}
    return {each.parent.name: each.parent for each in sorted(folder.glob(f"[!.]*/{FILE_NAME}"))}


def installed_folder() -> Path | None:
    """Where imported priors are kept; None for a user without a home."""
    cache = user_cache()
    return None if cache is None else cache / "priors"


def load(name_or_path: str | Path | None = None, device: torch.device = _CPU) -> Model:
    """Find out what a name or a path is; its weights are read by `Model.build`.

    Args:
        name_or_path: a bundled or imported prior, a file, or the folder of a training run; None:
            the default prior.
        device: where the network will be.

    Raises:
        UsageError: no such model.
        SetupError: the file is damaged, or of no known architecture.
    """
    known = bundled()
    name = next(iter(known)) if name_or_path is None else str(name_or_path)
    if name in known:
        return _bundled_model(name, known[name], device)
    path = Path(name)
    if not path.exists():
        imported = installed()
        if name not in imported:
            names = ", ".join([*known, *imported])
            raise UsageError(f"no prior {name!r}", f"give a path, or one of: {names}")
        path = imported[name]
    return describe(path, device)


def load_prior(name_or_path: str | Path | None = None, device: torch.device = _CPU) -> Prior:
    """The prior that a name or a path stands for, with its weights.

    Raises:
        UsageError: no such model, or it is not a prior.
        SetupError: the file is damaged, or is not the one that the package was built with.
    """
    model = load(name_or_path, device)
    if model.kind != "prior":
        raise UsageError(
            f"{model.path} holds a network of kind {model.kind} ({model.architecture}), no prior",
            "pulse-sr prior list shows the priors",
        )
    prior: Prior = model.build()
    return prior


def list_priors() -> list[Model]:
    """The bundled priors, the default first, and the imported ones."""
    own = [_bundled_model(name, entry, _CPU) for name, entry in bundled().items()]
    return own + installed_models()


def installed_models() -> list[Model]:
    """The imported priors; one that is damaged is left out, with a warning."""
    found = []
    for folder in installed().values():
        try:
            found.append(describe(folder, _CPU))
        except SetupError as error:
            log.warning("left out: %s", error.message)
    return found


def _bundled_model(name: str, entry: dict[str, str], device: torch.device) -> Model:
    file = FOLDER / entry["file"]
    if not file.is_file():
        raise SetupError(f"the bundled prior {file} is missing", "reinstall pulse-sr")
    return replace(describe(file, device), name=name, expected_sha256=entry["sha256"])
