"""How much memory a training step takes, and the parts of a batch that fit into a limit.

What a step needs grows with the images of a part: what the networks keep for going back. That is
counted on a small part, on any device, by looking at the tensors that autograd saves.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pulse_sr.errors import UsageError
from pulse_sr.training.gan.step import Step

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


def plan_memory(step: Step, limit: int, share: int) -> MemoryPlan:
    """The fewest parts whose peak stays below `limit` bytes; recomputing only if it must be.

    Args:
        step: the networks, on their device; left as it was.
        limit: bytes.
        share: images of a batch that this process takes.

    Raises:
        UsageError: when not even the smallest part fits.
    """
    group = min(step.objective.group, share)
    least = 0
    for recompute in (False, True):
        step.objective.set_recompute(recompute)
        fixed, each = fixed_bytes(step), bytes_per_image(step, group)
        for micro_steps in _divisors(share // group):
            needed = fixed + int(HEADROOM * each * share // micro_steps)
            if needed <= limit:
                return MemoryPlan(micro_steps, recompute, needed)
            least = needed
    step.objective.set_recompute(False)
    raise UsageError(
        f"--max-memory: {limit / 1e9:.2f} GB is too little, "
        f"the smallest step of these networks takes {least / 1e9:.2f} GB",
        "allow more, or choose narrower networks (--channel-max, --ngf) or a lower --resolution",
    )


def fixed_bytes(step: Step) -> int:
    """Weights, gradients, moments of Adam, the averages of G and a frozen network."""
    sizes = {
        name: sum(p.numel() * p.element_size() for p in network.parameters())
        for name, network in step.networks.items()
    }
    frozen = sum(each.numel() * each.element_size() for each in step.frozen())
    averages = 1 + len(step.config.ema_bank)
    return 4 * sum(sizes.values()) + averages * sizes["G"] + frozen


def bytes_per_image(step: Step, count: int) -> float:
    """What the most demanding backward pass of a step saves for one image, from a part of `count`.

    Weights that autograd saves are not counted: they are there anyway.
    """
    return max(saved_bytes(step, loss) for loss in step.probes(count)) / count


def saved_bytes(step: Step, loss: Callable[[], Tensor]) -> int:
    """Bytes of the distinct tensors that autograd keeps for the backward pass of `loss`."""
    weights = [
        tensor
        for network in step.networks.values()
        for tensor in [*network.parameters(), *network.buffers()]
    ]
    known = {tensor.untyped_storage().data_ptr() for tensor in [*weights, *step.frozen()]}
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


def fit_on_device(step: Step, plan: MemoryPlan, limit: int | None, share: int) -> MemoryPlan:
    """Try a plan on a CUDA device and take smaller parts until the measured peak fits.

    The passes of a step are run without an update, so that training begins from the same weights.

    Args:
        step: the networks.
        plan: where to begin.
        limit: bytes; None: what the device has.
        share: images of a batch that this process takes.

    Raises:
        UsageError: when not even the smallest part fits.
    """
    group = min(step.objective.group, share)
    for recompute in sorted({plan.recompute, True}):
        step.objective.set_recompute(recompute)
        for micro_steps in _divisors(share // group):
            if micro_steps < plan.micro_steps and recompute == plan.recompute:
                continue
            peak = _peak(step, share // micro_steps)
            if peak is not None and (limit is None or peak <= limit):
                return MemoryPlan(micro_steps, recompute, peak)
    raise UsageError(
        "the smallest step of these networks does not fit into the memory of the device",
        "choose narrower networks (--channel-max, --ngf) or a lower --resolution",
    )


def _peak(step: Step, count: int) -> int | None:
    """Measured peak of a step's passes in bytes; None when the device ran out of memory."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(step.device)
    try:
        for loss in step.probes(count):
            loss().backward()
    except torch.cuda.OutOfMemoryError:
        return None
    finally:
        for optimizer in step.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
    # Adam has no moments before its first step.
    moments = fixed_bytes(step) // 2
    return torch.cuda.max_memory_allocated(step.device) + moments


def _divisors(groups: int) -> list[int]:
    """Into how many equal parts so many groups can be dealt, the fewest first."""
    return [parts for parts in range(1, groups + 1) if groups % parts == 0]
