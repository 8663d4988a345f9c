"""Priors whose images are known in closed form.

Shapes: S samples, L style rows, D latent width.
"""

from __future__ import annotations

import torch

from pulse_sr.priors.base import LatentStatistics, Prior


def standard_statistics(width):
    return LatentStatistics(torch.zeros(width), torch.ones(width), torch.eye(width), count=1)


class _Toy(Prior):
    @property
    def device(self):
        return torch.device("cpu")

    def map(self, z):
        return z


class SigmoidPrior(_Toy):
    """The toy of the golden trajectories: `sigmoid(sum_i M_i w_i)` as `[3, 32, 32]`."""

    def __init__(self, M, statistics):
        rows, _, width = M.shape
        super().__init__("sigmoid", 32, rows, width, (), statistics)
        self.M = M

    def synthesize(self, w, noise=None, feature_deltas=None):
        return torch.sigmoid(torch.einsum("lpd,sld->sp", self.M, w)).view(-1, 3, 32, 32)

    def feature_shape(self, side):
        raise ValueError(f"no feature map of side {side}")


class LinearPrior(_Toy):
    """`G(w) = B w + c`: an 8-px map, the offset added to it, enlarged by repeating pixels.

    The area operator to 8 px undoes the enlargement, so the low-res image is the map itself.
    """

    def __init__(self, rows=3, width=16, resolution=16, noise_strength=0.0):
        shapes = ((4, 4), (8, 8), (8, 8), (16, 16), (16, 16), (32, 32), (32, 32))
        super().__init__("linear", resolution, rows, width, shapes, standard_statistics(width))
        rng = torch.Generator().manual_seed(7)
        scale = 0.08 / (rows * width) ** 0.5
        self.B = torch.randn(3 * 64, rows * width, generator=rng) * scale
        self.c, self.noise_strength = 0.5, noise_strength

    def synthesize(self, w, noise=None, feature_deltas=None):
        low = (w.flatten(1) @ self.B.t()).view(-1, 3, 8, 8) + self.c
        for each in noise or []:
            low = low + self.noise_strength * each.mean(dim=[2, 3], keepdim=True)
        if feature_deltas is not None:
            low = low + feature_deltas[8]
        return low.repeat_interleave(self.resolution // 8, 2).repeat_interleave(
            self.resolution // 8, 3
        )

    def feature_shape(self, side):
        if side != 8:
            raise ValueError(f"no feature map of side {side}, expected 8")
        return 3, 8, 8
