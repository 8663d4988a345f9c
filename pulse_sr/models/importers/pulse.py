"""The files of the original PULSE: `synthesis.pt` and `mapping.pt` of StyleGAN's first version.

Either file can be named; the other one lies beside it, or both stand in one file under the prefixes
`G_synthesis.` and `G_mapping.`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.files.checkpoints import read_checkpoint
from pulse_sr.models.importers.layout import Imported, he_gain, network_of
from pulse_sr.priors.fastgan_layers import up_kernel
from pulse_sr.priors.stylegan1 import Generator
from pulse_sr.priors.stylegan2 import StyleGAN2Config

SYNTHESIS, MAPPING = "synthesis.pt", "mapping.pt"
GAIN = math.sqrt(2)
#: From this side on the release doubles by a transposed convolution with four shifted kernels.
FUSED_SIDE = 128
NOTES = (
    "the mean style was estimated: the files have none",
    "the fixed noise maps were drawn: the original draws new ones for every run",
)


def import_pulse(content: Any, path: Path) -> Imported | None:
    """The generator out of both files.

    Raises:
        UsageError: the other file is not there.
        SetupError: tensors are missing.
    """
    tensors = _tensors(content)
    beside: tuple[str, ...] = ()
    if "dense0.weight" in tensors:
        beside = (SYNTHESIS,)
        tensors |= _other(path, SYNTHESIS, "torgb.weight")
    elif "blocks.4x4.const" in tensors:
        beside = (MAPPING,)
        tensors |= _other(path, MAPPING, "dense0.weight")
    if not any(key.endswith("blocks.4x4.const") for key in tensors):
        return None
    tensors = {re.sub(r"^G_(synthesis|mapping)\.", "", key): v for key, v in tensors.items()}
    generator = _generator(tensors, path)
    source = f"{SYNTHESIS} and {MAPPING} of the original PULSE"
    return Imported("stylegan1", generator, source, [*NOTES], beside)


def _tensors(content: Any) -> dict[str, Tensor]:
    pairs = content.items() if isinstance(content, dict) else ()
    return {str(key): value for key, value in pairs if isinstance(value, Tensor)}


def _other(path: Path, name: str, key: str) -> dict[str, Tensor]:
    other = path.with_name(name)
    if not other.is_file():
        raise UsageError(
            f"{path} is half of PULSE's generator, {name} is not beside it",
            f"put {SYNTHESIS} and {MAPPING} into one folder, then import {path} again",
        )
    tensors = _tensors(read_checkpoint(other))
    if key not in tensors:
        raise SetupError(f"{other} does not hold {key}", "download PULSE's file again")
    return tensors


def _generator(tensors: Mapping[str, Tensor], path: Path) -> Generator:
    sides = sorted(
        int(k.split(".")[1].split("x")[0]) for k in tensors if k.endswith("epi1.noise.weight")
    )
    channels = tuple(len(tensors[f"blocks.{s}x{s}.epi1.noise.weight"]) for s in sides)
    w_dim, z_dim = tensors["dense0.weight"].shape
    layers = sum(bool(re.fullmatch(r"dense\d+\.weight", key)) for key in tensors)
    config = StyleGAN2Config(max(sides), z_dim, w_dim, layers, channels)
    weights = _mapping(tensors, layers) | _rgb(tensors)
    for side in sides:
        weights |= _block(tensors, side)
    return network_of(lambda: Generator(config), weights, path)


def _mapping(tensors: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """Our layers multiply by sqrt(2) behind the activation, these inside the weight alone."""
    weights = {f"mapping.fc{i}.weight": tensors[f"dense{i}.weight"] for i in range(layers)}
    return weights | {
        f"mapping.fc{i}.bias": tensors[f"dense{i}.bias"] / GAIN for i in range(layers)
    }


def _rgb(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    weight = tensors["torgb.weight"]
    return {
        "synthesis.torgb.weight": weight * he_gain(weight),
        "synthesis.torgb.bias": tensors["torgb.bias"],
    }


def _block(tensors: Mapping[str, Tensor], side: int) -> dict[str, Tensor]:
    theirs, ours = f"blocks.{side}x{side}", f"synthesis.b{side}"
    conv = "conv" if side == 4 else "conv1"
    weight = tensors[f"{theirs}.{conv}.weight"]
    found = {
        f"{ours}.weight": weight * he_gain(weight, GAIN),
        f"{ours}.bias1": tensors[f"{theirs}.{conv}.bias"],
    }
    if side == 4:
        found[f"{ours}.const"] = (
            tensors[f"{theirs}.const"][0] + tensors[f"{theirs}.bias"][:, None, None]
        )
    else:
        found[f"{ours}.kernel"] = _up_kernel(tensors[f"{theirs}.conv0_up.weight"], side)
        found[f"{ours}.bias0"] = tensors[f"{theirs}.conv0_up.bias"]
    for i in range(2):
        epilogue = f"{theirs}.epi{i + 1}"
        found |= {
            f"{ours}.epilogue{i}.noise_strength": tensors[f"{epilogue}.noise.weight"],
            f"{ours}.epilogue{i}.affine.weight": tensors[f"{epilogue}.style_mod.lin.weight"],
            f"{ours}.epilogue{i}.affine.bias": tensors[f"{epilogue}.style_mod.lin.bias"],
        }
    return found


def _up_kernel(weight: Tensor, side: int) -> Tensor:
    """`[O, I, 3, 3]` to `[I, O, 4, 4]`: the kernel in four places, or repeated pixels before it."""
    weight = weight * he_gain(weight, GAIN)
    if side < FUSED_SIDE:
        return up_kernel(weight)
    wide = F.pad(weight.transpose(0, 1), (1, 1, 1, 1))
    return wide[:, :, 1:, 1:] + wide[:, :, :-1, 1:] + wide[:, :, 1:, :-1] + wide[:, :, :-1, :-1]
