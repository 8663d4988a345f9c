"""How much memory a training step takes, and the parts of a batch that fit into a limit.

What a step needs grows with the images of a part: what the networks keep for going back. That is
counted on a small part, on any device, by looking at the tensors that autograd saves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_sr.errors import UsageError
from pulse_sr.training.task import TrainingTask

#: Work space of convolutions, gradients on their way, and the allocator's rounding, as a share of
#: what is saved; measured (docs/training.md).
HEADROOM = 1.8


@dataclass(frozen=True)
class MemoryPlan:
    """How a batch is dealt out.

    Attributes:
        micro_steps: in how many parts a process takes its share.
        recompute: whether activations are computed again instead of kept.
        bytes: what that is expected to take at its peak.
    """

    micro_steps: int
    recompute: bool
    bytes: int


def fit_memory(task: TrainingTask, limit: int | None) -> MemoryPlan:
    """Deal batches out so that a step fits into a limit and into the device.

    Args:
        task: the networks, on their device; no weight and no buffer moves.
        limit: bytes that a step may take; None: what the device has.

    Raises:
        UsageError: when not even the smallest part fits.
    """
    share = task.config.batch // task.processes.count
    plan = MemoryPlan(1, False, 0)
    with _unchanged(task):
        if limit is not None:
            plan = plan_memory(task, limit, share)
        if task.device.type == "cuda":
            plan = fit_on_device(task, plan, limit, share)
    task.deal_out(plan.micro_steps, plan.recompute)
    return plan


@contextmanager
def _unchanged(task: TrainingTask) -> Iterator[None]:
    """Undo what forward passes do to the buffers of the networks."""
    buffers = [buffer for module in task.modules().values() for buffer in module.buffers()]
    kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        for buffer, before in zip(buffers, kept, strict=True):
            buffer.copy_(before)


def plan_memory(task: TrainingTask, limit: int, share: int) -> MemoryPlan:
    """The fewest parts whose peak stays below `limit` bytes; recomputing only if it must be.

    Args:
        task: the networks, on their device; no weight moves.
        limit: bytes.
        share: images of a batch that this process takes.

    Raises:
        UsageError: when not even the smallest part fits.
    """
    group = min(task.group, share)
    least = 0
    for recompute in (False, True):
        task.deal_out(1, recompute)
        fixed, each = fixed_bytes(task), bytes_per_image(task, group)
        for micro_steps in _divisors(share // group):
            needed = fixed + int(HEADROOM * each * share // micro_steps)
            if needed <= limit:
                return MemoryPlan(micro_steps, recompute, needed)
            least = needed
    task.deal_out(1, False)
    raise UsageError(
        f"--max-memory: {limit / 1e9:.2f} GB is too little, "
        f"the smallest step of these networks takes {least / 1e9:.2f} GB",
        f"allow more, or {task.smaller}",
    )


def fixed_bytes(task: TrainingTask) -> int:
    """Weights, gradients, moments of Adam, the averages and frozen networks."""
    sizes = {
        name: sum(p.numel() * p.element_size() for p in network.parameters())
        for name, network in task.modules().items()
    }
    frozen = sum(each.numel() * each.element_size() for each in task.frozen())
    averages = 1 + len(task.config.ema_bank)
    return 4 * sum(sizes.values()) + averages * sizes[task.averaged] + frozen


def bytes_per_image(task: TrainingTask, count: int) -> float:
    """What the most demanding backward pass of a step saves for one image, from a part of `count`.

    Weights that autograd saves are not counted: they are there anyway.
    """
    return max(saved_bytes(task, loss) for loss in task.probes(count)) / count


def saved_bytes(task: TrainingTask, loss: Callable[[], Tensor]) -> int:
    """Bytes of the distinct tensors that autograd keeps for the backward pass of `loss`."""
    weights = [
        tensor
        for network in task.modules().values()
        for tensor in [*network.parameters(), *network.buffers()]
    ]
    known = {tensor.untyped_storage().data_ptr() for tensor in [*weights, *task.frozen()]}
    kept: list[Tensor] = []  # alive, so that no two storages have one address
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            known.add(storage.data_ptr())
            kept.append(tensor.detach())
            total += storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss()
    return total


def fit_on_device(
    task: TrainingTask, plan: MemoryPlan, limit: int | None, share: int
) -> MemoryPlan:
    """Try a plan on a CUDA device and take smaller parts until the measured peak fits.

    The passes of a step are run without an update, so that training begins from the same weights.

    Args:
        task: the networks, on their device.
        plan: where to begin.
        limit: bytes; None: what the device has.
        share: images of a batch that this process takes.

    Raises:
        UsageError: when not even the smallest part fits.
    """
    group = min(task.group, share)
    for recompute in sorted({plan.recompute, True}):
        task.deal_out(1, recompute)
        for micro_steps in _divisors(share // group):
            if micro_steps < plan.micro_steps and recompute == plan.recompute:
                continue
            peak = _peak(task, share // micro_steps)
            if peak is not None and (limit is None or peak <= limit):
                return MemoryPlan(micro_steps, recompute, peak)
    raise UsageError(
        "the smallest step of these networks does not fit into the memory of the device",
        task.smaller,
    )


def _peak(task: TrainingTask, count: int) -> int | None:
    """Measured peak of a step's passes in bytes; None when the device ran out of memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(task.device)
    try:
        for loss in task.probes(count):
            loss().backward()
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        for optimizer in task.optimizers().values():
            optimizer.zero_grad(set_to_none=True)
    # Adam has no moments before its first step.
    moments = fixed_bytes(task) // 2
    return torch.cuda.max_memory_allocated(task.device) + moments


def _divisors(groups: int) -> list[int]:
    """Into how many equal parts so many groups can be dealt, the fewest first."""
    return [parts for parts in range(1, groups + 1) if groups % parts == 0]
