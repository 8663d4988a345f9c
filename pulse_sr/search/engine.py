"""The one loop that every search method runs in.

A method holds the variables of S samples and says what image they stand for, what that costs, at
which rate each variable moves and where it must stay. The loop does the rest: gradients, Adam, the
best iterate of each sample, and freezing at the target.

Shapes: S samples, H W high-res, h w low-res.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from pulse_sr.operators import Operator
from pulse_sr.search.losses import mean_square, psnr


class Method(Protocol):
    """What a search method is to the loop."""

    steps: int

    def variables(self) -> Sequence[torch.Tensor]:
        """Leaf tensors `[S, ...]` that the search moves."""

    def rates(self, step: int) -> Sequence[float]:
        """Learning rate of each variable in this step; 0 leaves it where it is."""

    def image(self, step: int) -> torch.Tensor:
        """High-res images `[S, 3, H, W]`, natural range [0, 1], differentiable."""

    def loss(self, mse: torch.Tensor) -> torch.Tensor:
        """Loss `[S]` of the last image, given its low-res error `[S]`."""

    def constrain(self, step: int) -> None:
        """Put the variables back where they must stay, after the update of `step`."""


@dataclass(frozen=True)
class SearchStep:
    """What one step found, before its update; tensors are `[S]`."""

    step: int
    loss: torch.Tensor
    mse: torch.Tensor
    best_db: torch.Tensor
    frozen: torch.Tensor


class Best:
    """The best iterate of each sample, judged as written: clamped to [0, 1].

    Attributes:
        images: `[S, 3, H, W]` float32 in [0, 1].
        mse: low-res error of `images`, `[S]`.
        step: in which step each was found, `[S]`.
        frozen: whether the target was reached, `[S]`; a frozen sample never changes again.
    """

    def __init__(self, target_mse: float) -> None:
        self.target_mse = target_mse
        self.images = torch.empty(0)
        self.mse = torch.empty(0)
        self.step = torch.empty(0)
        self.frozen = torch.empty(0)

    def update(self, images: torch.Tensor, mse: torch.Tensor, step: int) -> None:
        """Take over the samples that came closer to the input than ever before."""
        if step == 0:
            self.images = torch.zeros_like(images)
            self.mse = torch.full_like(mse, torch.inf)
            self.step = torch.zeros_like(mse, dtype=torch.long)
            self.frozen = torch.zeros_like(mse, dtype=torch.bool)
        better = (mse < self.mse) & ~self.frozen
        self.images[better] = images[better]
        self.mse = torch.where(better, mse, self.mse)
        self.step = torch.where(better, step, self.step)
        self.frozen = self.frozen | (self.mse <= self.target_mse)


class Last(Best):
    """The last iterate of each sample, whatever came before: the original PULSE's choice."""

    def __init__(self) -> None:
        super().__init__(target_mse=0.0)

    def update(self, images: torch.Tensor, mse: torch.Tensor, step: int) -> None:
        """Take over every sample."""
        self.images, self.mse = images, mse
        self.step = torch.full_like(mse, step, dtype=torch.long)
        self.frozen = torch.zeros_like(mse, dtype=torch.bool)


def search(
    method: Method,
    operator: Operator,
    target: torch.Tensor,
    best: Best,
    wanted: torch.Tensor | None = None,
) -> Iterator[SearchStep]:
    """Run a method, yielding one record per step; `best` holds the result at any time.

    Args:
        method: the variables of S samples.
        operator: from high-res to low-res.
        target: low-res input `[1, 3, h, w]` in [0, 1].
        best: filled here.
        wanted: which samples count for stopping early, bool `[S]`; None: all.
    """
    variables = list(method.variables())
    adam = torch.optim.Adam([{"params": [v], "lr": 0.0} for v in variables])
    for step in range(method.steps):
        image = method.image(step)
        mse = mean_square(operator(image), target)
        loss = method.loss(mse)
        with torch.no_grad():
            clamped = image.clamp(0, 1)
            best.update(clamped, mean_square(operator(clamped), target), step)
        done = best.frozen if wanted is None else best.frozen | ~wanted
        yield SearchStep(step, loss.detach(), mse.detach(), psnr(best.mse), best.frozen)
        if bool(done.all()):
            return
        _update(adam, variables, loss, method.rates(step))
        with torch.no_grad():
            method.constrain(step)


def _update(
    adam: torch.optim.Adam,
    variables: list[torch.Tensor],
    loss: torch.Tensor,
    rates: Sequence[float],
) -> None:
    moving = [v for v, rate in zip(variables, rates, strict=True) if rate > 0]
    gradients = iter(torch.autograd.grad(loss.sum(), moving))
    for group, variable, rate in zip(adam.param_groups, variables, rates, strict=True):
        group["lr"] = rate
        variable.grad = next(gradients) if rate > 0 else None
    adam.step()
