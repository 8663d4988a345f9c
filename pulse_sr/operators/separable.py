"""Separable operators: two small matrices, and the exact projections that follow from them.

Shape legend: H W high-res, h w low-res, C channels. With V [h, H] and U [w, W]

    A x = V x U^T          A' y = V^T y U          A+ y = V^T (V V^T)^-1 y (U U^T)^-1 U

for each channel, so the pseudo-inverse is exact. Resampling of every convention and blur are such
pairs, and so is any chain of them: the matrices multiply. `gray` is a third factor, one row g of
three channel weights: g A x, g' A' y and A+ y g' / |g|^2. The matrices are float64 and are cast
once per dtype and device: a copy from the host in every call would keep an operator out of CUDA
graphs (docs/search.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache, cached_property

import torch
from torch import Tensor

from pulse_sr.errors import UsageError
from pulse_sr.operators.base import Operator, Range, Size
from stylegan_ops.products import sandwich

#: Luma of ITU-R BT.601, as JPEG files and Pillow's grey images have it.
LUMA = (0.299, 0.587, 0.114)
LUMA_ENERGY = sum(weight**2 for weight in LUMA)

# Beyond this condition number of one axis, the exact projection would amplify the 8-bit rounding of
# the input (1/255, squared over two axes) far above the range of the picture.
_WORST_CONDITION = 1e3

_Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class SeparableOperator(Operator):
    """A separable linear degradation, applied to each channel of a batch of images.

    Attributes:
        spec, noise_variance, random_variance: see `Operator`.
        vertical: float64 [h, H], acts on columns of pixels.
        horizontal: float64 [w, W], acts on rows of pixels.
        gray: whether the three channels become their luma.
        rebuild: the operator for a window of the low-res picture; None takes rows of the matrices.
    """

    spec: str
    vertical: Tensor  # [h, H]
    horizontal: Tensor  # [w, W]
    gray: bool = False
    noise_variance: float = 0.0
    random_variance: float = 0.0
    rebuild: Callable[[Range, Range], Operator] | None = None
    _cast: dict[tuple[str, torch.dtype, torch.device], _Pair] = field(
        default_factory=dict, init=False, repr=False
    )

    @property
    def low(self) -> Size:  # type: ignore[override]
        return len(self.vertical), len(self.horizontal)

    def __call__(self, x: Tensor) -> Tensor:
        """Downscales x [..., C, H, W] to [..., C, h, w], vertically first."""
        _check_floating(x)
        if self.gray:
            x = luma_of(x)
        if self.keeps_size:
            return x
        vertical, horizontal = self._matrices("A", x, lambda: (self.vertical, self.horizontal))
        return sandwich(vertical, x, horizontal.mT)

    def adjoint(self, y: Tensor) -> Tensor:
        _check_floating(y)
        if not self.keeps_size:
            vertical, horizontal = self._matrices("A", y, lambda: (self.vertical, self.horizontal))
            y = sandwich(vertical.mT, y, horizontal)
        return y * _weights(y.dtype, y.device) if self.gray else y

    def pinv(self, y: Tensor) -> Tensor:
        _check_floating(y)
        if not self.keeps_size:
            vertical, horizontal = self._matrices("A+", y, lambda: self._inverses)
            y = sandwich(vertical, y, horizontal.mT)
        return y * (_weights(y.dtype, y.device) / LUMA_ENERGY) if self.gray else y

    def damped_pinv(self, y: Tensor, noise_ratio: float) -> Tensor:
        """A A' is the Kronecker product of the Gram matrices of the factors: dividing by (the
        products of their eigenvalues + lambda) in their eigenbases is exact.
        """
        if self.keeps_size:
            return self.adjoint(y / (self._energy + noise_ratio))
        return self.adjoint(self._rescaled(y, lambda values: 1 / (values + noise_ratio)))

    def whiten(self, y: Tensor, noise_ratio: float) -> Tensor:
        if self.keeps_size:
            return y

        def white(values: Tensor) -> Tensor:
            weights = (values + noise_ratio).rsqrt()
            return weights / weights.square().mean().sqrt()

        return self._rescaled(y, white)

    def observe(self, picture: Tensor) -> Tensor:
        return luma_of(picture) if self.gray and picture.shape[-3] == 3 else picture

    def picture(self, observation: Tensor) -> Tensor:
        return observation.expand(*observation.shape[:-3], 3, *observation.shape[-2:])

    def window(self, rows: Range, columns: Range) -> Operator:
        if self.rebuild is not None:
            return self.rebuild(rows, columns)
        vertical, horizontal = self.vertical[slice(*rows)], self.horizontal[slice(*columns)]
        return replace(self, vertical=vertical, horizontal=horizontal)

    def check_exact(self) -> None:
        if not self.keeps_size:
            _ = self._inverses

    @property
    def gain(self) -> float:
        return float(self.gains.mean())

    @property
    def gains(self) -> Tensor:
        """The diagonal of A A', float64 [h, w]."""
        rows, columns = (m.square().sum(dim=1) for m in (self.vertical, self.horizontal))
        return rows[:, None] * columns * self._energy

    @cached_property
    def keeps_size(self) -> bool:
        """Whether the pixels stay where they are (`gray` alone): no product is needed."""
        return all(
            matrix.shape[0] == matrix.shape[1] and bool((matrix == torch.eye(len(matrix))).all())
            for matrix in (self.vertical, self.horizontal)
        )

    @property
    def _energy(self) -> float:
        return LUMA_ENERGY if self.gray else 1.0

    def _rescaled(self, y: Tensor, factors: Callable[[Tensor], Tensor]) -> Tensor:
        """y with its components along the eigenvectors of A A' times a function of the values."""
        basis_v, basis_h = self._matrices("basis", y, lambda: (self._gram_v[1], self._gram_h[1]))
        values_v, values_h = self._matrices("values", y, lambda: (self._gram_v[0], self._gram_h[0]))
        values = values_v[:, None] * values_h * self._energy
        components = sandwich(basis_v.mT, y, basis_h) * factors(values)
        return sandwich(basis_v, components, basis_h.mT)

    @cached_property
    def _inverses(self) -> _Pair:
        return self._pseudo_inverse(self.vertical), self._pseudo_inverse(self.horizontal)

    @cached_property
    def _gram_v(self) -> _Pair:
        return _eigen(self.vertical)

    @cached_property
    def _gram_h(self) -> _Pair:
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

    def _matrices(self, name: str, like: Tensor, build: Callable[[], _Pair]) -> _Pair:
        """A pair of float64 matrices in the dtype and on the device of `like`, cast once."""
        key = (name, like.dtype, like.device)
        if key not in self._cast:
            # A cast made inside inference mode could never take part in a gradient afterwards.
            with torch.inference_mode(False), torch.no_grad():
                first, second = build()
                self._cast[key] = (first.to(like), second.to(like))
        return self._cast[key]


@cache
def _weights(dtype: torch.dtype, device: torch.device) -> Tensor:
    """Of the channels in luma, [3, 1, 1]."""
    with torch.inference_mode(False):  # as in `_matrices`
        return torch.tensor(LUMA, dtype=dtype, device=device)[:, None, None]


def luma_of(x: Tensor) -> Tensor:
    """[..., 3, H, W] to [..., 1, H, W]."""
    return (x * _weights(x.dtype, x.device)).sum(dim=-3, keepdim=True)


def _check_floating(x: Tensor) -> None:
    if not x.is_floating_point():
        raise TypeError(f"the operator takes floating-point images, got {x.dtype}")


def _eigen(matrix: Tensor) -> _Pair:
    values, vectors = torch.linalg.eigh(matrix @ matrix.mT)
    return values.clamp_min(0.0), vectors
