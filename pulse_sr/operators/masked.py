"""Operators with a mask: only some pixels of the low-res picture are known.

Shape legend: H W high-res, h w low-res, C channels, K known pixels. With a separable D and the
selection P of K pixels, A = P D. Where D keeps the size, A A' is |g|^2 I (g: channel weights of
`gray`, else 1), and everything is in closed form. Else A A' = P D D' P' is a principal part of
D D', so it is no worse conditioned, and conjugate gradients solve it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pulse_sr.operators.base import Operator, Range
from pulse_sr.operators.conjugate_gradients import solve
from pulse_sr.operators.separable import LUMA_ENERGY, SeparableOperator

#: Relative residual at which the iteration ends.
_TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6}


class MaskedOperator(Operator):
    """A separable operator of which some low-res pixels are known.

    Attributes:
        full: the operator without the mask.
        known: bool [h, w], at least one of them true.
        rebuild: the operator for a window of the low-res picture.
    """

    def __init__(
        self, full: SeparableOperator, known: Tensor, rebuild: Callable[[Range, Range], Operator]
    ) -> None:
        self.full, self.known, self.rebuild = full, known, rebuild
        self.spec, self.low = full.spec, full.low
        self.noise_variance, self.random_variance = full.noise_variance, full.random_variance
        self._places: dict[torch.device, Tensor] = {}

    @property
    def gain(self) -> float:
        return float(self.full.gains[self.known].mean())

    @property
    def known_pixels(self) -> Tensor:
        return self.known

    def __call__(self, x: Tensor) -> Tensor:
        return self.select(self.full(x))

    def adjoint(self, y: Tensor) -> Tensor:
        return self.full.adjoint(self._scatter(y))

    def pinv(self, y: Tensor) -> Tensor:
        if self.full.keeps_size:
            return self.adjoint(y / self._energy)
        self.check_exact()
        return self.adjoint(solve(self._gram, y, _TOLERANCE.get(y.dtype, 1e-6)))

    def damped_pinv(self, y: Tensor, noise_ratio: float) -> Tensor:
        if self.full.keeps_size:
            return self.adjoint(y / (self._energy + noise_ratio))
        tolerance = _TOLERANCE.get(y.dtype, 1e-6)
        return self.adjoint(solve(lambda u: self._gram(u) + noise_ratio * u, y, tolerance))

    def whiten(self, y: Tensor, noise_ratio: float) -> Tensor:
        return self.select(self.full.whiten(self._scatter(y), noise_ratio))

    def observe(self, picture: Tensor) -> Tensor:
        if tuple(picture.shape[-2:]) == self.low:
            return self.select(self.full.observe(picture))
        return picture

    def picture(self, observation: Tensor) -> Tensor:
        return self.full.picture(self._scatter(observation))

    def window(self, rows: Range, columns: Range) -> Operator:
        return self.rebuild(rows, columns)

    def check_exact(self) -> None:
        self.full.check_exact()

    def select(self, low_res: Tensor) -> Tensor:
        """Takes the known pixels of [..., C, h, w]: [..., C, 1, K] in row order."""
        places = self._places_on(low_res.device)
        return low_res.flatten(-2)[..., places].unsqueeze(-2)

    def _scatter(self, y: Tensor) -> Tensor:
        """[..., C, 1, K] to [..., C, h, w], zero where nothing is known."""
        low_res = y.new_zeros(*y.shape[:-2], self.known.numel())
        places = self._places_on(y.device)
        return low_res.index_copy(-1, places, y.squeeze(-2)).unflatten(-1, self.low)

    def _gram(self, y: Tensor) -> Tensor:
        return self(self.adjoint(y))

    @property
    def _energy(self) -> float:
        return LUMA_ENERGY if self.full.gray else 1.0

    def _places_on(self, device: torch.device) -> Tensor:
        """Where the known pixels are in row order, int64 [K]; looked for once per device."""
        if device not in self._places:
            # Made inside inference mode they could never take part in a gradient afterwards.
            with torch.inference_mode(False):
                self._places[device] = self.known.flatten().nonzero().squeeze(1).to(device)
        return self._places[device]
