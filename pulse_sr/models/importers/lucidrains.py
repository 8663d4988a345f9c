"""Checkpoints of lucidrains' stylegan2-pytorch: `GAN`, with the averaged networks `SE` and `GE`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.models.importers.layout import Imported, network_of, refuse, tensor_dict
from pulse_sr.priors.stylegan2_bilinear import BilinearConfig, Generator

#: The learning-rate multiplier of its mapping, an option that files do not hold.
LR_MULTIPLIER = 0.1
NOTES = (
    "the mapping's multiplier is taken to be 0.1, the program's default: the file does not say",
    "the mean style was estimated: the file has none",
    "the fixed noise maps were drawn: the file has none",
)


def import_lucidrains(content: Any, path: Path) -> Imported | None:
    """The averaged generator.

    Raises:
        UsageError: it has attention layers, no constant, or transparency.
        SetupError: tensors are missing.
    """
    tensors = tensor_dict(content, "GAN")
    if tensors is None or "GE.initial_conv.weight" not in tensors:
        return None
    if any(key.startswith("GE.attns.") for key in tensors):
        raise refuse(path, "a lucidrains StyleGAN2 with attention layers, which are not supported")
    if "GE.initial_block" not in tensors:
        raise refuse(path, "a lucidrains StyleGAN2 without a constant (--no-const)")
    source = "checkpoint of lucidrains' stylegan2-pytorch"
    return Imported("stylegan2-bilinear", _generator(tensors, path), source, [*NOTES])


def _generator(tensors: Mapping[str, Tensor], path: Path) -> Generator:
    sides = sum(bool(re.fullmatch(r"GE\.blocks\.\d+\.conv1\.weight", key)) for key in tensors)
    channels = tuple(len(tensors[f"GE.blocks.{i}.conv1.weight"]) for i in range(sides))
    if len(tensors["GE.blocks.0.to_rgb.conv.weight"]) != 3:
        raise refuse(path, "a lucidrains StyleGAN2 with transparency, only RGB is supported")
    layers = sorted(int(key.split(".")[2]) for key in tensors if re.match(r"SE\.net\.\d+\.w", key))
    width = len(tensors["SE.net.0.weight"])
    config = BilinearConfig(2 ** (sides + 1), width, width, len(layers), channels)
    start = tensors["GE.initial_block"].float()
    start = F.conv2d(
        start, tensors["GE.initial_conv.weight"], tensors["GE.initial_conv.bias"], padding=1
    )
    weights = {"synthesis.const": start[0]} | _mapping(tensors, layers, width)
    for i in range(sides):
        weights |= _block(tensors, i)
    return network_of(lambda: Generator(config), weights, path)


def _mapping(tensors: Mapping[str, Tensor], layers: list[int], width: int) -> dict[str, Tensor]:
    """Ours normalises to unit second moment, divides by sqrt(inputs), and has a gain behind."""
    found: dict[str, Tensor] = {}
    for i, number in enumerate(layers):
        gain = LR_MULTIPLIER / math.sqrt(2)
        of_input = 1 / math.sqrt(width) if i == 0 else 1.0
        weight = tensors[f"SE.net.{number}.weight"]
        found[f"mapping.fc{i}.weight"] = weight * (gain * of_input * math.sqrt(width))
        found[f"mapping.fc{i}.bias"] = tensors[f"SE.net.{number}.bias"] * gain
    return found


def _block(tensors: Mapping[str, Tensor], i: int) -> dict[str, Tensor]:
    theirs, ours = f"GE.blocks.{i}", f"synthesis.b{4 << i}"
    found: dict[str, Tensor] = {}
    for number in (1, 2):
        layer = f"{ours}.conv{number - 1}"
        found |= _affine(tensors, f"{theirs}.to_style{number}", f"{layer}.affine")
        found |= {
            f"{layer}.weight": tensors[f"{theirs}.conv{number}.weight"],
            f"{layer}.noise_strength": tensors[f"{theirs}.to_noise{number}.weight"][:, 0],
            f"{layer}.bias": tensors[f"{theirs}.to_noise{number}.bias"],
        }
    weight = tensors[f"{theirs}.to_rgb.conv.weight"]
    found |= _affine(tensors, f"{theirs}.to_rgb.to_style", f"{ours}.torgb.affine")
    return found | {
        f"{ours}.torgb.weight": weight * math.sqrt(weight.shape[1]),
        f"{ours}.torgb.bias": torch.zeros(3),
    }


def _affine(tensors: Mapping[str, Tensor], theirs: str, ours: str) -> dict[str, Tensor]:
    """A plain layer whose output has one added to it."""
    weight = tensors[f"{theirs}.weight"]
    return {
        f"{ours}.weight": weight * math.sqrt(weight.shape[1]),
        f"{ours}.bias": tensors[f"{theirs}.bias"] + 1,
    }
