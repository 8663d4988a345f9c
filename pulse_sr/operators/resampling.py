"""Resampling kernels as dense matrices: each convention is one way to fill the rows.

Shape legend: h low-res length, H high-res length, T taps of one row. Every builder returns float64
[h, H]; a row holds the weights with which one low-res pixel sees the high-res line and sums to 1.
Positions are pixel centres: high-res pixel j sits at j, low-res pixel i at (i + 0.5) * H / h - 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pulse_sr.errors import UsageError

Matrix = NDArray[np.float64]
Indices = NDArray[np.int64]


def resampling_matrix(kernel: str, low: int, high: int) -> Matrix:
    """Builds the matrix that resamples a line of `high` pixels to `low` pixels.

    Args:
        kernel: one of `pulse_sr.operators.spec.KERNELS`.
        low: number of output pixels.
        high: number of input pixels. `bicubic` needs an integer factor high / low of at least 2.

    Returns:
        float64 [low, high], rows sum to 1.

    Raises:
        UsageError: a size below 1, or a factor that the kernel cannot use.
    """
    if low < 1 or high < 1:
        raise UsageError(f"operator {kernel!r} got sizes {low} and {high}, expected at least 1")
    return _BUILDERS[kernel](low, high)


def bicubic_matrix(low: int, high: int) -> Matrix:
    """PULSE's `BicubicDownSample` with reflect padding (adamian98/pulse, `bicubic.py`).

    4f taps, cubic kernel a = -0.5 at (i - 2f + 0.5) / f, floor(3f/2) pixels of padding before the
    line and the rest of 3f after it. The padding reflects without repeating the edge pixel; where
    it is wider than the line it reflects again, as `numpy.pad(mode="reflect")` does.

    Raises:
        UsageError: high / low is not an integer of at least 2.
    """
    factor, rest = divmod(high, low)
    if rest or factor < 2:
        raise UsageError(
            f"operator 'bicubic' needs an integer factor of at least 2, got {high} / {low}",
            "--operator matlab",
        )
    taps = np.arange(4 * factor)
    weights = _cubic((taps - 2 * factor + 0.5) / factor)
    indices = np.arange(low)[:, None] * factor + taps - (3 * factor) // 2
    return _fill(_folded(indices, high, "reflect"), np.broadcast_to(weights, indices.shape), high)


def matlab_matrix(low: int, high: int, scale: float | None = None) -> Matrix:
    """MATLAB's `imresize(..., 'bicubic')` with antialiasing and symmetric borders.

    Args:
        low: number of output pixels.
        high: number of input pixels.
        scale: the scale handed to `imresize`; it differs from low / high (the default, and what
            MATLAB uses when given an output size) when low = ceil(high * scale) was rounded up.

    Returns:
        float64 [low, high].
    """
    scale = low / high if scale is None else scale
    shrink = min(scale, 1.0)  # antialiasing: the kernel is stretched only when the image shrinks
    centre = (np.arange(low) + 0.5) / scale - 0.5
    taps = math.ceil(4 / shrink) + 2
    left = np.floor(centre - 2 / shrink).astype(np.int64)
    indices = left[:, None] + np.arange(taps)
    weights = _cubic((centre[:, None] - indices) * shrink)
    return _fill(_folded(indices, high, "symmetric"), weights, high)


def area_matrix(low: int, high: int) -> Matrix:
    """Box mean: weight = covered share of each pixel, so any ratio of sizes is exact."""
    factor = high / low
    start = np.arange(low)[:, None] * factor
    pixel = np.arange(high)[None, :]
    covered = np.minimum(pixel + 1, start + factor) - np.maximum(pixel, start)
    covered = np.clip(covered, 0.0, None)
    return covered / covered.sum(axis=1, keepdims=True)


def gaussian_matrix(low: int, high: int, sigma: float) -> Matrix:
    """Gaussian blur, then decimation at the centres of the low-res pixels.

    The continuous Gaussian is evaluated at the distances of the high-res pixels from the centre
    (i + 0.5) * factor - 0.5, truncated at int(4 sigma + 0.5) pixels and normalised; the border
    reflects with the edge pixel repeated. For odd factors this is exactly
    `scipy.ndimage.gaussian_filter1d(x, sigma)[(factor - 1) // 2 :: factor]`.

    Args:
        low: number of output pixels.
        high: number of input pixels.
        sigma: standard deviation in high-res pixels, positive.

    Returns:
        float64 [low, high].

    Raises:
        UsageError: a sigma beyond the line.
    """
    if sigma > high:
        raise UsageError(
            f"operator 'gaussian:{sigma:g}': sigma must be at most {high}",
            "--operator gaussian:1.6",
        )
    centre = (np.arange(low) + 0.5) * high / low - 0.5
    radius = max(int(4 * sigma + 0.5), 1)
    nearest = np.rint(centre).astype(np.int64)
    indices = nearest[:, None] + np.arange(-radius - 1, radius + 2)
    distance = indices - centre[:, None]
    exponent = -0.5 * (distance / sigma) ** 2
    exponent[np.abs(distance) > radius + 1e-9] = -np.inf
    # Subtracting the largest exponent keeps a tiny sigma from underflowing to 0/0.
    weights = np.exp(exponent - exponent.max(axis=1, keepdims=True))
    return _fill(_folded(indices, high, "symmetric"), weights, high)


def pillow_matrix(
    low: int, high: int, kernel: Callable[[Matrix], Matrix], support: float
) -> Matrix:
    """Pillow's `Image.resize`: a kernel stretched when shrinking, cut at the border, normalised.

    Args:
        low: number of output pixels.
        high: number of input pixels.
        kernel: weight as a function of the distance in low-res pixels.
        support: half width of the kernel.

    Returns:
        float64 [low, high]. Pillow rounds and clips 8-bit images after each axis.
    """
    factor = high / low
    stretch = max(factor, 1.0)
    centre = (np.arange(low)[:, None] + 0.5) * factor
    pixel = np.arange(high)[None, :]
    first = np.floor(centre - support * stretch + 0.5)
    last = np.floor(centre + support * stretch + 0.5)
    weights = kernel((pixel + 0.5 - centre) / stretch)
    weights = np.where((pixel >= first) & (pixel < last), weights, 0.0)
    return weights / weights.sum(axis=1, keepdims=True)


def _cubic(x: Matrix) -> Matrix:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981)."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1.0
    far = -0.5 * x**3 + 2.5 * x**2 - 4.0 * x + 2.0
    return np.where(x <= 1.0, near, np.where(x < 2.0, far, 0.0))


def _lanczos3(x: Matrix) -> Matrix:
    return np.where(np.abs(x) < 3.0, np.sinc(x) * np.sinc(x / 3.0), 0.0)


def _box(x: Matrix) -> Matrix:
    return np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0)


def _folded(indices: Indices, length: int, mode: Literal["reflect", "symmetric"]) -> Indices:
    """Folds indices into the line as `numpy.pad` does; "symmetric" repeats the edge pixel."""
    beyond = max(0, -int(indices.min()), int(indices.max()) - length + 1)
    return np.pad(np.arange(length), beyond, mode=mode)[indices + beyond]


def _fill(indices: Indices, weights: Matrix, high: int) -> Matrix:
    """Scatters the taps [h, T] into a matrix [h, H] whose rows sum to 1."""
    matrix = np.zeros((indices.shape[0], high))
    rows = np.arange(indices.shape[0])[:, None]
    np.add.at(matrix, (rows, indices), weights / weights.sum(axis=1, keepdims=True))
    return matrix


_BUILDERS: dict[str, Callable[[int, int], Matrix]] = {
    "bicubic": bicubic_matrix,
    "matlab": matlab_matrix,
    "area": area_matrix,
    "pillow": lambda low, high: pillow_matrix(low, high, _cubic, 2.0),
    "pillow:lanczos": lambda low, high: pillow_matrix(low, high, _lanczos3, 3.0),
    "pillow:box": lambda low, high: pillow_matrix(low, high, _box, 0.5),
}
