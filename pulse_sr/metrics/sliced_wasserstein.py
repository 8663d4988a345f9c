"""Sliced Wasserstein distance of image patches, one number per scale.

Karras et al., "Progressive Growing of GANs", ICLR 2018, section 5: the images' Laplacian pyramids,
7x7 patches of every level, each colour channel of a set of patches brought to mean 0 and deviation
1, random projections to a line, the Wasserstein-1 distance there, averaged over the projections.
Fine levels tell of sharpness and grain, coarse ones of shapes; mean colour and contrast of a whole
set are taken out. Here a set has 2^16 patches however many images it has (the paper: 2^21).

Shapes: N images, C channels, P patches, R resolution, r side of a level.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PATCH_SIDE = 7
#: Patches of a set and level; more images give fewer patches each.
PATCHES = 2**16
#: As many random directions as the paper takes.
DIRECTIONS = 512
#: The coarsest level of a pyramid has at least this side.
LEAST_SIDE = 16

_TAPS = (1.0, 4.0, 6.0, 4.0, 1.0)
_DIRECTIONS_AT_ONCE = 64


def laplacian_pyramid(images: Tensor) -> list[Tensor]:
    """Differences of neighbouring scales, `[N, C, r, r]` for r = R, R / 2, ..., the last one plain.

    Filter 1 4 6 4 1 along each axis, borders mirrored (Burt and Adelson, 1983).

    Args:
        images: `[N, C, R, R]`, any float dtype, R at least 7.

    Raises:
        ValueError: for smaller images.
    """
    if min(images.shape[-2:]) < PATCH_SIDE:
        raise ValueError(f"images of {tuple(images.shape[-2:])} px have no 7x7 patch")
    levels = []
    while min(images.shape[-2:]) >= 2 * LEAST_SIDE and all(s % 2 == 0 for s in images.shape[-2:]):
        smaller = _blur(images, 1.0)[..., ::2, ::2]
        spread = torch.zeros_like(images)
        spread[..., ::2, ::2] = smaller
        levels.append(images - _blur(spread, 2.0))
        images = smaller
    return [*levels, images]


def _blur(images: Tensor, gain: float) -> Tensor:
    """Binomial filter along both axes; `gain` 2 makes up for every second row being zero."""
    taps = images.new_tensor(_TAPS)
    taps = gain * taps / taps.sum()
    n, c, height, width = images.shape
    x = F.pad(images, [2] * 4, mode="reflect").reshape(n * c, 1, height + 4, width + 4)
    x = F.conv2d(F.conv2d(x, taps.view(1, 1, 1, -1)), taps.view(1, 1, -1, 1))
    return x.view(n, c, height, width)


def patch_sets(images: Tensor, per_image: int, rng: torch.Generator) -> list[Tensor]:
    """Random patches of every level of the pyramid, float32 `[N * per_image, C, 49]` on the CPU.

    The sets of several chunks of images are concatenated; `per_image` is `patches_per_image` of all
    of them together.

    Args:
        images: `[N, C, R, R]`.
        per_image: patches of an image and level; they may overlap or repeat.
        rng: CPU generator of their places.

    Raises:
        ValueError: for images smaller than a patch.
    """
    levels = laplacian_pyramid(images)
    places = torch.rand(2, len(images), per_image, generator=rng)
    return [_patches_at(level.float(), places).cpu() for level in levels]


def patches_per_image(images: int) -> int:
    """How many patches of each image make a set of `PATCHES`."""
    return -(-PATCHES // images)


def _patches_at(level: Tensor, places: Tensor) -> Tensor:  # [N, C, r, r] -> [N * n, C, 49]
    """Patches whose upper left corners lie at `places` `[2, N, n]`, fractions of what fits."""
    n, c, height, width = level.shape
    rows = (places[0] * (height - PATCH_SIDE + 1)).long()
    columns = (places[1] * (width - PATCH_SIDE + 1)).long()
    offsets = torch.arange(PATCH_SIDE)
    within = offsets[:, None] * width + offsets  # [7, 7]
    index = (rows * width + columns)[..., None] + within.flatten()  # [N, n, 49]
    index = index.view(n, 1, -1).expand(-1, c, -1).to(level.device)
    patches = level.flatten(2).gather(2, index).view(n, c, -1, PATCH_SIDE**2)
    return patches.transpose(1, 2).flatten(0, 1)


def sliced_wasserstein(a: Iterable[Tensor], b: Iterable[Tensor], seed: int = 0) -> list[float]:
    """Distance of two sets of patches, times 1000, one for each level.

    Args:
        a: `[P, C, 49]` for each level, as `patch_sets` gives them; of each `PATCHES` are taken. One
            level is asked for after the other.
        b: the same of another set of images.
        seed: of the projections.

    Raises:
        ValueError: when the sets have another number of levels or of patches.
    """
    found = []
    for i, (x, y) in enumerate(zip_longest(a, b)):
        if x is None or y is None or x[:PATCHES].shape != y[:PATCHES].shape:
            raise ValueError("the two sets of patches differ in their levels or in their number")
        ours, theirs = _normalised(x[:PATCHES]), _normalised(y[:PATCHES])
        found.append(1000 * _level_distance(ours, theirs, seed + i))
    return found


def _normalised(patches: Tensor) -> Tensor:  # [P, C, 49] -> [P, C * 49]
    """Every channel of the set to mean 0 and deviation 1; a constant channel to 0."""
    moments = [torch.stack(torch.std_mean(x.double(), correction=0)) for x in patches.unbind(1)]
    deviation, mean = torch.stack(moments, dim=1)[..., None].float()  # [C, 1] each
    return (patches - mean).div_(deviation.clamp_min(1e-8)).flatten(1)


def _level_distance(a: Tensor, b: Tensor, seed: int) -> float:
    rng = torch.Generator().manual_seed(seed)
    directions = F.normalize(torch.randn(DIRECTIONS, a.shape[1], generator=rng))
    distances = [
        wasserstein_1(part @ a.mT, part @ b.mT) for part in directions.split(_DIRECTIONS_AT_ONCE)
    ]
    return float(torch.cat(distances).mean())


def wasserstein_1(a: Tensor, b: Tensor) -> Tensor:  # [K, P], [K, P] -> [K] float64
    """Wasserstein-1 distance on the line, row by row: sorted, the points are each other's match."""
    # NumPy's sort uses wide vectors: 17 times as fast as torch's here.
    sorted_a, sorted_b = np.sort(a.numpy(), axis=1), np.sort(b.numpy(), axis=1)
    return torch.from_numpy(np.abs(sorted_a - sorted_b).mean(axis=1, dtype=np.float64))
