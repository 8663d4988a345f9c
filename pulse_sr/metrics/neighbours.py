"""Memorisation: how near samples lie to their nearest training images.

Distances are root mean square differences of pixels in [0, 1]. Means over blocks of pixels differ
by no more than the pixels do, so thumbnails give a lower bound: the candidates that are nearest by
thumbnail are compared at full size.

Shapes: N training images, S queries, R resolution, T side of a thumbnail, k neighbours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

THUMBNAIL_SIDE = 16
#: How many candidates are compared at full size: at 64 px and below, and never fewer than.
_CANDIDATES, _LEAST_CANDIDATES = 16, 4
_BLOCK = 4096
#: Of the usual distances this share lies below the threshold of a copy.
USUAL_SHARE = 0.05


@dataclass(frozen=True)
class Found:
    """The nearest training images, the nearest first.

    Attributes:
        distances: `[S, k]` float32, root mean square difference in [0, 1].
        indices: `[S, k]` int64, places in the training images, each at most once.
        mirrored: `[S, k]` bool, whether it is nearer when mirrored.
    """

    distances: Tensor
    indices: Tensor
    mirrored: Tensor


class TrainingImages:
    """Training images that can be searched for the nearest one.

    Memory: the thumbnails as bytes (768 an image at 16 px); the images stay where they are.
    """

    def __init__(self, images: np.ndarray, mirror: bool = True) -> None:
        """Make the thumbnails.

        Args:
            images: uint8 `[N, 3, R, R]`, an array or a memory map.
            mirror: whether a mirrored training image counts as one, as in training.
        """
        self.images, self.mirror = images, mirror
        blocks = (images[i : i + _BLOCK] for i in range(0, len(images), _BLOCK))
        made = [_thumbnails(torch.from_numpy(np.array(block))) for block in blocks]
        self._bytes = torch.cat(made).round().byte()

    def nearest(self, queries: Tensor, k: int = 1, exclude: Tensor | None = None) -> Found:
        """The `k` nearest training images of each query.

        Args:
            queries: uint8 `[S, 3, R, R]`.
            k: how many; at most the number of training images.
            exclude: int64 `[S]`, a training image that does not count, such as the query itself.
        """
        queries = queries.cpu()
        usual = _CANDIDATES * 64**2 // queries.shape[-1] ** 2
        count = min(max(k, _LEAST_CANDIDATES, min(usual, _CANDIDATES)), len(self.images))
        chosen, mirrored = self._candidates(queries, count, exclude)
        exact = torch.stack(
            [self._exact(*row) for row in zip(queries, chosen, mirrored, strict=True)]
        )
        if exclude is not None:  # with few training images it may stand among the candidates
            exact[chosen == exclude[:, None]] = torch.inf
        found = exact.topk(k, dim=1, largest=False)
        return Found(
            found.values, chosen.gather(1, found.indices), mirrored.gather(1, found.indices)
        )

    def _candidates(
        self, queries: Tensor, count: int, exclude: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The `count` nearest by thumbnail, and whether mirrored, `[S, count]` each."""
        plain = _thumbnails(queries)
        flipped = _thumbnails(queries.flip(3)) if self.mirror else plain
        best = torch.full((len(queries), 0), torch.inf)
        places = torch.zeros(len(queries), 0, dtype=torch.int64)
        mirrored = torch.zeros(len(queries), 0, dtype=torch.bool)
        for start in range(0, len(self._bytes), _BLOCK):
            block = self._bytes[start : start + _BLOCK].float()
            straight, across = torch.cdist(plain, block), torch.cdist(flipped, block)
            here = torch.arange(start, start + len(block)).expand(len(queries), -1)
            distances = torch.minimum(straight, across)
            if exclude is not None:
                distances = distances.masked_fill(here == exclude[:, None], torch.inf)
            best, places = torch.cat([best, distances], 1), torch.cat([places, here], 1)
            mirrored = torch.cat([mirrored, across < straight], 1)
            best, kept = best.topk(min(count, best.shape[1]), dim=1, largest=False)
            places, mirrored = places.gather(1, kept), mirrored.gather(1, kept)
        return places, mirrored

    def _exact(self, query: Tensor, chosen: Tensor, mirrored: Tensor) -> Tensor:
        """Root mean square difference of a query `[3, R, R]` to some training images."""
        others = torch.from_numpy(np.stack([self.images[int(i)] for i in chosen])).float()
        others = torch.where(mirrored[:, None, None, None], others.flip(3), others)
        return (others - query.float()).square().mean(dim=[1, 2, 3]).sqrt() / 255


def _thumbnails(images: Tensor) -> Tensor:  # uint8 [N, 3, R, R] -> float32 [N, 3 * T * T]
    side = min(THUMBNAIL_SIDE, images.shape[-1])
    return F.adaptive_avg_pool2d(images.float(), side).flatten(1)


@dataclass(frozen=True)
class Memorisation:
    """How samples compare with images that can not be copies.

    Attributes:
        share: of the samples, nearer to a training image than 95 % of the others are: 0.05 where
            nothing is copied, 1 where everything is.
        ratio: median distance of the samples over that of the others: 1 where nothing is copied,
            0 where everything is.
    """

    share: float
    ratio: float


def memorisation(samples: Tensor, others: Tensor) -> Memorisation:
    """Compare distances to the nearest training image.

    Args:
        samples: `[S]` of the samples.
        others: `[M]` of held-back images, or of training images to the nearest other one.
    """
    samples, others = samples.double(), others.double()
    share = (samples < others.quantile(USUAL_SHARE)).double().mean()
    ratio = samples.median() / others.median().clamp_min(1e-12)
    return Memorisation(float(share), float(ratio))
