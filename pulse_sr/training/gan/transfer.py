"""Beginning a training from the weights of another one: transfer, and growing to a larger size.

Layers are matched by name and shape (Karras et al. 2020, section 4: "transfer learning"). Where the
new generator is larger than the old one, training starts from the old picture, enlarged: the RGB
layers of new blocks begin at zero, and in wider layers (Chen et al., "Net2Net", ICLR 2016) what is
new has random weights, but nothing of the old looks at it yet.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.data.order import ImageStream
from pulse_sr.errors import SetupError, UsageError, first_line
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.tensors import UNREADABLE, check_finite, read_tensors, require_shape
from pulse_sr.models import registry
from pulse_sr.priors.files import read_header
from pulse_sr.priors.stylegan2 import Generator
from pulse_sr.training.checkpoint import read_checkpoint_header
from pulse_sr.training.gan.discriminator import Discriminator
from pulse_sr.training.gan.growing import fit_new_stages
from pulse_sr.training.gan.objective import Objective
from pulse_sr.training.loop import STATE_NAME

log = logging.getLogger(__name__)

FITTING_BATCH = 16
#: The layer of the discriminator whose last input is the deviation within a group of images.
STATISTIC = "b4.conv.weight"


@dataclass(frozen=True)
class Source:
    """Weights to begin with.

    Attributes:
        path: the prior's file.
        sha256: of that file.
        header: what the file says of itself.
        generator: tensors of the generator by name.
        discriminator: tensors of the discriminator, of a run folder that has a state; else empty.
    """

    path: Path
    sha256: str
    header: dict[str, Any]
    generator: dict[str, Tensor]
    discriminator: dict[str, Tensor]


def read_source(name_or_path: str) -> Source:
    """Read what `--init` names: a bundled prior, a prior file, or the folder of a run.

    Raises:
        UsageError: no such prior.
        SetupError: a file is damaged.
    """
    model = registry.load(name_or_path)
    path, header = model.path, read_header(model.path)
    generator, discriminator = tensors_of(path, "G."), {}
    state = Path(name_or_path) / STATE_NAME
    if state.is_file():
        # The state's own generator: what a prior file holds may be folded for searching.
        generator, discriminator = tensors_of(state, "G_ema/"), tensors_of(state, "D/")
    return Source(path, model.sha256, header, generator, discriminator)


@dataclass(frozen=True)
class Continued:
    """A run whose whole state another run goes on with.

    Attributes:
        path: of the state.
        sha256: of that file.
        header: architecture, and shape of the generator as `config`, like that of a prior file.
        images: shown when the state was written.
    """

    path: Path
    sha256: str
    header: dict[str, Any]
    images: int


class ConfigShape(TypedDict):
    """What is read of the configuration of a run."""

    architecture: str
    network: dict[str, Any]


def read_continued(folder: str) -> Continued:
    """Read what `--continue` names: the folder of a run.

    Raises:
        UsageError: there is no state in it.
        SetupError: the state is damaged.
    """
    path = Path(folder) / STATE_NAME
    if not path.is_file():
        raise UsageError(
            f"--continue {folder}: there is no {STATE_NAME} in it",
            "give the folder of a run, or begin with a prior alone: --init PRIOR",
        )
    found = read_checkpoint_header(path)
    config = found["config"]
    require_shape(path, config, ConfigShape)
    header = {"architecture": config["architecture"], "config": config["network"]}
    digest = file_sha256(path)
    return Continued(path, digest, header | {"name": path.resolve().parent.name}, found["images"])


def tensors_of(path: Path, prefix: str) -> dict[str, Tensor]:
    """The tensors of a file whose names begin with a prefix, float32, by the rest of their names.

    Raises:
        SetupError: the file is damaged, or has values that are not finite.
    """
    try:
        found = {key: value.float() for key, value in read_tensors(path, prefix).items()}
    except UNREADABLE as error:
        raise SetupError(f"{path} can not be read ({first_line(error)})", "restore it") from error
    check_finite(found, path)
    return found


def begin_with(source: Source, objective: Objective, images: np.ndarray) -> None:
    """Give the networks of an objective the weights of a source, as far as they fit.

    Args:
        source: the weights.
        objective: networks on the CPU.
        images: uint8 `[N, 3, R, R]`, what a discriminator's new stages are fitted on.

    Raises:
        UsageError: when nothing fits.
    """
    transfer(objective.generator, source.generator)
    silence_new_rgb(objective.generator, source.generator)
    if not source.discriminator:
        return
    transfer(objective.discriminator, source.discriminator)
    if isinstance(objective.discriminator, Discriminator):
        stream = ImageStream(images, seed=0)

        def batch(step: int) -> Tensor:
            pixels = stream.batch(step * FITTING_BATCH, FITTING_BATCH)
            return pixels.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)

        unexplained = fit_new_stages(objective.discriminator, source.discriminator, batch)
        if unexplained is not None:
            log.info("new stages of the discriminator: %.1f %% unexplained", 100 * unexplained)


def transfer(network: nn.Module, tensors: dict[str, Tensor]) -> tuple[int, int]:
    """Copy the tensors that a network has by the same name and shape.

    Networks of StyleGAN2 also take those that are smaller than their own.

    Returns:
        how many were copied, and how many the network has.

    Raises:
        UsageError: when nothing fits.
    """
    own = network.state_dict()
    fitting = {k: v for k, v in tensors.items() if k in own and own[k].shape == v.shape}
    if isinstance(network, Generator | Discriminator):
        for name in own.keys() & tensors.keys() - fitting.keys():
            new, old = own[name], tensors[name]
            if new.ndim == old.ndim and all(map(int.__ge__, new.shape, old.shape)):
                fitting[name] = _widened(new, old, last=name == STATISTIC)
    if not fitting:
        raise UsageError(
            "--init: none of its layers has the name and shape of one of this network",
            "use the widths of the prior (pulse-sr prior info), or leave --init out",
        )
    network.load_state_dict(fitting, strict=False)
    return len(fitting), len(own)


def _widened(new: Tensor, old: Tensor, last: bool) -> Tensor:
    """A tensor of a wider layer: old outputs see old inputs alone, new outputs are random.

    Args:
        new: random, `[outputs, inputs, ...]` or one number an output.
        old: smaller.
        last: whether the last input stays the last.
    """
    wide = new.clone()
    if new.ndim > 1:
        wide[: len(old)] = 0
        # Layers divide their weights by the root of the number of inputs.
        old = old * math.sqrt(new[0].numel() / old[0].numel())
    if last:
        wide[: len(old), -1] = old[:, -1]
        old = old[:, :-1]
    wide[tuple(map(slice, old.shape))] = old
    return wide


def silence_new_rgb(generator: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Let RGB layers that were not in the source begin at zero."""
    with torch.no_grad():
        for name, module in generator.named_modules():
            if name.endswith(".torgb") and f"{name}.weight" not in tensors:
                module.weight.zero_()
                module.bias.zero_()
