"""What a name means: the models that come with the package, those that were imported, and files.

An imported prior is a folder in the user's cache, `priors/NAME`, like the folder of a training run.
"""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated, TypedDict, TypeVar

import torch
from msgspec import Meta

from pulse_sr.errors import SetupError, UsageError, first_line
from pulse_sr.files.documents import FileName, Sha256, load_json
from pulse_sr.files.paths import EITHER, check_path, problem_of_name
from pulse_sr.models.descriptor import Kind, Model, check_sha256
from pulse_sr.models.detect import describe, is_foreign, is_ours
from pulse_sr.options import suggest
from pulse_sr.priors.base import Prior
from pulse_sr.priors.files import FILE_NAME
from pulse_sr.sr.files import SrModel
from pulse_sr.sr.foreign import read_foreign
from stylegan_ops.build import user_cache

log = logging.getLogger(__name__)

_PACKAGE = Path(__file__).parents[1]
#: Where the models of the package are, with a registry of their checksums.
FOLDERS: dict[Kind, Path] = {
    "prior": _PACKAGE / "priors" / "bundled",
    "sr": _PACKAGE / "sr" / "bundled",
}
REGISTRY = "registry.json"


class EntryShape(TypedDict):
    """What the registry has of a model."""

    file: FileName
    sha256: Sha256


_WORDS: dict[Kind, str] = {"prior": "prior", "sr": "network"}

_CPU = torch.device("cpu")


def bundled(kind: Kind = "prior") -> dict[str, dict[str, str]]:
    """Name -> file and sha256 of the bundled models of a kind; the first is the default.

    Raises:
        SetupError: when the registry is missing or damaged.
    """
    try:
        registry: dict[str, dict[str, str]] = load_json(
            FOLDERS[kind] / REGISTRY, Annotated[dict[str, EntryShape], Meta(min_length=1)]
        )
    except (OSError, ValueError) as error:
        raise SetupError(
            f"the list of bundled {_WORDS[kind]}s can not be read ({first_line(error)})",
            "reinstall pulse-sr",
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


def load(
    name_or_path: str | Path | None = None, device: torch.device = _CPU, kind: Kind = "prior"
) -> Model:
    """Find out what a name or a path is; its weights are read by `Model.build`.

    Args:
        name_or_path: a bundled or imported model, a file, or the folder of a training run; None:
            the default of the kind.
        device: where the network will be.
        kind: which names are known. What a file holds, it says itself.

    Raises:
        UsageError: no such model.
        SetupError: the file is damaged, or of no known architecture.
    """
    known = bundled(kind)
    name = next(iter(known)) if name_or_path is None else str(name_or_path)
    if name in known:
        return _bundled_model(kind, name, known[name], device)
    path = Path(name)
    if problem_of_name(name) or os.path.lexists(path):
        check_path(name, EITHER, called=f"no {_WORDS[kind]}: ")
    else:
        imported = installed() if kind == "prior" else {}
        if name not in imported:
            words = suggest(name, [*known, *imported])
            raise UsageError(f"no {_WORDS[kind]} {name!r}", f"give a path; {words}")
        path = imported[name]
    return describe(path, device, kind)


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


def load_network(name_or_path: str | Path | None = None, device: torch.device = _CPU) -> SrModel:
    """The supervised network that a name or a path stands for, with its weights.

    A file of another program is read as data (`sr.foreign`).

    Raises:
        UsageError: no such model, or it is a prior.
        SetupError: the file is damaged, or is not the one that the package was built with.
    """
    if name_or_path is not None and os.path.isfile(name_or_path):
        path = Path(name_or_path)
        if not is_ours(path):
            return read_foreign(path, device)
    model = load(name_or_path, device, "sr")
    if model.kind != "sr":
        raise UsageError(
            f"{model.path} holds a prior ({model.architecture}), no network that enlarges",
            "pulse-sr upscale --list shows the networks",
        )
    network: SrModel = model.build()
    network.name = model.name
    return network


M = TypeVar("M", Prior, SrModel)


def on_device(model: M, device: torch.device) -> M:
    """A prior or a network on a device: read from its file again, unless it is there already.

    One that was never in a file stays where it is.

    Raises:
        UsageError, SetupError: see `load_prior`.
    """
    if model.device.type == device.type or model.file is None:
        return model
    load = load_prior if isinstance(model, Prior) else load_network
    moved: M = load(model.file, device)  # type: ignore[assignment]
    moved.name = model.name
    return moved


def load_network_of_scale(scale: int, device: torch.device = _CPU) -> SrModel | None:
    """The first bundled network that enlarges so many times; None: there is none.

    Raises:
        SetupError: see `load_network`.
    """
    names = [model.name for model in list_networks() if model.facts()["scale"] == scale]
    return load_network(names[0], device) if names else None


def list_priors() -> list[Model]:
    """The bundled priors, the default first, and the imported ones."""
    return _bundled_models("prior") + installed_models()


def list_networks() -> list[Model]:
    """The bundled supervised networks, the default first."""
    return _bundled_models("sr")


def installed_models() -> list[Model]:
    """The imported priors; one that is damaged, or no prior, is left out, with a warning."""
    found = []
    for folder in installed().values():
        try:
            found.append(describe(folder, _CPU))
        except (SetupError, UsageError) as error:
            log.warning("left out: %s", error.message)
    return found


def _bundled_models(kind: Kind) -> list[Model]:
    return [_bundled_model(kind, name, entry, _CPU) for name, entry in bundled(kind).items()]


def _bundled_model(kind: Kind, name: str, entry: dict[str, str], device: torch.device) -> Model:
    file = FOLDERS[kind] / entry["file"]
    if not file.is_file():
        raise SetupError(f"the bundled {_WORDS[kind]} {file} is missing", "reinstall pulse-sr")
    if is_foreign(file):
        check_sha256(file, entry["sha256"])
    return replace(describe(file, device, kind), name=name, expected_sha256=entry["sha256"])
