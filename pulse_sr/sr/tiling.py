"""Pictures of any size through a network in tiles, one band of rows after the other.

A pixel of the result depends on the input within the network's receptive field alone. Tiles that
overlap by its radius and are cut in the middle give what the whole picture would, to the rounding
of convolutions of another shape; where the radius is above `MOST_OVERLAP`, the rest is so far away
that it hardly counts.

Shapes: h w input, s scale; a band has b rows of the input.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn as nn
from numpy.typing import NDArray
from torch import Tensor

#: Tiles begin at multiples of this: networks that fold pixels into channels see the same squares.
ALIGN = 4
MOST_OVERLAP = 48
LEAST_TILE, MOST_TILE = 32, 512
#: What a network takes over the inputs and outputs of its most demanding layer; measured
#: (docs/supervised.md).
HEADROOM = 2.5
#: What tiles may take: on a CPU so many bytes, less where the machine has less than eight times as
#: many (what is free changes from call to call, and tiles of another size round differently); on a
#: GPU this share of the free memory.
CPU_BYTES, GPU_SHARE = 768 << 20, 0.5
_PROBE = 32


@dataclass(frozen=True)
class Tiling:
    """How a picture is cut.

    Attributes:
        tile: side of a tile without its overlap, in input pixels, a multiple of `ALIGN`.
        overlap: so many more input pixels on each side, a multiple of `ALIGN`.
    """

    tile: int
    overlap: int


def choose_tiling(network: nn.Module, tile: int | None = None) -> Tiling:
    """The largest tiles that fit into memory.

    Args:
        network: on its device, in eval mode.
        tile: side of a tile; None: from the memory that is free.
    """
    overlap = min(_aligned(receptive_radius(network)), MOST_OVERLAP)
    if tile is None:
        allowed = _allowed_bytes(next(network.parameters()).device)
        side = int((allowed / bytes_per_pixel(network)) ** 0.5) - 2 * overlap
        tile = min(max(side, LEAST_TILE), MOST_TILE)
    return Tiling(max(tile // ALIGN, 1) * ALIGN, overlap)


def _allowed_bytes(device: torch.device) -> float:
    if device.type == "cuda":
        return GPU_SHARE * torch.cuda.mem_get_info(device)[0]
    return min(CPU_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 8)


def enlarge(network: nn.Module, pixels: NDArray[Any], tiling: Tiling) -> Iterator[NDArray[Any]]:
    """The enlarged picture from top to bottom.

    Args:
        network: `[N, 3, h, w]` in [0, 1] to `[N, 3, s h, s w]`, on its device.
        pixels: uint8 or uint16 `[3, h, w]`.
        tiling: how it is cut.

    Yields:
        `[3, s b, s w]` of the same type, clipped and rounded.
    """
    device = next(network.parameters()).device
    for rows in _cuts(pixels.shape[1], tiling):
        tiles = (
            _one_tile(network, pixels, (rows, columns), device)
            for columns in _cuts(pixels.shape[2], tiling)
        )
        yield np.concatenate(list(tiles), axis=2)  # and none of them is kept beside it


@dataclass(frozen=True)
class _Cut:
    """A stretch of a line: what the network sees, and what of it is kept."""

    start: int
    stop: int
    seen_from: int
    seen_to: int


def _cuts(size: int, tiling: Tiling) -> list[_Cut]:
    """A line in stretches of nearly the same length, none longer than a tile."""
    count = -(-size // tiling.tile)
    step = _aligned(-(-size // count))
    starts = range(0, size, step)
    return [
        _Cut(
            start,
            min(start + step, size),
            max(start - tiling.overlap, 0),
            min(start + step + tiling.overlap, size),
        )
        for start in starts
    ]


@torch.inference_mode()
def _one_tile(
    network: nn.Module, pixels: NDArray[Any], cut: tuple[_Cut, _Cut], device: torch.device
) -> NDArray[Any]:
    rows, columns = cut
    peak = int(np.iinfo(pixels.dtype).max)
    seen = pixels[:, rows.seen_from : rows.seen_to, columns.seen_from : columns.seen_to]
    x = torch.from_numpy(seen.astype(np.float32)).to(device).div_(peak)[None]
    y: Tensor = network(x.contiguous(memory_format=torch.channels_last))[0].float()
    scale = y.shape[-1] // x.shape[-1]
    kept = tuple(
        slice((each.start - each.seen_from) * scale, (each.stop - each.seen_from) * scale)
        for each in cut
    )
    y = y[(slice(None), *kept)].clamp(0.0, 1.0).mul(peak).round()
    found: NDArray[Any] = y.cpu().numpy().astype(pixels.dtype)
    return found


def receptive_radius(network: nn.Module) -> int:
    """How many input pixels away an input can change the output of a network, found by trying.

    A line with one pixel that is no number goes through a copy on the CPU: all outputs that it
    reaches are no numbers.
    """
    probe = copy.deepcopy(network).to("cpu").float().eval()
    reach = _PROBE
    while True:
        line = torch.zeros(1, 3, 1, 2 * reach + 1)
        line[..., reach] = torch.nan
        with torch.inference_mode():
            touched = probe(line).isnan().any(dim=1)[0].any(dim=0)  # [s (2 reach + 1)]
        scale = len(touched) // (2 * reach + 1)
        places = touched.nonzero().flatten() // scale
        radius = int((places - reach).abs().max())
        if radius < reach:
            return radius
        reach *= 2


def bytes_per_pixel(network: nn.Module) -> float:
    """What a network takes for one input pixel, from the tensors of its largest layer."""
    largest = 0

    def look(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal largest
        taken = sum(each.numel() * each.element_size() for each in (*inputs, output))
        largest = max(largest, taken)

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(look) for module in leaves]
    weight = next(network.parameters())
    try:
        with torch.inference_mode():
            network(torch.zeros(1, 3, _PROBE, _PROBE, device=weight.device, dtype=weight.dtype))
    finally:
        for hook in hooks:
            hook.remove()
    return HEADROOM * largest / _PROBE**2


def _aligned(size: int) -> int:
    return -(-size // ALIGN) * ALIGN
