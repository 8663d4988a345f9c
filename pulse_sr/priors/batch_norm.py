"""Batch normalisation with the statistics of the whole batch, whichever process holds which part.

Shapes: N images of this process, C channels, r feature resolution.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn as nn
from torch import Tensor


class BatchNorm(nn.BatchNorm2d):
    """`nn.BatchNorm2d` that trains with the mean and variance over all processes.

    Weights start around one, N(1, 0.02), as GANs with batch norm are set up since DCGAN (Radford et
    al., ICLR 2016). The statistics are differentiated through, across processes too.

    Attributes:
        alone: take the statistics of this process, where the others do not run the network.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.alone = False
        nn.init.normal_(self.weight, 1.0, 0.02)

    def forward(self, x: Tensor) -> Tensor:  # [N, C, r, r] -> the same
        if self.training and not self.alone and _processes() > 1:
            return self._forward_of_all(x)
        return super().forward(x)

    def _forward_of_all(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        sums = wide.sum(dim=[0, 2, 3])
        *totals, count = sum_over_processes(
            torch.cat([sums, sums.new_tensor([wide[:, 0].numel()])])
        ).split([self.num_features, 1])
        mean = totals[0] / count
        # Centred first: the difference of two large sums would lose half of the digits.
        centred = wide - mean[:, None, None]
        var = sum_over_processes(centred.square().sum(dim=[0, 2, 3])) / count
        self._track(mean.detach(), (var * count / (count - 1)).detach())
        scale = self.weight * (var + self.eps).rsqrt()
        y = centred * scale[:, None, None] + self.bias[:, None, None]
        return y.to(x.dtype)

    def _track(self, mean: Tensor, unbiased_var: Tensor) -> None:
        assert self.running_mean is not None  # they are only None without tracking
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(unbiased_var.to(self.running_var.dtype), self.momentum)


def _processes() -> int:
    if not (dist.is_available() and dist.is_initialized()):
        return 1
    return dist.get_world_size()


def sum_over_processes(x: Tensor) -> Tensor:
    """The sum of the `x` of all processes, differentiable any number of times.

    The gradient is that of the sum of what all processes compute from it.
    """
    total: Tensor = _AllReduce.apply(x)  # type: ignore[no-untyped-call]
    return total


class _AllReduce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return sum_over_processes(gradients[0])
