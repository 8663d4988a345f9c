"""What a search method is, and one step of it: look at the images, keep the best, move.

A method holds the variables of S slots, a sample in each, and says what image they stand for, what
that costs, at which rate each variable moves and where it must stay. The rest is the same for all:
gradients, the optimiser, the best iterate of each sample. `search` runs samples that start and end
together; `pulse_sr.search.stream` hands the slots on. On a CUDA device a step of a method that does
the same at every step is one CUDA graph (`pulse_sr.search.capture`).

Shapes: S slots, H W high-res, h w low-res, C channels of the observation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import torch

from pulse_sr.operators.base import Operator, psnr_of
from pulse_sr.search.capture import Captured, graph_on, write_numbers
from pulse_sr.search.losses import mean_square


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

    Attributes:
        steps: how many each sample takes.
        static: whether a step can be recorded and done again: whatever `steps_taken` says, `image`,
            `loss` and the update do the same operations on the same tensors, in place where they
            keep something, and look at no content of a tensor.
    """

    steps: int
    static: bool

    def variables(self) -> Sequence[torch.Tensor]:
        """Leaf tensors `[S, ...]` that the search moves, always the same ones."""

    def start(self, slots: Sequence[int], starts: Sequence[Start]) -> None:
        """Put new samples into some slots: nothing of what was there may stay."""

    def image(self, steps_taken: Sequence[int]) -> torch.Tensor:
        """High-res images `[S, 3, H, W]`, natural range [0, 1], differentiable."""

    def loss(self, residual: torch.Tensor) -> torch.Tensor:
        """Loss `[S]` of the last image, given its low-res residual `[S, C, h, w]`."""


M = TypeVar("M", bound=Method)


class Optimiser(Protocol):
    """What moves variables `[S, ...]` down a loss, each slot at a step of its own.

    A step has two parts: `prepare` is the host's, `apply` the device's, which reads and writes
    fixed tensors alone and does the same at every step.
    """

    def reset(self, slots: Sequence[int]) -> None:
        """Forget what was learnt of these slots."""

    def prepare(self, rates: Sequence[Sequence[float]]) -> None:
        """Write what the next step needs to know; rates are `[V][S]`."""

    def apply(self, gradients: Sequence[torch.Tensor]) -> None:
        """Move the variables, given one gradient `[S, ...]` for each."""


@runtime_checkable
class Descent(Method, Protocol):
    """A method that goes down its loss; the best iterate of a sample counts.

    Attributes:
        optimiser: makes what moves its variables: `SlotAdam` or `SlotLbfgs`.
    """

    optimiser: Callable[[Sequence[torch.Tensor]], Optimiser]

    def rates(self, step: int) -> Sequence[float]:
        """The rate of each variable in this step of a sample; 0 leaves it where it is."""

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

    Its tensors are made at the first update and changed in place from then on.

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

    def update(self, images: torch.Tensor, mse: torch.Tensor, steps: torch.Tensor) -> None:
        """Take over the samples that came closer to the input than ever before.

        Args:
            images: `[S, 3, H, W]` in [0, 1].
            mse: their low-res error, `[S]`.
            steps: how many updates each has had, int64 `[S]`.
        """
        if not self.mse.numel():
            self._make(images, mse)
        better = (mse < self.mse) & ~self.frozen
        torch.where(better[:, None, None, None], images, self.images, out=self.images)
        torch.where(better, mse, self.mse, out=self.mse)
        torch.where(better, steps, self.step, out=self.step)
        self.frozen.logical_or_(self.mse <= self.target_mse)

    def _make(self, images: torch.Tensor, mse: torch.Tensor) -> None:
        self.images = torch.zeros_like(images)
        self.mse = torch.full_like(mse, torch.inf)
        self.step = torch.zeros_like(mse, dtype=torch.long)
        self.frozen = torch.zeros_like(mse, dtype=torch.bool)


class Last(Best):
    """The last iterate of each sample, whatever came before: the original PULSE's choice."""

    def __init__(self) -> None:
        super().__init__(target_mse=0.0)

    def update(self, images: torch.Tensor, mse: torch.Tensor, steps: torch.Tensor) -> None:
        """Take over every sample."""
        if not self.mse.numel():
            self._make(images, mse)
        self.images.copy_(images)
        self.mse.copy_(mse)
        self.step.copy_(steps)


@dataclass(frozen=True)
class Look:
    """What one look found.

    Attributes:
        loss, mse: `[S]`, of the images as they are; differentiable where `SlotStep.move` needs it.
        images: clamped to [0, 1], `[S, 3, H, W]`.
        facts: `[4, S]`, what the host asks for: whether the loss is finite, whether the sample is
            frozen, the match of its best iterate and that of `images` in dB.
    """

    loss: torch.Tensor
    mse: torch.Tensor
    images: torch.Tensor
    facts: torch.Tensor


class SlotStep:
    """One step of all slots: look at the images, keep the best, move.

    As a graph it is a whole: the update comes with `look`, before the host knows whose sample is
    done or has to start again. For those it is of no consequence: the best iterate lies apart, and
    the next start overwrites all that belongs to the slot, what the optimiser knows included.

    Attributes:
        target: what is known of the inputs, `[S or 1, C, h, w]`; once looked at, changed in place
            only.
    """

    def __init__(
        self, method: Method, operator: Operator, best: Best, target: torch.Tensor | None = None
    ) -> None:
        """What the steps of a search share; without a `target` it is set later."""
        self.method, self.operator, self.best = method, operator, best
        self.target = torch.empty(0) if target is None else target
        self._variables = list(method.variables())
        device = self._variables[0].device
        self._optimiser = method.optimiser(self._variables) if isinstance(method, Descent) else None
        self._steps: Sequence[int] = [0] * self.slots
        self._felt = [True] * len(self._variables)  # whose gradients the next update looks at
        self._taken = torch.zeros(self.slots, dtype=torch.long, device=device)
        graph = graph_on(device) if method.static else None
        self._captured = None if graph is None else Captured(graph)

    @property
    def slots(self) -> int:
        """S."""
        return len(self._variables[0])

    def forget(self, slots: Sequence[int]) -> None:
        """What was learnt of these slots: a sample starts there."""
        if self._optimiser is not None:
            self._optimiser.reset(slots)

    def look(self, steps: Sequence[int], moving: Sequence[bool]) -> Look:
        """Compute the images and what they cost, and keep those that are better than before.

        `steps` says how many updates the sample in each slot has had, `moving` which ones `move`
        is for. Later steps do not write into the tensors that are returned.
        """
        self._tell(steps, moving)
        return self._look() if self._captured is None else Look(*self._captured(self._whole))

    def move(self, seen: Look) -> None:
        """Update the variables by what `look` found; at most once after each."""
        if self._captured is None:
            self._move(seen.loss)

    def _tell(self, steps: Sequence[int], moving: Sequence[bool]) -> None:
        """What the host knows of this step, into fixed tensors."""
        self._steps = list(steps)
        write_numbers(self._taken, steps)
        if self._optimiser is None:
            return
        assert isinstance(self.method, Descent)
        still = [0.0] * len(self._variables)
        pairs = zip(steps, moving, strict=True)
        rates = [self.method.rates(step) if moves else still for step, moves in pairs]
        by_variable = list(zip(*rates, strict=True))
        self._optimiser.prepare(by_variable)
        if self._captured is None:  # a graph does the same at every step
            self._felt = [any(each) for each in by_variable]

    def _whole(self) -> tuple[torch.Tensor, ...]:
        seen = self._look()
        self._move(seen.loss)
        return seen.loss.detach(), seen.mse.detach(), seen.images, seen.facts

    def _look(self) -> Look:
        image = self.method.image(self._steps)
        residual = self.operator(image) - self.target
        loss = self.method.loss(residual)
        with torch.no_grad():
            mse = mean_square(residual)
            best, clamped = self.best, image.clamp(0, 1)
            error = mean_square(self.operator(clamped) - self.target)
            best.update(clamped, error, self._taken)
            facts = torch.stack([loss.isfinite(), best.frozen, psnr_of(best.mse), psnr_of(error)])
        return Look(loss, mse, clamped, facts)

    def _gradients(self, loss: torch.Tensor) -> list[torch.Tensor]:
        """Of all variables; zeros for those that no slot moves, whose way back is not taken."""
        pairs = list(zip(self._variables, self._felt, strict=True))
        felt = [variable for variable, wanted in pairs if wanted]
        found: Iterator[torch.Tensor] = iter(())
        if felt:
            found = iter(
                torch.autograd.grad(loss.sum(), felt, allow_unused=True, materialize_grads=True)
            )
        return [next(found) if wanted else torch.zeros_like(each) for each, wanted in pairs]

    def _move(self, loss: torch.Tensor) -> None:
        """A sampler moves all its slots: what it does to one that is not moving has no effect."""
        method, variables = self.method, self._variables
        gradients = self._gradients(loss)
        for variable, gradient in zip(variables, gradients, strict=True):
            variable.grad = gradient
        if isinstance(method, Sampler):
            with torch.no_grad():
                method.update(gradients, self._steps)
            return
        assert isinstance(method, Descent)
        assert self._optimiser is not None  # a descent has one
        self._optimiser.apply(gradients)
        with torch.no_grad():
            method.constrain(self._steps)


def started(
    method: M,
    generators: Sequence[torch.Generator],
    target: torch.Tensor,
    candidates: torch.Tensor | None = None,
) -> M:
    """Fill every slot of a method, each with a sample of the same input.

    Args:
        method: with a slot for each generator.
        generators: on the CPU, one per sample.
        target: what is known of the input, `[1, C, h, w]`.
        candidates: latents of the points to start from, `[S, K, D]`; None: drawn.
    """
    points = [None] * len(generators) if candidates is None else candidates
    pairs = zip(generators, points, strict=True)
    method.start(range(len(generators)), [Start(rng, target, each) for rng, each in pairs])
    return method


def search(
    method: Method,
    operator: Operator,
    target: torch.Tensor,
    best: Best,
    wanted: torch.Tensor | None = None,
) -> Iterator[SearchStep]:
    """Run samples that start together, yielding one record per step, until all are done.

    With a record the variables of the method are as they were for it; where steps are graphs they
    have moved on.

    Args:
        method: the variables of S samples, started.
        operator: from high-res to low-res.
        target: what is known of the input, `[1, C, h, w]`.
        best: filled here, the result at any time.
        wanted: which samples count for stopping early, bool `[S]`; None: all.
    """
    step = SlotStep(method, operator, best, target)
    for number in range(method.steps):
        seen = step.look([number] * step.slots, [True] * step.slots)
        best_db, frozen, db = seen.facts[2], seen.facts[1].bool(), seen.facts[3]
        found = (best_db, frozen, seen.images, db)
        yield SearchStep(number, seen.loss.detach(), seen.mse.detach(), *found)
        done = frozen if wanted is None else frozen | ~wanted
        if bool(done.all()):
            return
        step.move(seen)
