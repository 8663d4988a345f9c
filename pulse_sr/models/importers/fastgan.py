"""FastGAN checkpoints in both published layouts, and the variant of Projected GAN.

`ITERATION.pth` holds the averaged weights as `g`. `all_ITERATION.pth` holds the weights in training
as `g` and the averaged ones as `g_ema`, a list in the order of the parameters without the
statistics of batch norm: those are estimated again. Networks of several devices have `module.`
before their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pulse_sr.errors import SetupError, first_line
from pulse_sr.files.unpickler import Record
from pulse_sr.models.importers.layout import (
    Imported,
    network_of,
    refuse,
    state_of,
    tensor_dict,
    tensors_of,
)
from pulse_sr.models.importers.nvidia import generator_record
from pulse_sr.priors.fastgan import FastGANConfig, FastGANGenerator
from pulse_sr.priors.fastgan_folding import FoldedGenerator, fold
from pulse_sr.priors.fastgan_layers import advance_spectral_norm
from pulse_sr.priors.recalibration import recalibrate

#: What a `state_dict` holds beside the parameters.
_BUFFERS = ("weight_u", "weight_v", "running_mean", "running_var", "num_batches_tracked")
_FIRST = "init.init.0.weight_orig"
_PIXELS = 64 * 256**2
_REESTIMATED = (
    "the statistics of batch norm were estimated again: the file has none for the averaged weights"
)


def import_fastgan(content: Any, path: Path) -> Imported | None:
    """The averaged generator.

    Raises:
        UsageError: it is of a size that FastGAN does not have.
        SetupError: tensors are missing.
    """
    tensors = tensor_dict(content, "g", "g_ema")
    if tensors is None or _FIRST not in tensors:
        return None
    average, notes = content.get("g_ema"), []
    if isinstance(average, list):
        tensors |= _named(average, tensors, path)
        notes.append(_REESTIMATED)
    elif isinstance(average, dict):
        tensors = tensor_dict(content, "g_ema") or tensors
    generator = _generator(tensors, _config(tensors, path), path)
    if notes:
        for _ in range(5):  # the vectors in the file are those of the weights in training
            advance_spectral_norm(generator)
        recalibrate(generator, batches=max(8, min(64, _PIXELS // generator.config.resolution**2)))
    return Imported("fastgan", fold(generator), "FastGAN checkpoint", notes)


def import_projected_gan(content: Any, path: Path) -> Imported | None:
    """The FastGAN generator of a Projected GAN snapshot.

    Raises:
        UsageError: it is conditional, or of a size that FastGAN does not have.
        SetupError: tensors are missing.
    """
    record = generator_record(content)
    tensors = {} if record is None else tensors_of(record, path)
    if record is None or f"synthesis.{_FIRST}" not in tensors:
        return None
    state = state_of(record, path)
    if state.get("c_dim") or any(".embed" in key for key in tensors):
        raise refuse(path, f"a conditional Projected GAN of {state.get('c_dim')} classes")
    synthesis = state["_modules"]["synthesis"]
    resolution = synthesis.state.get("img_resolution") if isinstance(synthesis, Record) else None
    tensors = {key.removeprefix("synthesis."): value for key, value in tensors.items()}
    variant = "projected" if "feat_16.5.weight_orig" in tensors else "projected-lite"
    config = _config(tensors, path, resolution, variant)
    generator = _generator(tensors, config, path)
    folded: FoldedGenerator = fold(generator)
    bias = tensors.get("to_big.bias")
    if bias is not None and folded.to_big.bias is not None:
        with torch.no_grad():
            folded.to_big.bias.copy_(bias)
    return Imported("fastgan", folded, "Projected GAN snapshot with FastGAN's generator")


def _config(
    tensors: Mapping[str, Tensor], path: Path, side: Any = None, variant: str = "published"
) -> FastGANConfig:
    """The shape, from the tensors; a side that is given, for files that hold unused layers."""
    sides = [int(key[5:].split(".")[0]) for key in tensors if key.startswith("feat_")]
    try:
        ngf = len(tensors["se_64.main.3.weight_orig"]) // 2
        resolution = side if isinstance(side, int) else max(sides)
        return FastGANConfig(resolution, ngf, len(tensors[_FIRST]), variant)
    except (LookupError, ValueError, TypeError) as error:
        raise refuse(path, f"a FastGAN of an unknown shape ({first_line(error)})") from error


def _generator(
    tensors: Mapping[str, Tensor], config: FastGANConfig, path: Path
) -> FastGANGenerator:
    unused = (f"to_{config.small_side}.",)  # the second image is not needed to search
    return network_of(lambda: FastGANGenerator(config), tensors, path, unused).eval()


def _named(average: list[Any], tensors: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Names for a list of parameters: those of the network that stands beside it, in its order."""
    names = [key for key in tensors if key.rsplit(".", 1)[-1] not in _BUFFERS]
    fits = len(names) == len(average) and all(
        isinstance(value, Tensor) and value.shape == tensors[name].shape
        for name, value in zip(names, average, strict=False)
    )
    if not fits:
        raise SetupError(
            f"{path}: its list g_ema does not fit the parameters of g", "download the file again"
        )
    return dict(zip(names, average, strict=True))
