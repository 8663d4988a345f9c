"""What a search method is, and one step of it: look at the images, keep the best, move.

A method holds the variables of S slots, a sample in each, and says what image they stand for, what
that costs, at which rate each variable moves and where it must stay. The rest is the same for all:
gradients, Adam, the best iterate of each sample. `search` runs samples that start and end
together; `pulse_sr.search.stream` hands the slots on.

Shapes: S slots, H W high-res, h w low-res, C channels of the observation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch

from pulse_sr.operators import Operator
from pulse_sr.search.adam import SlotAdam
from pulse_sr.search.losses import mean_square, psnr


@dataclass(frozen=True, eq=False)
class Start:
    """What a sample begins with.

    Attributes:
        generator: its own CPU generator, for everything random about it.
        target: what is known of the low-res input, `[1, C, h, w]`.
        candidates: latents to start from the best of, `[K, D]`; None: the method draws its own.
    """

    generator: torch.Generator
    target: torch.Tensor
    candidates: torch.Tensor | None = None


@dataclass(frozen=True, eq=False)
class Chain:
    """What a sampler says of a chain at its end.

    Attributes:
        trace: `[T, K]` on the CPU, of each of its last steps what diagnostics look at: the low-res
            error in units of the input's noise, then K - 1 coordinates of the latent.
        sigma: the noise, in units of [0, 1], that its last image is a sample for.
    """

    trace: torch.Tensor
    sigma: float


class Method(Protocol):
    """What a search method is to the loop.

    A slot must not feel the others. `steps_taken` says how many updates the sample in each slot
    has had; of an idle slot it says nothing.
    """

    steps: int

    def variables(self) -> Sequence[torch.Tensor]:
        """Leaf tensors `[S, ...]` that the search moves, always the same ones."""

    def start(self, slots: Sequence[int], starts: Sequence[Start]) -> None:
        """Put new samples into some slots: nothing of what was there may stay."""

    def image(self, steps_taken: Sequence[int]) -> torch.Tensor:
        """High-res images `[S, 3, H, W]`, natural range [0, 1], differentiable."""

    def loss(self, mse: torch.Tensor) -> torch.Tensor:
        """Loss `[S]` of the last image, given its low-res error `[S]`."""


@runtime_checkable
class Descent(Method, Protocol):
    """A method that goes down its loss by Adam; the best iterate of a sample counts."""

    def rates(self, step: int) -> Sequence[float]:
        """Learning rate of each variable in this step of a sample; 0 leaves it where it is."""

    def constrain(self, steps_taken: Sequence[int]) -> None:
        """Put the variables back where they must stay, after the update of these steps."""


@runtime_checkable
class Sampler(Method, Protocol):
    """A method that moves in its own way, all its steps; the last iterate of a sample counts."""

    def update(self, gradients: Sequence[torch.Tensor], steps_taken: Sequence[int]) -> None:
        """Move the variables in place, given the gradients of the loss."""

    def chain(self, slot: int) -> Chain:
        """The chain in a slot, as it is after `loss`."""


@dataclass(frozen=True)
class SearchStep:
    """What one step found, before its update; tensors are `[S]`.

    Also its images `[S, 3, H, W]` in [0, 1], and `db`, how well these match the input.
    """

    step: int
    loss: torch.Tensor
    mse: torch.Tensor
    best_db: torch.Tensor
    frozen: torch.Tensor
    images: torch.Tensor
    db: torch.Tensor


class Best:
    """The best iterate of each sample, judged as written: clamped to [0, 1].

    Attributes:
        target_mse: at this low-res error a sample freezes; a number, or one for each slot `[S]`.
        images: `[S, 3, H, W]` float32 in [0, 1].
        mse: low-res error of `images`, `[S]`.
        step: in which step each was found, `[S]`.
        frozen: whether the target was reached, `[S]`; a frozen sample never changes again.
    """

    def __init__(self, target_mse: float | torch.Tensor) -> None:
        self.target_mse = target_mse
        self.images = torch.empty(0)
        self.mse = torch.empty(0)
        self.step = torch.empty(0)
        self.frozen = torch.empty(0)

    def start(self, slots: Sequence[int]) -> None:
        """Forget what was found in these slots."""
        if self.mse.numel() and slots:  # before the first update there is nothing
            self.mse[slots] = torch.inf
            self.step[slots] = 0
            self.frozen[slots] = False

    def update(self, images: torch.Tensor, mse: torch.Tensor, steps: Sequence[int]) -> None:
        """Take over the samples that came closer to the input than ever before."""
        if not self.mse.numel():
            self.images = torch.zeros_like(images)
            self.mse = torch.full_like(mse, torch.inf)
            self.step = torch.zeros_like(mse, dtype=torch.long)
            self.frozen = torch.zeros_like(mse, dtype=torch.bool)
        better = (mse < self.mse) & ~self.frozen
        self.images[better] = images[better]
        self.mse = torch.where(better, mse, self.mse)
        self.step = torch.where(better, torch.tensor(steps, device=mse.device), self.step)
        self.frozen = self.frozen | (self.mse <= self.target_mse)


class Last(Best):
    """The last iterate of each sample, whatever came before: the original PULSE's choice."""

    def __init__(self) -> None:
        super().__init__(target_mse=0.0)

    def update(self, images: torch.Tensor, mse: torch.Tensor, steps: Sequence[int]) -> None:
        """Take over every sample."""
        self.images, self.mse = images, mse
        self.step = torch.tensor(steps, device=mse.device)
        self.frozen = torch.zeros_like(mse, dtype=torch.bool)


@dataclass(frozen=True)
class Look:
    """What one look found: `loss` and `mse` `[S]` of the images as they are, differentiable.

    Also the images clamped to [0, 1], `[S, 3, H, W]`, and their low-res `error` `[S]`.
    """

    loss: torch.Tensor
    mse: torch.Tensor
    images: torch.Tensor
    error: torch.Tensor


def look(
    method: Method, operator: Operator, target: torch.Tensor, best: Best, steps: Sequence[int]
) -> Look:
    """Compute the images and what they cost, and keep those that are better than before.

    Args:
        method: the variables.
        operator: from high-res to low-res.
        target: what is known of the inputs, `[S or 1, C, h, w]`.
        best: updated here.
        steps: how many updates the sample in each slot has had.
    """
    image = method.image(steps)
    mse = mean_square(operator(image), target)
    loss = method.loss(mse)
    with torch.no_grad():
        clamped = image.clamp(0, 1)
        error = mean_square(operator(clamped), target)
        best.update(clamped, error, steps)
    return Look(loss, mse, clamped, error)


def move(
    method: Method, adam: SlotAdam, loss: torch.Tensor, steps: Sequence[int], moving: Sequence[bool]
) -> None:
    """Update the variables of the slots that are `moving`, by the losses of `look`.

    A sampler moves all its slots: what it does to one that is not moving is of no consequence.
    """
    gradients = torch.autograd.grad(
        loss.sum(), adam.variables, allow_unused=True, materialize_grads=True
    )
    for variable, gradient in zip(adam.variables, gradients, strict=True):
        variable.grad = gradient
    if isinstance(method, Sampler):
        with torch.no_grad():
            method.update(gradients, steps)
        return
    assert isinstance(method, Descent)
    still = [0.0] * len(adam.variables)
    rates = [
        method.rates(step) if moves else still for step, moves in zip(steps, moving, strict=True)
    ]
    adam.step(gradients, list(zip(*rates, strict=True)))
    with torch.no_grad():
        method.constrain(steps)


def search(
    method: Method,
    operator: Operator,
    target: torch.Tensor,
    best: Best,
    wanted: torch.Tensor | None = None,
) -> Iterator[SearchStep]:
    """Run samples that start together, yielding one record per step, until all are done.

    Args:
        method: the variables of S samples, started.
        operator: from high-res to low-res.
        target: what is known of the input, `[1, C, h, w]`.
        best: filled here, the result at any time.
        wanted: which samples count for stopping early, bool `[S]`; None: all.
    """
    adam = SlotAdam(method.variables())
    slots = len(adam.variables[0])
    for step in range(method.steps):
        steps = [step] * slots
        seen = look(method, operator, target, best, steps)
        done = best.frozen if wanted is None else best.frozen | ~wanted
        found = (psnr(best.mse), best.frozen, seen.images, psnr(seen.error))
        yield SearchStep(step, seen.loss.detach(), seen.mse.detach(), *found)
        if bool(done.all()):
            return
        move(method, adam, seen.loss, steps, [True] * slots)
