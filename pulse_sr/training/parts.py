"""A step on a batch that is dealt out: over processes, and in parts that fit into memory.

Shapes: N items of the whole batch, n of this process.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from pulse_sr.training.processes import Processes


class Part(NamedTuple):
    """Images that go through the networks together.

    Attributes:
        rows: their places in the whole batch, on the device.
        own: their places among the images of this process.
    """

    rows: Tensor
    own: slice


#: What one part contributes: its loss, which is differentiated, and values to report.
PartLoss = Callable[[Part], tuple[Tensor, dict[str, Tensor]]]


class PartedStep(ABC):
    """Gradients from parts of a batch, averaged over the processes, then the optimizers.

    Attributes:
        device: where the networks live.
        processes: who shares the batch.
        micro_steps: in how many parts this process takes its share of a batch.
        bf16: run the networks in bfloat16 autocast.
        optimizers: by name.
    """

    device: torch.device
    processes: Processes
    micro_steps: int
    bf16: bool
    optimizers: dict[str, torch.optim.Optimizer]

    @property
    @abstractmethod
    def batch(self) -> int:
        """N."""

    @property
    @abstractmethod
    def group(self) -> int:
        """So many items stay in one part."""

    def rows(self) -> Tensor:
        """Which images of a batch this process learns from, int64 `[n]`, part by part."""
        return torch.cat(self._places(self.batch, self.group))

    def _places(self, count: int, group: int) -> list[Tensor]:
        """The places of each part of this process, on the CPU: asking a GPU would wait for it."""
        parts, first = (
            self.processes.count * self.micro_steps,
            self.processes.rank * self.micro_steps,
        )
        return [part_of_batch(count, group, first + i, parts) for i in range(self.micro_steps)]

    def _parts(self, count: int | None = None, group: int | None = None) -> Iterator[Part]:
        """The parts of this process, of a batch or of `count` draws in groups of `group`."""
        count = self.batch if count is None else count
        group = self.group if group is None else group
        for i, rows in enumerate(self._places(count, group)):
            yield Part(rows.to(self.device), slice(i * len(rows), (i + 1) * len(rows)))

    def _backward(self, loss: PartLoss, parts: Iterator[Part]) -> dict[str, Tensor]:
        """Add up the gradients of the parts; means of what they report."""
        reports = []
        for part in parts:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                value, report = loss(part)
            (value / self.micro_steps).backward()
            reports.append({name: each.detach().float() for name, each in report.items()})
        return {name: torch.stack([r[name] for r in reports]).mean() for name in reports[0]}

    def _update(self, name: str) -> None:
        optimizer = self.optimizers[name]
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in parameters if p.grad is not None]
        self.processes.average_(gradients)
        for gradient in gradients:
            torch.nan_to_num_(gradient, nan=0.0, posinf=1e5, neginf=-1e5)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    @contextmanager
    def learning(self, name: str) -> Iterator[None]:
        """While it lasts, only the parameters of one optimizer take gradients."""
        others = [
            parameter
            for other, optimizer in self.optimizers.items()
            if other != name
            for group in optimizer.param_groups
            for parameter in group["params"]
        ]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)


def part_of_batch(count: int, group: int, part: int, parts: int) -> Tensor:
    """Which images of a batch belong to one of its parts, in the order the part sees them.

    Image i of N belongs to group `i mod (N / group)` (`minibatch_std`); a part takes whole groups,
    and inside the part the same rule gives the same groups.

    Raises:
        ValueError: when the groups can not be dealt out evenly.
    """
    group = min(group, count)
    groups, rest = divmod(count, group)
    if rest or groups % parts:
        raise ValueError(f"{count} images in groups of {group} do not make {parts} equal parts")
    each = groups // parts
    return torch.arange(count).view(group, groups)[:, part * each : (part + 1) * each].flatten()
