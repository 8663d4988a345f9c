"""Adam for a batch whose slots are each at a step of their own.

Shapes: V variables, S slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pulse_sr.search.capture import write_numbers

BETAS = (0.9, 0.999)
ADAM_EPS = 1e-8


class SlotAdam:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1) with a step count for every slot.

    A slot moves as if `torch.optim.Adam` with its defaults held it alone. A variable that does not
    move in a step (rate 0) keeps its moments and its count, as one without a gradient does there.
    What happens in a slot depends on that slot alone, to the bit: the same elementwise operations
    run whoever moves.

    A step has two parts. `prepare` is the host's: it counts and writes what follows from the counts
    into `factors`. `apply` is the device's: it reads and writes fixed tensors alone, and does the
    same at every step, so that it can be recorded (`pulse_sr.search.capture`).

    Attributes:
        variables: as given.
        factors: `[V, 4, S]`, of the step that `apply` does next.
    """

    def __init__(self, variables: Sequence[torch.Tensor]) -> None:
        """Begin at step 0, with leaf tensors `[S, ...]` of one type: `apply` changes them."""
        self.variables = list(variables)
        self.first = [torch.zeros_like(v) for v in self.variables]
        self.second = [torch.zeros_like(v) for v in self.variables]
        self.counts = [[0] * len(v) for v in self.variables]
        like = self.variables[0].detach()
        self.factors = like.new_zeros(len(self.variables), 4, len(like))

    @torch.no_grad()
    def reset(self, slots: Sequence[int]) -> None:
        """Forget what was learnt of these slots."""
        places = list(slots)
        for first, second, counts in zip(self.first, self.second, self.counts, strict=True):
            first[places] = 0
            second[places] = 0
            for slot in places:
                counts[slot] = 0

    def prepare(self, rates: Sequence[Sequence[float]]) -> None:
        """Count a step of everyone who moves, and write its factors; rates are `[V][S]`."""
        pairs = zip(self.counts, rates, strict=True)
        write_numbers(self.factors, [_factors(*pair) for pair in pairs])

    @torch.no_grad()
    def apply(self, gradients: Sequence[torch.Tensor]) -> None:
        """Move every variable of every slot by the factors of `prepare`; gradients `[S, ...]`."""
        moments = zip(self.first, self.second, strict=True)
        for variable, gradient, (first, second), rows in zip(
            self.variables, gradients, moments, self.factors, strict=True
        ):
            shape = (4, -1, *[1] * (variable.ndim - 1))
            take1, take2, root, size = rows.view(shape)
            first.lerp_(gradient, take1)
            second.mul_(1 - take2).addcmul_(gradient * take2, gradient)
            step = first / second.sqrt().div_(root).add_(ADAM_EPS)
            variable.sub_(step.mul_(size))


def _factors(counts: list[int], rates: Sequence[float]) -> list[list[float]]:
    """Shares of the gradient in both moments, root of the second's bias, step: `[4][S]`.

    Counts the step of every slot that moves.
    """
    rows = []
    for slot, rate in enumerate(rates):
        if rate <= 0:
            rows.append((0.0, 0.0, 1.0, 0.0))
            continue
        counts[slot] += 1
        bias1, bias2 = (1 - beta ** counts[slot] for beta in BETAS)
        rows.append((1 - BETAS[0], 1 - BETAS[1], bias2**0.5, rate / bias1))
    return [list(column) for column in zip(*rows, strict=True)]
