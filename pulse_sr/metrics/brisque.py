"""BRISQUE: how distorted an image looks; no truth is needed.

Mittal, Moorthy, Bovik, "No-Reference Image Quality Assessment in the Spatial Domain", IEEE TIP
2012. Features and model are those of the package `brisque` (`weights/LICENSE.brisque`), which other
implementations do not agree with, nor with each other: grey by Rec. 709 weights, images in [0, 1],
zeros outside the image, the second scale by OpenCV's cubic interpolation without antialiasing.

Where an image is flat, only rounding says on which side of zero a coefficient counts: the sums here
are in the order of that package, so that the numbers are the same there too.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.signal import convolve2d
from scipy.special import gamma
from torch import Tensor

Array = NDArray[np.float64]

#: 18 features at each of two scales.
FEATURES = 36
#: Side of the smallest image.
LEAST_SIDE = 16

_GREY = (0.2125, 0.7154, 0.0721)
_SIDE, _SIGMA = 7, 7 / 6
_CONTRAST = 1 / 255
#: Shapes that a fit can have.
_SHAPES = (0.05, 100.0)


def brisque(image: Tensor) -> float:
    """BRISQUE of one image.

    Args:
        image: RGB `[3, H, W]` in [0, 1], any float dtype, H and W at least 16; it is rounded to 8
            bits.

    Returns:
        About 0 (as a photograph) to 100 (distorted); it may be below or above.

    Raises:
        ValueError: another shape, integers, an image under 16 px, or one without contrast.
    """
    model = _model()
    scaled = 2 * (brisque_features(image) - model["least"]) / (model["most"] - model["least"]) - 1
    distances = ((model["vectors"] - scaled) ** 2).sum(axis=1)
    return float(model["weights"] @ np.exp(-model["gamma"] * distances) - model["offset"])


def brisque_features(image: Tensor) -> Array:
    """Natural-scene statistics `[36]` of one image, section III of the paper; see `brisque`."""
    if image.dim() != 3 or len(image) != 3 or not image.is_floating_point():
        raise ValueError(
            f"expected a float image [3, H, W], got {image.dtype} {tuple(image.shape)}"
        )
    if min(image.shape[1:]) < LEAST_SIDE:
        raise ValueError(f"BRISQUE needs {LEAST_SIDE} px or more, got {tuple(image.shape)}")
    levels = np.rint(255.0 * image.detach().cpu().double().numpy())
    grey = (levels * (1 / 255)).transpose(1, 2, 0) @ np.array(_GREY)
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_CUBIC)
    return np.array(_features(grey) + _features(half))


@cache
def _model() -> dict[str, Array]:
    source = files("pulse_sr.metrics") / "weights" / "brisque_svr.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return {key: stored[key].astype(np.float64) for key in stored.files}


def _features(grey: Array) -> list[float]:
    """The 18 features of one scale."""
    x = _normalised(grey)
    shape, _, left, right = _fit_asymmetric(x)
    features = [shape, (left**2 + right**2) / 2]
    for neighbours in (
        x[:, :-1] * x[:, 1:],
        x[:-1] * x[1:],
        x[:-1, :-1] * x[1:, 1:],
        x[1:, :-1] * x[:-1, 1:],
    ):
        shape, mean, left, right = _fit_asymmetric(neighbours)
        features += [shape, mean, left**2, right**2]
    return features


def _normalised(grey: Array) -> Array:
    """Mean-subtracted, contrast-normalised coefficients (equations 1 to 3)."""
    y, x = np.indices((_SIDE, _SIDE)) - _SIDE // 2
    window = 1 / (2 * np.pi * _SIGMA**2) * np.exp(-(x**2 + y**2) / (2 * _SIGMA**2))
    window /= window.sum()
    mean = convolve2d(grey, window, "same")
    deviation = np.sqrt(np.abs(mean**2 - convolve2d(grey**2, window, "same")))
    found: Array = (grey - mean) / (deviation + _CONTRAST)
    return found


def _fit_asymmetric(x: Array) -> tuple[float, float, float, float]:
    """Shape, mean, and root mean square of the left and the right side (equations 4 to 11)."""
    negative = x < 0
    if negative.all() or not negative.any() or not x.any():
        raise ValueError("BRISQUE is not defined for an image without contrast")
    left, right = np.sqrt(np.mean(x[negative] ** 2)), np.sqrt(np.mean(x[~negative] ** 2))
    moments = np.mean(np.abs(x)) ** 2 / np.mean(x**2)
    moments *= (left**3 + right**3) * (left + right) / (left**2 + right**2) ** 2
    shape = _shape_of(float(moments))
    mean = (right - left) * gamma(2 / shape) / np.sqrt(gamma(1 / shape) * gamma(3 / shape))
    return shape, float(mean), float(left), float(right)


def _shape_of(moments: float) -> float:
    """The shape whose ratio E|x|^2 / E[x^2] is `moments`, as far as there is one."""

    def ratio(shape: float) -> float:
        return float(gamma(2 / shape) ** 2 / (gamma(1 / shape) * gamma(3 / shape)))

    low, high = _SHAPES
    if not ratio(low) < moments < ratio(high):
        raise ValueError("BRISQUE is not defined for an image with so little contrast")
    return float(brentq(lambda shape: ratio(shape) - moments, low, high, xtol=1e-10))
