"""Adam for a batch whose slots are each at a step of their own.

Shapes: V variables, S slots.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

BETAS = (0.9, 0.999)
EPS = 1e-8


class SlotAdam:
    """Adam (Kingma and Ba, ICLR 2015, algorithm 1) with a step count for every slot.

    A slot moves as if `torch.optim.Adam` with its defaults held it alone. A variable that does not
    move in a step (rate 0) keeps its moments and its count, as one without a gradient does there.
    What happens in a slot depends on that slot alone, to the bit: the same elementwise operations
    run whoever moves.
    """

    def __init__(self, variables: Sequence[torch.Tensor]) -> None:
        """Begin at step 0.

        Args:
            variables: leaf tensors `[S, ...]`, changed in place by `step`.
        """
        self.variables = list(variables)
        self.first = [torch.zeros_like(v) for v in self.variables]
        self.second = [torch.zeros_like(v) for v in self.variables]
        self.counts = [[0] * len(v) for v in self.variables]

    @torch.no_grad()
    def reset(self, slots: Sequence[int]) -> None:
        """Forget what was learnt of these slots."""
        places = list(slots)
        for first, second, counts in zip(self.first, self.second, self.counts, strict=True):
            first[places] = 0
            second[places] = 0
            for slot in places:
                counts[slot] = 0

    @torch.no_grad()
    def step(self, gradients: Sequence[torch.Tensor], rates: Sequence[Sequence[float]]) -> None:
        """Move every variable of every slot.

        Args:
            gradients: one `[S, ...]` for each variable.
            rates: the learning rate of each variable in each slot, `[V][S]`.
        """
        if not self.variables:
            return
        table = [self._factors(*pair) for pair in zip(self.counts, rates, strict=True)]
        factors = torch.tensor(table, dtype=torch.float64)  # [V, 4, S]
        factors = factors.to(self.variables[0].device, self.variables[0].dtype)
        moments = zip(self.first, self.second, strict=True)
        for variable, gradient, (first, second), rows in zip(
            self.variables, gradients, moments, factors, strict=True
        ):
            shape = (4, -1, *[1] * (variable.ndim - 1))
            take1, take2, root, size = rows.view(shape)
            first.lerp_(gradient, take1)
            second.mul_(1 - take2).addcmul_(gradient * take2, gradient)
            step = first / second.sqrt().div_(root).add_(EPS)
            variable.sub_(step.mul_(size))

    def _factors(self, counts: list[int], rates: Sequence[float]) -> list[list[float]]:
        """Shares of the gradient in both moments, root of the second's bias, step: `[4][S]`."""
        rows = []
        for slot, rate in enumerate(rates):
            if rate <= 0:
                rows.append((0.0, 0.0, 1.0, 0.0))
                continue
            counts[slot] += 1
            bias1, bias2 = (1 - beta ** counts[slot] for beta in BETAS)
            rows.append((1 - BETAS[0], 1 - BETAS[1], bias2**0.5, rate / bias1))
        return [list(column) for column in zip(*rows, strict=True)]
