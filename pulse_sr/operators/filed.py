"""Operators with a JPEG file somewhere on the way: not linear, but their way back is known."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from pulse_sr.errors import UsageError
from pulse_sr.operators.base import Operator, Range
from pulse_sr.operators.masked import MaskedOperator
from pulse_sr.operators.separable import SeparableOperator


class FiledOperator(Operator):
    """Stages of which at least one is a JPEG file.

    A(x) is what the decoder returns, to the grey level; its gradient passes straight through the
    quantisation (`pulse_sr.operators.jpeg`). The adjoint and the soft projection are those of the
    linear part, all stages without the files; there is no exact projection onto a JPEG file.

    Attributes:
        stages: what happens to x in turn, without the mask.
        linear_part: all of it without the JPEG files.
        rebuild: the operator for a window of the low-res picture.
    """

    def __init__(
        self,
        stages: Sequence[Callable[[Tensor], Tensor]],
        linear_part: SeparableOperator | MaskedOperator,
        rebuild: Callable[[Range, Range], Operator],
    ) -> None:
        self.stages, self.linear_part, self.rebuild = stages, linear_part, rebuild
        self.spec, self.low = linear_part.spec, linear_part.low
        self.noise_variance = linear_part.noise_variance
        self.random_variance = linear_part.random_variance

    @property
    def gain(self) -> float:
        return self.linear_part.gain

    @property
    def known_pixels(self) -> Tensor | None:
        return self.linear_part.known_pixels

    def __call__(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        return self.linear_part.select(x) if isinstance(self.linear_part, MaskedOperator) else x

    def linear(self, x: Tensor) -> Tensor:
        return self.linear_part(x)

    def adjoint(self, y: Tensor) -> Tensor:
        return self.linear_part.adjoint(y)

    def pinv(self, y: Tensor) -> Tensor:
        self.check_exact()
        return self.linear_part.pinv(y)

    def damped_pinv(self, y: Tensor, noise_ratio: float) -> Tensor:
        return self.linear_part.damped_pinv(y, noise_ratio)

    def whiten(self, y: Tensor, noise_ratio: float) -> Tensor:
        return self.linear_part.whiten(y, noise_ratio)

    def observe(self, picture: Tensor) -> Tensor:
        return self.linear_part.observe(picture)

    def picture(self, observation: Tensor) -> Tensor:
        return self.linear_part.picture(observation)

    def window(self, rows: Range, columns: Range) -> Operator:
        return self.rebuild(rows, columns)

    def check_exact(self) -> None:
        raise UsageError(
            f"operator {self.spec!r} has a JPEG file: its picture cannot be met exactly",
            "--project soft",
        )
