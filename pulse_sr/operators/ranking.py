"""Which operator turned one picture into the other? (Both are at hand; without the high-res one,
see `pulse_sr.inversion.blind.detection`.)

Shape legend: H W high-res, h w low-res. Pixels are uint8.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from pulse_sr.errors import InputError, UsageError
from pulse_sr.operators.base import psnr_of
from pulse_sr.operators.degrading import degrade_to
from pulse_sr.operators.spec import parse_operator

#: What `rank_operators` tries beside the best `gaussian:SIGMA`.
CANDIDATE_SPECS = (
    "bicubic",
    "matlab",
    "pillow",
    "pillow:lanczos",
    "area",
    "pillow:box",  # the same as area for integer factors
    "gaussian:0.8",
    "gaussian:1.6",
    "gaussian:2.4",
    "gaussian:3.2",
)

#: Of pictures that are the same.
_EQUAL_DB = 200.0
_WIDTHS = 9  # of the first, coarse search of sigma

Pixels = NDArray[np.uint8]


def rank_operators(
    high_res: Pixels, low_res: Pixels, after: Sequence[str] = ()
) -> list[tuple[str, float]]:
    """Finds which operator turns one picture into the other.

    Beside `CANDIDATE_SPECS` it tries the `gaussian:SIGMA` that fits best, to two digits after the
    point. If `low_res` is grey and `high_res` is not, every candidate ends in `gray`.

    Args:
        high_res: uint8 [3, H, W].
        low_res: uint8 [3, h, w], h <= H and w <= W.
        after: stages that are known to come after the resampling, such as `jpeg:40`.

    Returns:
        (spec, PSNR in dB of the degraded, 8-bit `high_res` against `low_res`), best first;
        identical gives inf. `bicubic` is left out where the sizes have no integer factor.

    Raises:
        InputError: `low_res` is not smaller than `high_res`.
    """
    high, low = high_res.shape[-2:], low_res.shape[-2:]
    if low[0] > high[0] or low[1] > high[1] or low == high:
        raise InputError(
            f"the LR image of {low[1]}x{low[0]} px is not smaller than the HR image of "
            f"{high[1]}x{high[0]} px",
            "pulse-sr check-op HR LR takes the larger image first",
        )
    gray = ["gray"] if _is_gray(low_res) and not _is_gray(high_res) else []

    def match(kernel: str) -> float:
        spec = parse_operator("|".join([kernel, *gray, *after]))
        made = degrade_to(high_res, spec, (low[0], low[1])).pixels
        return float(psnr_of(torch.from_numpy(made / 255.0 - low_res / 255.0).square().mean()))

    sigma = _best_sigma(match, max(high[0] / low[0], high[1] / low[1]))
    kernels = dict.fromkeys([*CANDIDATE_SPECS, f"gaussian:{sigma:g}"])
    ranking = []
    for kernel in kernels:
        try:
            ranking.append(("|".join([kernel, *gray, *after]), match(kernel)))
        except UsageError:  # this kernel cannot make these sizes
            continue
    return sorted(ranking, key=lambda row: -row[1])


def _best_sigma(match: Callable[[str], float], factor: float) -> float:
    """The width of the best `gaussian`: a coarse search of its logarithm, then Brent's method.

    Widths go from 0.1 to 0.8 pixels of the low-res picture: beyond it little is left to see.
    """

    @functools.cache
    def loss(sigma: float) -> float:
        return -min(match(f"gaussian:{sigma:g}"), _EQUAL_DB)

    least, most = math.log(max(0.1 * factor, 0.05)), math.log(0.8 * factor)
    grid = [round(math.exp(each), 2) for each in np.linspace(least, most, _WIDTHS)]
    best = min(range(_WIDTHS), key=lambda place: loss(grid[place]))
    bounds = grid[max(best - 1, 0)], grid[min(best + 1, _WIDTHS - 1)]
    found = minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.002})
    return min(grid[best], round(float(found.x), 2), key=loss)


def _is_gray(pixels: Pixels) -> bool:
    return bool((pixels == pixels[:1]).all())
