"""How different the images of a set are from each other, in pixels.

Shapes: N images, P values of an image.
"""

from __future__ import annotations

import torch
from torch import Tensor


class PairwiseDistance:
    """Root mean square difference of two images of a set, over all pairs and pixels.

    The mean of `(x_i - x_j)^2` over all pairs of different images is twice the unbiased variance of
    a pixel, so one pass is enough and no pair is ever formed. Sums are float64.
    """

    def __init__(self) -> None:
        self.count = 0
        self._sum = torch.zeros(0, dtype=torch.float64)
        self._squares = torch.zeros(0, dtype=torch.float64)

    def add(self, images: Tensor) -> None:
        """Count in some images `[n, ...]`, float, of the same shape every time."""
        x = images.flatten(1).cpu().double()
        if not self.count:
            self._sum = torch.zeros(x.shape[1], dtype=torch.float64)
            self._squares = torch.zeros(x.shape[1], dtype=torch.float64)
        self.count += len(x)
        self._sum += x.sum(dim=0)
        self._squares += x.square().sum(dim=0)

    def value(self) -> float:
        """The distance, in the units of the pixels.

        Raises:
            ValueError: for fewer than two images.
        """
        if self.count < 2:
            raise ValueError(f"{self.count} images make no pair")
        scatter = self._squares - self._sum.square() / self.count
        variance = scatter.clamp_min(0).mean() / (self.count - 1)
        return float((2 * variance).sqrt())
