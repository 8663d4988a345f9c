"""Pictures of a prior in training, always of the same latents.

Shapes: N images, S samples, L style rows, R resolution.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pulse_sr.devices import images_at_once
from pulse_sr.priors.base import Prior, standard_normal

GRID_SIDE = 8
#: Between which seeds the strip goes, one row each, and how many images a row has.
STRIP_SEEDS = ((0, 1), (2, 3), (4, 5), (6, 7))
STRIP_STEPS = 9
#: An image of 1024 px is synthesized alone, 16 of 256 px and below together.
_CHUNK, _CHUNK_PIXELS = 16, 1024**2


def tile(images: torch.Tensor, columns: int) -> np.ndarray:
    """Images `[N, 3, R, R]` in [0, 1] as one uint8 picture `[3, rows * R, columns * R]`."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    canvas = torch.zeros(rows * columns, c, h, w)
    canvas[:n] = images.clamp(0, 1).cpu()
    canvas = canvas.view(rows, columns, c, h, w).permute(2, 0, 3, 1, 4)
    return (canvas.reshape(c, rows * h, columns * w) * 255).round().byte().numpy()


def sample_grid(prior: Prior) -> np.ndarray:
    """Uncurated samples of the seeds 0 to 63 as one uint8 picture `[3, 8 R, 8 R]`."""
    seeds = range(GRID_SIDE**2)
    step = images_at_once(prior.resolution, _CHUNK, _CHUNK_PIXELS)
    parts = [prior.sample(seeds[i : i + step]).cpu() for i in range(0, len(seeds), step)]
    return tile(torch.cat(parts), GRID_SIDE)


def interpolation_strip(prior: Prior) -> np.ndarray:
    """Ways from one fixed sample to another as one uint8 picture `[3, 4 R, 9 R]`.

    A prior that learned a distribution changes smoothly along a row; one that memorised jumps.
    """
    z = torch.cat([_between(prior, first, last) for first, last in STRIP_SEEDS])
    with torch.no_grad():
        w = prior.map(z.to(prior.device))[:, None].expand(-1, prior.num_ws, -1)
        images = [
            prior.synthesize(part).cpu()
            for part in w.split(images_at_once(prior.resolution, _CHUNK, _CHUNK_PIXELS))
        ]
    return tile(torch.cat(images), STRIP_STEPS)


def _between(prior: Prior, first: int, last: int) -> Tensor:
    a, b = (standard_normal(seed, (prior.z_dim,)) for seed in (first, last))
    return slerp(a, b, torch.linspace(0, 1, STRIP_STEPS).tolist())


def slerp(a: Tensor, b: Tensor, positions: Sequence[float]) -> Tensor:
    """Spherical interpolation of two latents `[D]`: `[len(positions), D]`.

    The direction moves along the great circle (Shoemake, SIGGRAPH 1985), the length in a straight
    line: every point is as likely a latent as its ends.
    """
    u, v = a / a.norm(), b / b.norm()
    angle = torch.acos((u @ v).clamp(-1, 1))
    t = a.new_tensor(positions)[:, None]
    if float(angle.sin()) < 1e-6:  # the same direction, or opposite ones without a single way
        return (1 - t) * a + t * b
    direction = (((1 - t) * angle).sin() * u + (t * angle).sin() * v) / angle.sin()
    return direction * ((1 - t) * a.norm() + t * b.norm())
