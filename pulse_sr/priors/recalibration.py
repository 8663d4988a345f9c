"""Batch-norm statistics of a FastGAN generator, estimated for the weights as they are.

A batch norm that normalises by its batch makes an image depend on its batch mates; one with fixed
statistics does not. The running averages of a training do not serve: they lag behind, and averaged
weights were never used with any batch.

Shapes: N images, C channels, r feature resolution.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.priors.batch_norm import BatchNorm
from pulse_sr.priors.fastgan import FastGANGenerator


class _Moments:
    """Sums over all batches of what enters one batch norm, in float64."""

    def __init__(self, norm: BatchNorm) -> None:
        self.norm = norm
        self.count = 0
        self.sum = torch.zeros(norm.num_features, dtype=torch.float64)
        self.squares = self.sum.clone()

    def add(self, module: nn.Module, inputs: tuple[Tensor]) -> None:
        """A forward pre-hook."""
        x = inputs[0].detach()
        self.count += x[:, 0].numel()
        self.sum += x.sum(dim=[0, 2, 3], dtype=torch.float64).cpu()
        self.squares += x.square().sum(dim=[0, 2, 3], dtype=torch.float64).cpu()

    def store(self) -> None:
        """Make the mean and variance over all batches those of the batch norm."""
        assert self.norm.running_mean is not None  # they are only None without tracking
        assert self.norm.running_var is not None
        mean = self.sum / self.count
        self.norm.running_mean.copy_(mean)
        self.norm.running_var.copy_(self.squares / self.count - mean.square())


@torch.no_grad()
def recalibrate(
    generator: FastGANGenerator, batches: int = 64, batch: int = 8, seed: int = 0
) -> None:
    """Estimate the batch-norm statistics again, for the weights as they are.

    Each batch is normalised by itself, as in training; the moments of what enters a layer are
    summed over all batches. The generator is left in evaluation mode.

    Args:
        generator: changed in place: `running_mean` and `running_var` alone.
        batches: how many.
        batch: images in each; best that of the training.
        seed: of the latents and noise maps.
    """
    config = generator.config
    weight = generator.to_big.weight_orig
    rng = torch.Generator().manual_seed(seed)
    with _collected_moments(generator.train()) as moments:
        for _ in range(batches):
            z = torch.randn(batch, config.z_dim, generator=rng).to(weight)
            maps = [torch.randn(batch, 1, *s, generator=rng) for s in config.noise_shapes]
            with torch.autocast(weight.device.type, enabled=False):
                generator(z, [each.to(weight) for each in maps])
    for each in moments:
        each.store()
    generator.eval()


@contextmanager
def _collected_moments(generator: FastGANGenerator) -> Iterator[list[_Moments]]:
    moments = [_Moments(m) for m in generator.modules() if isinstance(m, BatchNorm)]
    hooks = [each.norm.register_forward_pre_hook(each.add) for each in moments]
    for each in moments:
        each.norm.alone = True  # one process writes the prior, the others wait
    try:
        yield moments
    finally:
        for hook in hooks:
            hook.remove()
        for each in moments:
            each.norm.alone = False
