"""What an augmentation is: random draws, apart from the transform that they decide.

Shapes: N images, H W size; images around [-1, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

#: Everything random of one augmentation of N images: tensors `[N, ...]`, the images first, so that
#: a micro-batch or a rank takes its slice. Empty where nothing is changed.
Draws = dict[str, Tensor]


class Augmentation(ABC):
    """A random transform of images, differentiable to second order in the images.

    The draws do not depend on the size of the images: one draw serves images of any side. Each
    image is changed by its own draws alone, whatever else is in the batch.
    """

    @abstractmethod
    def draw(self, count: int, rng: torch.Generator) -> Draws:
        """Draw for `count` images, on the device of `rng`."""

    def apply(self, x: Tensor, draws: Draws) -> Tensor:
        """Transform each image by its draws.

        Args:
            x: images `[N, 3, H, W]` around [-1, 1], floating dtype, any side, plain or
                channels_last.
            draws: what `draw` returned for N images, on any device.

        Returns:
            Images of the shape, dtype and memory order of `x`; `x` itself where `draws` is empty.
            The arithmetic is float32 (float64 for float64 images), also under autocast.
        """
        if not draws:
            return x
        draws = {name: drawn.to(x.device, non_blocking=True) for name, drawn in draws.items()}
        with torch.autocast(x.device.type, enabled=False):
            exact = x if x.dtype == torch.float64 else x.float()
            return self._transform(exact, draws).to(x.dtype)

    @abstractmethod
    def _transform(self, x: Tensor, draws: Draws) -> Tensor:
        """`apply` for float32 or float64 images, with draws on their device, outside autocast."""


class NoAugment(Augmentation):
    """Leaves the images as they are and draws nothing."""

    def draw(self, count: int, rng: torch.Generator) -> Draws:
        """No draws; `rng` stays where it is."""
        return {}

    def _transform(self, x: Tensor, draws: Draws) -> Tensor:
        return x
