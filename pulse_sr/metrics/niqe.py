"""NIQE: how far an image, or a set of images, is from natural photographs; no truth is needed.

Mittal, Soundararajan, Bovik, "Making a 'Completely Blind' Image Quality Analyzer", IEEE Signal
Processing Letters 2013. The model of natural photographs is the published one
(`weights/LICENSE.niqe`). It rewards sharp edges and texture, whether they are right or not: a score
below that of real photographs says "too sharp", not "better".

Shapes: N images, B blocks, H W size, s side of a block.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pulse_sr.metrics.convention import luma
from pulse_sr.operators.resampling import matlab_matrix

#: Side of a block at full size, in pixels: the smallest image that has a score.
BLOCK = 96

#: 18 features of a block at each of two scales.
FEATURES = 36

#: Neighbours whose products are looked at: to the right, below, and the two diagonals.
_SHIFTS = ((0, 1), (1, 0), (1, 1), (1, -1))
#: Differences of pixels of 0 to 255 from their mean that are none.
_ROUNDING = 1e-9


def niqe_features(images: Tensor) -> Tensor:
    """Natural-scene statistics of every block of 96 x 96 px of every image.

    The image is its luma (BT.601, studio range), rounded to integers, since the model was fitted to
    8-bit pictures. Blocks do not overlap and are counted from the top left: up to 95 rows below and
    columns to the right of the last ones are not seen. The second scale is half the size (MATLAB's
    `imresize`).

    Args:
        images: RGB `[N, 3, H, W]` or one image `[3, H, W]` in [0, 1], any float dtype, H and W at
            least 96.

    Returns:
        float64 `[B, 36]` on the CPU, image by image, B = N floor(H / 96) floor(W / 96). A block
        without any contrast has values that are not a number.

    Raises:
        ValueError: another shape, integers, or an image under 96 px.
    """
    x = _luma_of_whole_blocks(images)
    half = _halved(x)
    # One image at a time: the maps of all of them would need many times the memory of the images.
    rows = [
        torch.cat([_block_features(a, BLOCK), _block_features(b, BLOCK // 2)], dim=1)
        for a, b in zip(x, half, strict=True)
    ]
    return torch.cat(rows)


def niqe_of_set(features: Tensor) -> float:
    """NIQE of all blocks together, as if they were those of one picture.

    A photo of 128 px has one block and so no covariance, and no NIQE. For small images we pool the
    blocks of a whole set and take one distance. That is our convention: such a number compares with
    those of other sets of images of the same size, not with published means over single large
    images. Small sets come out too large: 4.7 for 2 photos of faces, 3.31 for 10, 3.22 for 100.

    Args:
        features: `[B, 36]` of `niqe_features`; rows with a value that is not a number are left out.

    Returns:
        0 or more, lower is nearer to natural photographs.

    Raises:
        ValueError: another shape, or fewer than two usable rows.
    """
    if features.dim() != 2 or features.shape[1] != FEATURES:
        raise ValueError(f"expected features [B, {FEATURES}], got {tuple(features.shape)}")
    rows = features.detach().cpu().double()
    rows = rows[rows.isfinite().all(dim=1)]
    if len(rows) < 2:
        raise ValueError(
            f"{len(rows)} usable blocks of {BLOCK} px in {len(features)} make no covariance: NIQE "
            "needs a larger image, or a set of them"
        )
    mean, covariance = _pristine()
    difference = rows.mean(dim=0) - mean
    pooled = (torch.cov(rows.mT) + covariance) / 2
    squared = difference @ torch.linalg.pinv(pooled, hermitian=True) @ difference
    return float(squared.clamp_min(0).sqrt())


def niqe(image: Tensor) -> float:
    """NIQE of one image, section 3 of the paper; luma as in `niqe_features`.

    Args:
        image: RGB `[3, H, W]` or `[1, 3, H, W]` in [0, 1], any float dtype, with room for two
            blocks: 96 px in one direction and 192 in the other.

    Returns:
        0 or more, lower is nearer to natural photographs.

    Raises:
        ValueError: see `niqe_features` and `niqe_of_set`; also for more than one image.
    """
    if image.dim() == 4 and len(image) != 1:
        raise ValueError(f"expected one image, got {len(image)}; niqe_of_set takes a set")
    return niqe_of_set(niqe_features(image))


@cache
def _model() -> dict[str, Tensor]:
    source = files("pulse_sr.metrics") / "weights" / "niqe_pris_params.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        return {key: torch.from_numpy(stored[key]) for key in stored.files}


def _pristine() -> tuple[Tensor, Tensor]:
    """Mean `[36]` and covariance `[36, 36]` of the features of natural photographs."""
    model = _model()
    return model["mu_pris_param"][0], model["cov_pris_param"]


def _luma_of_whole_blocks(images: Tensor) -> Tensor:
    """The part that whole blocks cover, as integers from 0 to 255: float64 [N, H, W]."""
    x = images[None] if images.dim() == 3 else images
    if x.dim() != 4 or x.shape[1] != 3 or not x.is_floating_point():
        raise ValueError(
            f"expected float images [N, 3, H, W] or [3, H, W], got {images.dtype} "
            f"{tuple(images.shape)}"
        )
    height, width = (int(side) // BLOCK * BLOCK for side in x.shape[-2:])
    if not len(x) or not height or not width:
        raise ValueError(f"NIQE needs images of {BLOCK} px or more, got {tuple(images.shape)}")
    return luma(x[..., :height, :width].detach().cpu()).round()


def _halved(x: Tensor) -> Tensor:
    """MATLAB's `imresize` by 0.5, with antialiasing: [N, H, W] to [N, H / 2, W / 2]."""
    rows, columns = (torch.from_numpy(matlab_matrix(n // 2, n)) for n in x.shape[-2:])
    return rows @ x @ columns.mT


def _normalised(image: Tensor) -> Tensor:
    """Mean-subtracted, contrast-normalised coefficients of an image [H, W] (equations 1 to 3)."""
    window = _model()["gaussian_window"][None, None]
    padded = F.pad(image[None, None], (3, 3, 3, 3), mode="replicate")
    mean = F.conv2d(padded, window)[0, 0]
    square = F.conv2d(padded.square(), window)[0, 0]
    contrast = image - mean
    # Only the sign of a value says on which side of zero it counts, so that of rounding must go.
    contrast = torch.where(contrast.abs() < _ROUNDING, 0.0, contrast)
    return contrast / ((square - mean.square()).clamp_min(0).sqrt() + 1.0)


def _block_features(image: Tensor, side: int) -> Tensor:
    """18 features of each block of an image at one scale: [H, W] to [B, 18]."""
    x = _normalised(image)
    x = x.unflatten(1, (-1, side)).unflatten(0, (-1, side)).transpose(1, 2).flatten(0, 1)
    shape, left, right = _fit_asymmetric(x)
    features = [shape, (left + right) / 2]
    for shift in _SHIFTS:
        # The neighbours of a block's last row and column are on its other side.
        shape, left, right = _fit_asymmetric(x * x.roll(shift, dims=(1, 2)))
        mean = (right - left) * _gamma_ratio(2 / shape, 1 / shape)
        features += [shape, mean, left, right]
    return torch.stack(features, dim=1)


def _fit_asymmetric(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fits an asymmetric generalised Gaussian to each block, by its moments.

    Lasmar, Stitou, Berthoumieu, "Multiscale skewed heavy tailed model for texture analysis", 2009.

    Args:
        x: `[B, s, s]`.

    Returns:
        Shape alpha and the scales beta of the left and the right side, each `[B]`.
    """
    x = x.flatten(1)
    left = _root_mean_square(x, x < 0)
    right = _root_mean_square(x, x > 0)
    ratio = left / right
    moments = x.abs().mean(dim=1).square() / x.square().mean(dim=1)
    moments = moments * (ratio**3 + 1) * (ratio + 1) / (ratio.square() + 1).square()
    shapes, borders = _shape_table()
    shape = torch.where(moments.isnan(), moments, shapes[torch.bucketize(moments, borders)])
    scale = _gamma_ratio(1 / shape, 3 / shape).sqrt()
    return shape, left * scale, right * scale


def _root_mean_square(x: Tensor, chosen: Tensor) -> Tensor:
    """Of the chosen values of each row; not a number where none is."""
    return ((x * chosen).square().sum(dim=1) / chosen.sum(dim=1)).sqrt()


@cache
def _shape_table() -> tuple[Tensor, Tensor]:
    """Shapes alpha from 0.2 to 10, and the moment ratios halfway between those of neighbours.

    The ratio E|x|^2 / E[x^2] = Gamma(2/a)^2 / (Gamma(1/a) Gamma(3/a)) grows with alpha, so the
    interval between two borders holds what is nearest to one shape.
    """
    shapes: NDArray[np.float64] = np.arange(200, 10001) / 1000
    inverse = torch.from_numpy(1 / shapes)
    ratios = _gamma_ratio(2 * inverse, inverse) * _gamma_ratio(2 * inverse, 3 * inverse)
    return torch.from_numpy(shapes), (ratios[1:] + ratios[:-1]) / 2


def _gamma_ratio(a: Tensor, b: Tensor) -> Tensor:
    """Gamma(a) / Gamma(b) for positive arguments; Gamma itself is large where alpha is small."""
    return (torch.lgamma(a) - torch.lgamma(b)).exp()
