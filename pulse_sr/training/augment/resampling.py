"""Reads images at places between their pixels, without aliasing and differentiable to any order.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, appendix
B: up-sampling by two, a bilinear sample, down-sampling by two, with the orthogonal filter sym6. Up
and down-sampling alone give back the image, exactly from three pixels inside the border.

Beyond its border an image goes on mirrored, without end. The mirror is in the bilinear sample, not
in a padded copy of the image: no transform reaches further than it goes, it costs no memory, and
what an image reads does not depend on the other images.

Shapes: N images, C channels, H W size (h, w up-sampled: 2 H - 1, 2 W - 1; the samples lie on the
pixels and half-way between), R a side; K = 12 taps.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_ops.products import sandwich

#: The low-pass filter of the least asymmetric wavelet with six vanishing moments (Daubechies, "Ten
#: Lectures on Wavelets", 1992, table 6.3); orthogonal to its even shifts, norm 1, sum sqrt(2).
SYM6 = (
    0.015404109327027373,
    0.0034907120842174702,
    -0.11799011114819057,
    -0.048311742585633,
    0.4910559419267466,
    0.787641141030194,
    0.3379294217276218,
    -0.07263752278646252,
    -0.021060292512300564,
    0.04472490177066578,
    0.0017677118642428036,
    -0.007800708325034148,
)
#: The tap next to the filter's centre of mass (5.098): with it as the origin, filtering moves
#: the image by a tenth of an up-sampled pixel only.
CENTRE = 5

# Interpolation and padding modes of the ATen operator.
_BILINEAR, _REFLECTION = 0, 2


def mirror(index: Tensor, side: int) -> Tensor:
    """Fold any indices into an image of `side` pixels, mirrored about its border pixels."""
    period = 2 * (side - 1)
    index = index % period
    return torch.minimum(index, period - index)


def _taps(like: Tensor) -> Tensor:
    return torch.tensor(SYM6, dtype=like.dtype, device=like.device)


def upsampling(side: int, like: Tensor) -> Tensor:
    """The matrix that up-samples a line of a mirrored image, `[2 R - 1, R]`, dtype of `like`."""
    taps = _taps(like)
    reach = len(taps) // 2
    pixel = torch.arange(-reach, side + reach, device=like.device)[:, None]
    # Pixel i adds tap k to the up-sampled place 2 i + k - CENTRE.
    place = 2 * pixel + torch.arange(len(taps), device=like.device) - CENTRE
    before = 2 * reach + CENTRE  # places above the image, cut off at the end
    matrix = like.new_zeros(2 * side + 4 * reach + len(taps), side)
    where = (place + before, mirror(pixel, side).expand_as(place))
    matrix.index_put_(where, (2**0.5 * taps).expand_as(place), accumulate=True)
    return matrix[before : before + 2 * side - 1]


def downsampling(side: int, like: Tensor) -> Tensor:
    """The matrix that down-samples a line of `output_places`, `[R, 2 R - 2 + K]`."""
    taps = _taps(like)
    matrix = like.new_zeros(side, 2 * side - 2 + len(taps))
    # Pixel i is made of the places 2 i + k - CENTRE, the adjoint of the up-sampling.
    rows = torch.arange(side, device=like.device)[:, None]
    matrix[rows, 2 * rows + torch.arange(len(taps), device=like.device)] = taps / 2**0.5
    return matrix


def output_places(side: int, like: Tensor) -> Tensor:
    """Where `downsampling` takes its samples, in pixels from the centre, `[2 R - 2 + K]`."""
    places = torch.arange(2 * side - 2 + len(SYM6), dtype=like.dtype, device=like.device)
    return (places - CENTRE - (side - 1)) / 2


def sampling_grid(inverse: Tensor, size: tuple[int, int], like: Tensor) -> Tensor:
    """The places that the outputs read, as `grid_sample` takes them.

    Args:
        inverse: `[N, 3, 3]`, output to input coordinates in pixels from the centre.
        size: H, W.
        like: gives dtype and device.

    Returns:
        `[N, 2 H - 2 + K, 2 W - 2 + K, 2]`; -1 and 1 are the centres of the border pixels.
    """
    height, width = size
    y, x = output_places(height, like), output_places(width, like)
    half = inverse.new_tensor([(width - 1) / 2, (height - 1) / 2])[:, None]
    m = (inverse[:, :2] / half).to(like.dtype)[..., None, None]
    # Plain sums and products: a matrix product may run in TensorFloat-32, too coarse for places.
    grid = like.new_empty(len(inverse), len(y), len(x), 2)
    for axis in range(2):
        across = m[:, axis, 0] * x
        down = m[:, axis, 1] * y[:, None] + m[:, axis, 2]
        torch.add(across, down, out=grid[..., axis])
    return grid


class BilinearSample(torch.autograd.Function):
    """`grid_sample` of a mirrored image, with derivatives of any order in the image.

    PyTorch's own has no second derivative. The sample is linear in the image, so its derivative is
    the adjoint, and the derivative of the adjoint is the sample. None with respect to the grid.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.shape = x.shape
        return F.grid_sample(x, grid, "bilinear", "reflection", align_corners=True)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (grid,) = ctx.saved_tensors
        return BilinearAdjoint.apply(dy, grid, ctx.shape), None


class BilinearAdjoint(torch.autograd.Function):
    """Adds each sample back to the four pixels it was read from, with the same weights."""

    @staticmethod
    def forward(ctx: Any, dy: Tensor, grid: Tensor, shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        # The image itself only matters for the derivative in the grid, which is masked out.
        modes = (_BILINEAR, _REFLECTION, True, [True, False])
        dx: Tensor = torch.ops.aten.grid_sampler_2d_backward(dy, dy.new_empty(shape), grid, *modes)[
            0
        ]
        return dx

    @staticmethod
    def backward(ctx: Any, ddx: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (grid,) = ctx.saved_tensors
        return BilinearSample.apply(ddx, grid), None, None


def warp(x: Tensor, inverse: Tensor) -> Tensor:
    """Read each image through its matrix.

    Args:
        x: images `[N, C, H, W]`, sides of at least 2.
        inverse: `[N, 3, 3]` float64: where the output pixel at (x, y, 1), in pixels from the
            centre, reads the input.

    Returns:
        `[N, C, H, W]`.
    """
    height, width = x.shape[2:]
    grid = sampling_grid(inverse, (height, width), x)
    fine = sandwich(upsampling(height, x), x, upsampling(width, x).mT)
    moved: Tensor = BilinearSample.apply(fine, grid)
    return sandwich(downsampling(height, x), moved, downsampling(width, x).mT)
