"""The degradation operator A: two small matrices, and the exact projections that follow from it.

Shape legend: S samples, C channels, H W high-res, h w low-res. With V [h, H] and U [w, W]

    A x = V x U^T          A' y = V^T y U          A+ y = V^T (V V^T)^-1 y (U U^T)^-1 U

for each channel, so the pseudo-inverse is exact. Images are in [0, 1]. The matrices are float64 and
are cast once per dtype and device.

Example:
    >>> import torch
    >>> from pulse_sr.operators import make_operator
    >>> A = make_operator("bicubic", low=8, high=32)
    >>> x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    >>> y = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    >>> bool(torch.allclose(A(A.project(x, y)), y))
    True
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_sr.errors import InputError, UsageError
from pulse_sr.resampling import resampling_matrix

#: What `rank_operators` tries.
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

# Beyond this condition number of one axis, the exact projection would amplify the 8-bit rounding of
# the input (1/255, squared over two axes) far above the range of the picture.
_WORST_CONDITION = 1e3

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Operator:
    """A separable linear degradation, applied to each channel of a batch of images.

    Attributes:
        spec: the operator as the user wrote it, for example `bicubic`.
        vertical: float64 [h, H], acts on columns of pixels.
        horizontal: float64 [w, W], acts on rows of pixels.
    """

    spec: str
    vertical: Tensor  # [h, H]
    horizontal: Tensor  # [w, W]
    _cast: dict[tuple[str, torch.dtype, torch.device], tuple[Tensor, Tensor]] = field(
        default_factory=dict, init=False, repr=False
    )

    def __call__(self, x: Tensor) -> Tensor:
        """Downscales x [..., H, W] to [..., h, w], vertically first, in x's dtype on its device."""
        vertical, horizontal = self._matrices("A", x, lambda: (self.vertical, self.horizontal))
        return vertical @ x @ horizontal.mT

    def adjoint(self, y: Tensor) -> Tensor:
        """Applies the transpose: y [..., h, w] to [..., H, W], with <A x, y> = <x, A' y>."""
        vertical, horizontal = self._matrices("A", y, lambda: (self.vertical, self.horizontal))
        return vertical.mT @ y @ horizontal

    def pinv(self, y: Tensor) -> Tensor:
        """Applies the pseudo-inverse: the smallest x [..., H, W] with A x = y [..., h, w].

        Raises:
            UsageError: the operator blurs so much that inverting it is meaningless, or does not
                shrink the image.
        """
        vertical, horizontal = self._matrices("A+", y, lambda: self._inverses)
        return vertical @ y @ horizontal.mT

    def observed(self, rows: tuple[int, int], columns: tuple[int, int]) -> Operator:
        """Restricts the operator to a window of the low-res grid; the rest stays unobserved.

        This is how padding is handled: a rectangle of the low-res grid keeps the operator
        separable, and the projection leaves alone the high-res pixels that only the padding sees.

        Args:
            rows: half-open range of low-res rows.
            columns: half-open range of low-res columns.

        Returns:
            the operator from the same high-res size to [rows, columns].

        Raises:
            UsageError: an empty range, or one outside the grid.
        """
        for name, (start, stop), size in (
            ("rows", rows, len(self.vertical)),
            ("columns", columns, len(self.horizontal)),
        ):
            if not 0 <= start < stop <= size:
                raise UsageError(f"observed {name} {start}:{stop} do not lie in 0:{size}")
        return Operator(self.spec, self.vertical[slice(*rows)], self.horizontal[slice(*columns)])

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns y - A x, [..., h, w]."""
        return y - self(x)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """Moves x [..., H, W] the least distance that makes A x = y; not clamped.

        One null-space step x + A+ (y - A x), computed in x's dtype.

        Raises:
            UsageError: see `pinv`.
        """
        return x + self.pinv(self.residual(x, y))

    def project_soft(self, x: Tensor, y: Tensor, noise_ratio: float) -> Tensor:
        """Moves x [..., H, W] towards A x = y as far as a noisy y deserves; not clamped.

        x + A' (A A' + lambda I)^-1 (y - A x), the minimum of |x' - x|^2 + |A x' - y|^2 / lambda.
        A A' is the Kronecker product of the two Gram matrices, so dividing by (the products of
        their eigenvalues + lambda) in their eigenbases is exact, also for lambda > 0.

        Args:
            x: start, [..., H, W].
            y: low-res images, [..., h, w].
            noise_ratio: lambda = noise variance / signal variance, positive.

        Raises:
            UsageError: lambda is not positive.
        """
        if not (noise_ratio > 0 and math.isfinite(noise_ratio)):
            raise UsageError(f"noise_ratio must be a positive number, got {noise_ratio}")
        basis_v, basis_h = self._matrices("basis", x, lambda: (self._gram_v[1], self._gram_h[1]))
        values_v, values_h = self._matrices("values", x, lambda: (self._gram_v[0], self._gram_h[0]))
        coefficients = basis_v.mT @ self.residual(x, y) @ basis_h
        coefficients = coefficients / (values_v[:, None] * values_h + noise_ratio)
        return x + self.adjoint(basis_v @ coefficients @ basis_h.mT)

    def lr_psnr(self, x: Tensor, y: Tensor) -> Tensor:
        """PSNR of A x against y in dB, float64, one value per sample.

        Peak 1.0, all channels, no border crop, not rounded or clamped; identical images give inf.
        Samples are computed one by one, so a value never depends on the rest of the batch.

        Args:
            x: high-res images [S, C, H, W] (or one image [C, H, W]) in [0, 1].
            y: low-res images [S, C, h, w], or one [C, h, w] for all samples.

        Returns:
            float64 [S] (or a scalar).
        """
        if x.dim() == 3:
            return _psnr(self.residual(x.double(), y.double()))
        y = y.expand(len(x), *y.shape[-3:])
        return torch.stack([self.lr_psnr(one, target) for one, target in zip(x, y, strict=True)])

    @cached_property
    def _inverses(self) -> tuple[Tensor, Tensor]:
        return self._pseudo_inverse(self.vertical), self._pseudo_inverse(self.horizontal)

    @cached_property
    def _gram_v(self) -> tuple[Tensor, Tensor]:
        return _eigen(self.vertical)

    @cached_property
    def _gram_h(self) -> tuple[Tensor, Tensor]:
        return _eigen(self.horizontal)

    def _pseudo_inverse(self, matrix: Tensor) -> Tensor:
        """A^T (A A^T)^-1 by Cholesky, float64 [H, h]."""
        condition = float(torch.linalg.cond(matrix))
        if matrix.shape[0] > matrix.shape[1] or condition > _WORST_CONDITION:
            raise UsageError(
                f"operator {self.spec!r} from {matrix.shape[1]} to {matrix.shape[0]} px cannot be "
                f"inverted (condition number {condition:.3g}, limit {_WORST_CONDITION:.0e})",
                "--project soft",
            )
        factor = torch.linalg.cholesky(matrix @ matrix.mT)
        return torch.cholesky_solve(matrix, factor).mT

    def _matrices(
        self, name: str, like: Tensor, build: Callable[[], tuple[Tensor, Tensor]]
    ) -> tuple[Tensor, Tensor]:
        """A pair of float64 matrices in the dtype and on the device of `like`, cast once."""
        if not like.is_floating_point():
            raise TypeError(f"the operator takes floating-point images, got {like.dtype}")
        key = (name, like.dtype, like.device)
        if key not in self._cast:
            # A cast made inside inference mode could never take part in a gradient afterwards.
            with torch.inference_mode(False), torch.no_grad():
                first, second = build()
                self._cast[key] = (first.to(like), second.to(like))
        return self._cast[key]


def make_operator(spec: str, low: int, high: int) -> Operator:
    """Builds the operator from square `high` px images to square `low` px images.

    Args:
        spec: one of `pulse_sr.resampling.KNOWN_SPECS`, for example `bicubic` or `gaussian:1.6`.
        low: low-res side in pixels.
        high: high-res side in pixels.

    Raises:
        UsageError: unknown spec (the message lists the known ones) or impossible sizes.
    """
    return rectangular_operator(spec, (low, low), (high, high))


def rectangular_operator(spec: str, low: tuple[int, int], high: tuple[int, int]) -> Operator:
    """The same for images that are not square; sizes are (height, width).

    Raises:
        UsageError: see `make_operator`.
    """
    with torch.inference_mode(False):
        vertical, horizontal = (
            torch.from_numpy(resampling_matrix(spec, small, large))
            for small, large in zip(low, high, strict=True)
        )
    return Operator(spec, vertical, horizontal)


def project_to_floor(
    operator: Operator, x: Tensor, y: Tensor, passes: int = 10, target_db: float = 58.9
) -> Tensor:
    """Repaints images until their 8-bit files downscale to y; each sample on its own.

    Every pass projects exactly and clamps to [0, 1]. Plain repetition creeps where much is clamped,
    so the passes carry Nesterov momentum (Beck and Teboulle, FISTA, 2009: the pass is a gradient
    step in the metric of A+, the clamp its proximal step). The image is rounded to 8 bits after
    every pass; the best rounded one is kept, and a sample ends as soon as it reaches the target.
    Samples are computed one by one in float64: their bits do not depend on the batch.

    Measured on 24 faces of 128 px at 10 passes, minimum over faces, with the starts: the truth
    blurred plus noise (25 dB), another person's face, flat grey, bicubic upscaling, white noise.
    Without momentum the same minima are 50 to 54 dB.

        scale                        2      4      8     16
        bicubic                    64.3   61.9   60.9   57.1   dB (no early stop)
        ends at (8-bit rounding)   66.6   72.5   78.3   84     dB

    Other operators are alike, except Gaussians that blur a lot or hardly at all for their scale:
    53 dB at least (`gaussian:1.6` from the 25-dB start, scales 2 and 8).

    Args:
        operator: A.
        x: start images [S, C, H, W] in [0, 1], any float dtype.
        y: low-res images [S, C, h, w] or one [C, h, w] for all, in [0, 1].
        passes: most passes; 0 only rounds.
        target_db: `Operator.lr_psnr` of the rounded image at which a sample is done. 58.9 dB is the
            rounding noise of an 8-bit low-res image.

    Returns:
        float64 [S, C, H, W], multiples of 1/255: `(result * 255).round()` are the bytes.

    Raises:
        UsageError: see `Operator.pinv`.
    """
    targets = y.double().expand(len(x), *y.shape[-3:])
    return torch.stack(
        [
            _project_one(operator, start, target, passes, target_db)
            for start, target in zip(x.double(), targets, strict=True)
        ]
    )


def _project_one(
    operator: Operator, x: Tensor, y: Tensor, passes: int, target_db: float
) -> Tensor:  # [C, H, W]
    best = _round(x)
    best_db = float(operator.lr_psnr(best, y))
    ahead, momentum = x, 1.0  # the point beyond x that momentum leads to
    for _ in range(passes):
        if best_db >= target_db:
            break
        previous, x = x, operator.project(ahead, y).clamp(0.0, 1.0)
        following = (1.0 + math.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = x + (momentum - 1.0) / following * (x - previous)
        momentum = following
        rounded = _round(x)
        db = float(operator.lr_psnr(rounded, y))
        if db > best_db:
            best, best_db = rounded, db
    return best


def rank_operators(high_res: Pixels, low_res: Pixels) -> list[tuple[str, float]]:
    """Finds which operator turns one picture into the other.

    Args:
        high_res: uint8 [3, H, W].
        low_res: uint8 [3, h, w], h <= H and w <= W.

    Returns:
        (spec, PSNR in dB of the downscaled, 8-bit `high_res` against `low_res`), best first;
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
    target = torch.from_numpy(low_res / 255.0)
    ranking = []
    for spec in CANDIDATE_SPECS:
        try:
            made = _degrade_to(high_res, spec, (low[0], low[1]))
        except UsageError:  # this operator cannot make these sizes
            continue
        ranking.append((spec, float(_psnr(torch.from_numpy(made / 255.0) - target))))
    return sorted(ranking, key=lambda row: -row[1])


def degrade(pixels: Pixels, spec: str, scale: int) -> Pixels:
    """Makes a low-res image: the operator in float64, clipped and rounded (half to even) to 8 bits.

    Args:
        pixels: uint8 [3, H, W].
        spec: see `make_operator`.
        scale: integer factor that divides H and W.

    Returns:
        uint8 [3, H / scale, W / scale].

    Raises:
        InputError: the scale does not divide the size.
        UsageError: unknown spec.
    """
    height, width = pixels.shape[-2:]
    if scale < 1 or height % scale or width % scale:
        raise InputError(
            f"the image of {width}x{height} px cannot be divided by the scale {scale}",
            f"crop it to {width // max(scale, 1) * scale}x{height // max(scale, 1) * scale}",
        )
    return _degrade_to(pixels, spec, (height // scale, width // scale))


def _degrade_to(pixels: Pixels, spec: str, low: tuple[int, int]) -> Pixels:
    operator = rectangular_operator(spec, low, (pixels.shape[-2], pixels.shape[-1]))
    y = operator(torch.from_numpy(pixels / 255.0))
    return (y.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()


def _psnr(difference: Tensor) -> Tensor:
    return -10.0 * torch.log10(difference.square().mean())


def _round(x: Tensor) -> Tensor:
    """The image as an 8-bit file holds it: multiples of 1/255, half to even."""
    return (x.clamp(0.0, 1.0) * 255.0).round() / 255.0


def _eigen(matrix: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    return values.clamp_min(0.0), vectors
