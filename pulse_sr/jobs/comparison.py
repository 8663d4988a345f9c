"""One input by every method that `compare` sets side by side, and what each is measured by.

Shapes: S samples, R the prior's resolution, h w low-res, s = R / side of the low-res grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pulse_sr.images.fit import over_input
from pulse_sr.images.pixels import Pixels, to_uint8
from pulse_sr.inversion.finish import projected
from pulse_sr.inversion.observation import Observation
from pulse_sr.inversion.result import Result
from pulse_sr.jobs.store import rounded_db
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import feature_distance
from pulse_sr.report.spread import mean_image
from pulse_sr.sr.enlarging import Enlarge, bicubic
from pulse_sr.sr.losses.content import WINDOW, ssim

#: Their names are those of the files too.
METHODS = ("nearest", "bicubic", "supervised", "supervised-projected", "sample", "mean")
#: What a network or the prior made up.
SYNTHETIC = METHODS[2:]


def enlargements(result: Result, supervised: Enlarge | None) -> dict[str, Pixels]:
    """The pictures by the names of their methods, uint8 `[3, R, R]`.

    Padding of the low-res grid, of which nothing is known, is filled with the border of the
    picture but for the search, which fills it by itself.

    Args:
        result: of the search.
        supervised: enlarges by s; None: there is no network of this scale.
    """
    observation, scale = result.observation, result.scale
    low = observation.pixels
    ways = {"nearest": _nearest(scale), "bicubic": bicubic(scale)}
    if supervised is not None:
        ways["supervised"] = supervised
    found = {name: _on_grid(way(low), observation, scale) for name, way in ways.items()}
    if supervised is not None and observation.projection != "off":
        start = torch.from_numpy(found["supervised"] / 255.0)
        found["supervised-projected"] = to_uint8(projected(start, observation).numpy())
    samples = np.stack([sample.pixels for sample in result.samples_list])
    return found | {"sample": samples[0], "mean": mean_image(samples)}


def measured(pixels: Pixels, observation: Observation, truth: Pixels | None) -> dict[str, Any]:
    """The numbers of one picture.

    Args:
        pixels: uint8 `[3, R, R]`, as read back from its file.
        observation: its input.
        truth: uint8, the size of `inside`; None: not known.

    Returns:
        "lr_psnr" in dB through the operator and, with a truth, "psnr" in dB (all channels, no
        border crop), "ssim" (None for less than 11 px) and "distance" (SqueezeNet features).
    """
    lr_psnr = observation.operator.lr_psnr(torch.from_numpy(pixels / 255.0), observation.y)
    found: dict[str, Any] = {"lr_psnr": rounded_db(lr_psnr.item())}
    if truth is None:
        return found
    own = inside(pixels, observation)
    a, b = (torch.from_numpy(each[None] / 255.0) for each in (own, truth))
    large = min(own.shape[-2:]) >= WINDOW
    with torch.no_grad():
        return found | {
            "psnr": rounded_db(psnr(a, b).item()),
            "ssim": round(ssim(a, b).item(), 4) if large else None,
            "distance": round(feature_distance(a, b).item(), 4),
        }


def titles(network: str, samples: int) -> dict[str, str]:
    """What the methods are called in tables and pictures."""
    return {
        "nearest": "nearest",
        "bicubic": "bicubic",
        "supervised": f"supervised ({network})",
        "supervised-projected": "supervised, projected",
        "sample": "search, first sample",
        "mean": f"search, mean of {samples}",
    }


def inside(pixels: Pixels, observation: Observation) -> Pixels:
    """The part of `[3, R, R]` that lies over the input, not over padding."""
    part: Pixels = over_input(pixels, observation.side, observation.rows, observation.columns)
    return part


def _nearest(scale: int) -> Enlarge:
    return lambda low: low.repeat(scale, axis=1).repeat(scale, axis=2)


def _on_grid(pixels: Pixels, observation: Observation, scale: int) -> Pixels:
    ranges = (observation.rows, observation.columns)
    around = [(scale * a, scale * (observation.side - b)) for a, b in ranges]
    return np.pad(pixels, [(0, 0), *around], mode="edge")
