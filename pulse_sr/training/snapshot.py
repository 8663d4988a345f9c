"""Sample grids of a generator in training, always of the same latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pulse_sr.images import write_png
from pulse_sr.priors.base import standard_normal
from pulse_sr.priors.stylegan2 import Generator

GRID_SIDE = 8


def tile(images: torch.Tensor, columns: int) -> np.ndarray:
    """Images `[N, 3, R, R]` in [0, 1] as one uint8 picture `[3, rows * R, columns * R]`."""
    n, c, h, w = images.shape
    rows = -(-n // columns)
    canvas = torch.zeros(rows * columns, c, h, w)
    canvas[:n] = images.clamp(0, 1).cpu()
    canvas = canvas.view(rows, columns, c, h, w).permute(2, 0, 3, 1, 4)
    return (canvas.reshape(c, rows * h, columns * w) * 255).round().byte().numpy()


@torch.no_grad()
def write_grid(path: Path, generator: Generator) -> None:
    """Write uncurated samples of seeds 0 to 63 as one PNG."""
    device = generator.mapping.w_avg.device
    seeds = range(GRID_SIDE**2)
    z = torch.stack([standard_normal(s, (generator.config.z_dim,)) for s in seeds]).to(device)
    images = torch.cat([generator(chunk).float() for chunk in z.split(16)])
    write_png(path, tile(images * 0.5 + 0.5, GRID_SIDE))
