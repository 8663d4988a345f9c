"""L-BFGS for a batch whose slots are each at a step of their own.

Shapes: V variables, S slots, M pairs kept, N values of a sample in all variables together.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pulse_sr.search.capture import write_numbers
from stylegan_ops.products import product, whole_lines

#: M. 8 and 16 save no steps (docs/search.md).
PAIRS = 4
#: Longest step, in units of the first one.
LONGEST = 2.0
#: Least cosine between a step and the change of the gradient along it, for a pair to count.
CURVED = 1e-6


class SlotLbfgs:
    """L-BFGS without a line search (Nocedal and Wright, "Numerical Optimization", algorithm 7.4).

    A variable x moves as z = x / rate, so that the rates weigh the variables against each other:
    where only the offset has a rate, only the offset moves. The first step is along the gradient
    and has a root mean square of 1 in z, that is of the rate in x; none is longer than `LONGEST`.
    When the rates of a sample change, its history begins anew.

    A step is the displacement that is found at the next one, so what keeps variables on a sphere or
    in a ball may move them in between. Pairs without positive curvature do not count.

    The recursion goes over inner products (Chen, Wang and Zhou, "Large-scale L-BFGS using
    MapReduce", NIPS 2014), so that it is two products of matrices for each slot. Pairs lie where
    the count of their own sample says: what happens in a slot depends on that slot alone, to the
    bit. `prepare` and `apply` share a step as those of `SlotAdam` do.

    Attributes:
        variables: as given.
    """

    def __init__(self, variables: Sequence[torch.Tensor]) -> None:
        """Begin without a history; leaf tensors `[S, ...]` of one type, which `apply` changes."""
        self.variables = list(variables)
        like = self.variables[0].detach()
        slots = len(like)
        self._sizes = [v[0].numel() for v in self.variables]
        total = sum(self._sizes)
        # Of each slot: M steps, M changes of the gradient, the gradient; then zeros, with which no
        # product has to make room.
        self._padded = like.new_zeros(slots, whole_lines(2 * PAIRS + 1), whole_lines(total))
        self._vectors = self._padded[:, : 2 * PAIRS + 1, :total]
        self._before = like.new_zeros(slots, total)
        # What the host says of the next step.
        self._rates = like.new_zeros(len(self.variables), 2, slots)  # and their inverses
        self._share = like.new_zeros(slots)  # 1 / how many values move
        self._known = torch.zeros(slots, PAIRS, dtype=torch.bool, device=like.device)
        # Where the vectors lie: steps and changes, newest first, and the gradient.
        self._order = torch.zeros(slots, 2 * PAIRS + 1, dtype=torch.long, device=like.device)
        self._slots = torch.arange(slots, device=like.device)
        # What the host knows.
        self._steps = [0] * slots  # since the history began
        self._last: list[tuple[float, ...] | None] = [None] * slots

    @torch.no_grad()
    def reset(self, slots: Sequence[int]) -> None:
        """Forget what was learnt of these slots."""
        places = list(slots)
        self._vectors[places] = 0  # also what is not finite: it would poison sums with weight 0
        for slot in places:
            self._last[slot] = None

    def prepare(self, rates: Sequence[Sequence[float]]) -> None:
        """Write what the next step needs to know; of rates `[V][S]` 0 lets a variable be."""
        columns = [tuple(each) for each in zip(*rates, strict=True)]
        orders, known, shares = [], [], []
        for slot, own in enumerate(columns):
            self._steps[slot] = self._steps[slot] + 1 if own == self._last[slot] else 0
            self._last[slot] = own
            count = self._steps[slot]  # newest pair: number count - 1
            places = [(count - 1 - age) % PAIRS for age in range(PAIRS)]
            orders.append([*places, *(place + PAIRS for place in places), 2 * PAIRS])
            known.append([age < count for age in range(PAIRS)])
            moving = sum(size for size, rate in zip(self._sizes, own, strict=True) if rate)
            shares.append(1 / max(1, moving))
        write_numbers(self._order, orders)
        write_numbers(self._known, known)
        write_numbers(self._share, shares)
        inverses = [[1 / rate if rate else 0.0 for rate in each] for each in rates]
        write_numbers(self._rates, list(zip(rates, inverses, strict=True)))

    @torch.no_grad()
    def apply(self, gradients: Sequence[torch.Tensor]) -> None:
        """Move every variable of every slot as `prepare` was told; gradients `[S, ...]`."""
        rates, inverses = self._rates.unbind(1)
        self._remember(_joined(self.variables, inverses), _joined(gradients, rates))
        weights = self._weights()
        placed = weights.new_zeros(self._padded.shape[:2]).scatter_(1, self._order, weights)
        step = product(placed[:, None], self._padded)[:, 0, : self._vectors.shape[2]]
        length = (step.square().sum(dim=1) * self._share).sqrt()
        step = step * (LONGEST / length).clamp_max(1)[:, None]
        for variable, part, rate in zip(
            self.variables, step.split(self._sizes, dim=1), rates, strict=True
        ):
            variable.sub_(part.view(variable.shape) * _spread(rate, variable))

    def _remember(self, now: torch.Tensor, gradient: torch.Tensor) -> None:  # [S, N]
        fresh = ~self._known[:, :1]
        last = 2 * PAIRS
        # No `torch.where` with a number: on a GPU that waits for a copy, which no graph can hold.
        moved = (now - self._before).masked_fill_(fresh, 0)
        changed = (gradient - self._vectors[:, last]).masked_fill_(fresh, 0)
        self._vectors.index_put_((self._slots, self._order[:, 0]), moved)
        self._vectors.index_put_((self._slots, self._order[:, PAIRS]), changed)
        self._vectors[:, last] = gradient
        self._before.copy_(now)

    def _weights(self) -> torch.Tensor:
        """What each vector adds to the step, `[S, 2 M + 1]` in the order of `_order`."""
        products = product(self._padded, self._padded.mT)
        order, count = self._order, self._order.shape[1]
        products = products.gather(1, order[:, :, None].expand(-1, -1, products.shape[2]))
        products = products.gather(2, order[:, None, :].expand(-1, count, -1))
        steps, changes = products[:, :PAIRS], products[:, PAIRS : 2 * PAIRS]
        square = products.diagonal(dim1=1, dim2=2)
        long, steep = square[:, :PAIRS], square[:, PAIRS : 2 * PAIRS]
        curved = steps.diagonal(offset=PAIRS, dim1=1, dim2=2)  # [S, M]
        good = self._known & (curved > CURVED * (long * steep).sqrt())
        inverse = curved.reciprocal().masked_fill_(~good, 0)

        weights = torch.zeros_like(square)
        weights[:, -1].fill_(1)  # not `= 1`: that reads a tensor which the host makes every time
        taken = []
        for pair in range(PAIRS):
            alpha = inverse[:, pair] * (steps[:, pair] * weights).sum(dim=1)
            weights[:, PAIRS + pair] -= alpha
            taken.append(alpha)
        # Without a pair: a root mean square of 1.
        scale = (square[:, -1] * self._share).sqrt().clamp_min(1e-30).reciprocal()
        for pair in reversed(range(PAIRS)):
            own = curved[:, pair] / steep[:, pair]
            scale = torch.where(good[:, pair], own, scale)
        weights *= scale[:, None]
        for pair in reversed(range(PAIRS)):
            beta = inverse[:, pair] * (changes[:, pair] * weights).sum(dim=1)
            weights[:, pair] += (taken[pair] - beta).masked_fill_(~good[:, pair], 0)
        return weights


def _joined(tensors: Sequence[torch.Tensor], factors: torch.Tensor) -> torch.Tensor:
    """`[S, N]`, each sample's tensors times their factors `[V, S]`, one after the other."""
    pairs = zip(tensors, factors, strict=True)
    return torch.cat([(each * _spread(factor, each)).flatten(1) for each, factor in pairs], dim=1)


def _spread(factor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return factor.view(-1, *[1] * (like.ndim - 1))
