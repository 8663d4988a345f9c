"""Prior files: safetensors with everything that is not a tensor as JSON in the header.

A prior is one file, or a folder that holds it as `model.safetensors`: a training run is a prior.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Required, TypedDict

import torch

from pulse_sr.errors import SetupError, UsageError, first_line
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.documents import Count
from pulse_sr.files.tensors import (
    UNREADABLE,
    CardShape,
    read_tensors,
    read_tensors_header,
    require_shape,
    write_tensors,
)
from pulse_sr.priors.architectures import ARCHITECTURES, stored_as
from pulse_sr.priors.base import STYLEGAN2_SLOPE, LatentStatistics, Prior

FILE_NAME = "model.safetensors"
HEADER_KEY = "pulse-sr"
SCHEMA = 1
STATISTICS = ("mean", "std", "cholesky")


class LatentsShape(TypedDict, total=False):
    """What the statistics were fitted to."""

    count: Required[Count]
    slope: float


class HeaderShape(TypedDict):
    """What is read of the header of a prior."""

    name: str
    config: dict[str, Any]
    latents: LatentsShape
    card: CardShape


def save_prior(path: Path, prior: Prior, dtype: torch.dtype = torch.float32) -> None:
    """Write a prior atomically.

    Args:
        path: the file to write.
        prior: of one of `ARCHITECTURES`. Its card, without the entry "architecture" that reading
            adds, goes into the header as it is.
        dtype: float32 or float16, what the weights are stored as; the statistics of the latent
            space are always float32.

    Raises:
        TypeError: for a prior of another architecture.
        SetupError: the file can not be written.
    """
    architecture, stored = stored_as(prior)
    generator, statistics = stored.generator, stored.statistics
    tensors = {f"G.{key}": value.to(dtype) for key, value in generator.state_dict().items()}
    tensors |= {f"latents.{key}": getattr(statistics, key) for key in STATISTICS}
    header = {
        "schema": SCHEMA,
        "name": prior.name,
        "architecture": architecture,
        "config": generator.config.to_json(),
        "latents": {"count": statistics.count, "slope": statistics.slope},
        "card": {key: value for key, value in prior.card.items() if key != "architecture"},
    }
    write_tensors(path, tensors, HEADER_KEY, header)


def prior_path(path: Path) -> Path:
    """The file of a prior given as a file or as a folder.

    Raises:
        UsageError: when there is none.
    """
    file = path / FILE_NAME if path.is_dir() else path
    if not file.is_file():
        hint = f"a folder needs a {FILE_NAME}; see `pulse-sr prior list`"
        raise UsageError(f"no prior at {path}", hint)
    return file


def read_header(path: Path) -> dict[str, Any]:
    """The JSON header of a prior file.

    Raises:
        SetupError: when the file is damaged or is not a prior.
    """
    try:
        header = read_tensors_header(path, HEADER_KEY)
    except UNREADABLE as error:
        raise SetupError(
            f"{path} is not a readable prior ({type(error).__name__}: {first_line(error)})",
            "reinstall pulse-sr for the bundled prior, or train again with `pulse-sr train-prior`",
        ) from error
    kind = (header.get("schema"), header.get("architecture"))
    if kind not in [(SCHEMA, name) for name in ARCHITECTURES]:
        raise SetupError(
            f"{path} has schema and architecture {kind}, "
            f"expected {SCHEMA} and one of {', '.join(ARCHITECTURES)}",
            "use the version of pulse-sr that wrote the file",
        )
    require_shape(path, header, HeaderShape)
    return header


def read_prior(path: Path, device: torch.device | str = "cpu") -> Prior:
    """Read a prior from a file or a folder; weights are float32 in memory.

    Raises:
        UsageError: when there is no such file.
        SetupError: when the file is damaged or is not a prior.
    """
    file = prior_path(path)
    header = read_header(file)
    architecture = ARCHITECTURES[header["architecture"]]
    try:
        generator = architecture.build(dict(header["config"]))
        tensors = read_tensors(file)
        weights = {k[2:]: v.float() for k, v in tensors.items() if k.startswith("G.")}
        generator.load_state_dict(weights)
        latents = {key: tensors[f"latents.{key}"].to(device) for key in STATISTICS}
        # Files from before FastGAN name no slope.
        slope = float(header["latents"].get("slope", STYLEGAN2_SLOPE))
        statistics = LatentStatistics(count=header["latents"]["count"], slope=slope, **latents)
        name, card = header["name"], header["card"]
    except Exception as error:  # whatever a damaged configuration leads to
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise SetupError(
            f"{file} does not hold the tensors that its header names ({reason})",
            "the file is damaged: restore or retrain it",
        ) from error
    prior = architecture.prior(
        name,
        generator.to(device),
        statistics,
        card={"architecture": header["architecture"]} | card,
        sha256=file_sha256(file),
    )
    prior.file = file
    return prior
