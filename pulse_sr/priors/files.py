"""Prior files: safetensors with everything that is not a tensor as JSON in the header.

A prior is one file, or a folder that holds it as `model.safetensors`: a training run is a prior.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Required, TypedDict

import torch
from msgspec import Meta

from pulse_sr.errors import SetupError, UsageError, kind_and_line
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.documents import Count, check_description
from pulse_sr.files.tensors import (
    UNREADABLE,
    CardShape,
    check_finite,
    explain_damage,
    load_network,
    read_shapes,
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

    name: Annotated[str, Meta(max_length=1000)]  # it is drawn into pictures
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
            f"{path} is not a readable prior ({kind_and_line(error)})",
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
    with explain_damage(path):
        check_description(header["config"])
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
    with explain_damage(file):
        generator = load_network(file, lambda: architecture.build(dict(header["config"])), "G.")
        width = getattr(generator.config, "w_dim", generator.config.z_dim)
        statistics = _statistics(file, header["latents"], width)
        name, card = str(header["name"]), dict(header["card"])
    statistics = replace(
        statistics, **{key: getattr(statistics, key).to(device) for key in STATISTICS}
    )
    prior = architecture.prior(
        name,
        generator.to(device),
        statistics,
        card={"architecture": header["architecture"]} | card,
        sha256=file_sha256(file),
    )
    prior.file = file
    return prior


def _statistics(file: Path, header: Mapping[str, Any], width: int) -> LatentStatistics:
    """The Gaussian in a file; it has to be finite, and its deviations above 0."""
    shapes = read_shapes(file, "latents.")
    for key, shape in {"mean": (width,), "std": (width,), "cholesky": (width, width)}.items():
        if shapes.get(key) != shape:
            raise ValueError(f"latents.{key}: shape {shape} expected, {shapes.get(key)} found")
    # Files from before FastGAN name no slope.
    count, slope = int(header["count"]), float(header.get("slope", STYLEGAN2_SLOPE))
    if count < 0 or not 0 < slope <= 1:
        raise ValueError(f"{count} latents and a slope of {slope}")
    tensors = read_tensors(file, "latents.")
    found = {key: tensors[key].float() for key in STATISTICS}
    check_finite(found, file, "latents.")
    for key, deviations in (("std", found["std"]), ("cholesky", found["cholesky"].diagonal())):
        if (deviations <= 0).any():
            raise SetupError(
                f"{file}: a deviation in tensor latents.{key} is {deviations.min():g}, expected "
                "numbers above 0",
                "the file is damaged: restore it, or train it again",
            )
    return LatentStatistics(count=count, slope=slope, **found)
