"""How different the images of a set are: in pixels, and by the NTIRE diversity score.

Shapes: N images, S samples of one input, H W size, h w feature map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.metrics.squeezenet import UNIT_EPS, squeezenet_features


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


def distance_maps(samples: Tensor, truth: Tensor) -> Tensor:
    """SqueezeNet feature distance to the truth at every pixel.

    At every position of the feature maps the channels are scaled to unit length and the squared
    differences summed, as in `squeezenet.feature_distance`; each map is enlarged bilinearly to the
    size of the image, and the four are averaged.

    Args:
        samples: RGB `[S, 3, H, W]` in [0, 1]; one is put through the network at a time.
        truth: RGB `[3, H, W]` in [0, 1].

    Returns:
        float32 `[S, H, W]`, from 0 (equal) to 2.

    Raises:
        ValueError: when the sizes differ, or see `squeezenet_features`.
    """
    if samples.shape[1:] != truth.shape:
        raise ValueError(f"samples {tuple(samples.shape)} and truth {tuple(truth.shape)} differ")
    size = (int(truth.shape[-2]), int(truth.shape[-1]))
    with torch.no_grad():
        wanted = squeezenet_features(truth[None])
        return torch.cat(
            [map_of_distances(squeezenet_features(each[None]), wanted, size) for each in samples]
        )


def map_of_distances(a: list[Tensor], b: list[Tensor], size: tuple[int, int]) -> Tensor:
    """`distance_maps` of images whose `squeezenet_features` are known, float32 `[N, H, W]`."""
    total = torch.zeros(len(a[0]), *size, device=a[0].device)
    for found, truth in zip(a, b, strict=True):
        difference = F.normalize(found, eps=UNIT_EPS) - F.normalize(truth, eps=UNIT_EPS)
        apart = difference.square().sum(dim=1, keepdim=True)
        total += F.interpolate(apart, size=size, mode="bilinear", align_corners=False)[:, 0]
    return total / len(a)


def diversity_score(maps: Tensor) -> float:
    """Diversity score of the samples of one input, in percent: 0 for equal samples.

    `100 (global best - local best) / global best`: global best is the distance of the best sample
    to the truth, local best the mean over pixels of the least distance that any sample has there.
    Lugmayr et al., "NTIRE 2021 Learning the Super-Resolution Space Challenge", section 3; its score
    of a set is the mean over the inputs. The challenge takes LPIPS for the distance: numbers taken
    with another one, such as `distance_maps`, do not compare with it.

    Args:
        maps: distance of each sample to the truth at every pixel, `[S, H, W]`, 0 or more.

    Returns:
        From 0 to 100; 0 also where one sample is the truth itself, and nothing is left to gain.

    Raises:
        ValueError: no samples.
    """
    if maps.dim() != 3 or not len(maps):
        raise ValueError(f"expected distances [S, H, W] with S >= 1, got {tuple(maps.shape)}")
    maps = maps.double()
    global_best = float(maps.mean(dim=(1, 2)).min())
    local_best = float(maps.min(dim=0).values.mean())
    return 100.0 * (global_best - local_best) / global_best if global_best > 0 else 0.0
