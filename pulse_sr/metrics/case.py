"""One input as metrics see it: its samples, its truth, and what several metrics need of both.

Shapes: S samples, H W size, h w low-res size, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pulse_sr.metrics.convention import RGB, Convention
from pulse_sr.metrics.diversity import map_of_distances
from pulse_sr.metrics.niqe import niqe_features
from pulse_sr.metrics.squeezenet import distance_of_maps, pooled_of_maps, squeezenet_features
from pulse_sr.operators.base import Operator


@dataclass(frozen=True)
class Seen:
    """What SqueezeNet says of an input.

    Attributes:
        distances: of each sample to the truth, float32 `[S]`.
        maps: the same at every pixel, float32 `[S, H, W]`; empty for a single sample.
        pooled: features of the first sample, float32 `[F]`.
        truth: features of the truth, float32 `[F]`.
    """

    distances: Tensor
    maps: Tensor
    pooled: Tensor
    truth: Tensor


class Case:
    """Samples and truth of one input.

    Args:
        samples: uint8 RGB `[S, 3, H, W]`, S at least 1.
        truth: uint8 RGB `[3, H, W]`.
        low: the observed low-res picture, uint8 RGB `[3, h, w]`; None: there is none.
        operator: what it is the image of; None: not known.
        convention: what PSNR and SSIM look at.
        device: of the networks.
        whole: uint8 RGB `[S, 3, R, R]`, what the operator is applied to where `samples` are cut out
            of it; None: `samples`.

    Raises:
        ValueError: when the sizes of samples and truth differ.
    """

    def __init__(
        self,
        samples: Tensor,
        truth: Tensor,
        low: Tensor | None = None,
        operator: Operator | None = None,
        convention: Convention = RGB,
        device: torch.device | str = "cpu",
        whole: Tensor | None = None,
    ) -> None:
        if samples.shape[1:] != truth.shape or not len(samples):
            (h, w), (height, width) = samples.shape[-2:], truth.shape[-2:]
            raise ValueError(f"the result is {w}x{h} px, its reference {width}x{height} px")
        self.bytes, self.truth_bytes = samples, truth
        self.whole = samples if whole is None else whole
        self.low, self.operator = low, operator
        self.convention, self.device = convention, device

    def __len__(self) -> int:
        return len(self.bytes)

    @cached_property
    def samples(self) -> Tensor:
        """float64 `[S, 3, H, W]` in [0, 1]."""
        return self.bytes.double() / 255

    @cached_property
    def truth(self) -> Tensor:
        """float64 `[3, H, W]` in [0, 1]."""
        return self.truth_bytes.double() / 255

    @cached_property
    def compared(self) -> tuple[Tensor, Tensor]:
        """What the convention takes of samples `[S, C, h, w]` and truth `[1, C, h, w]`, float64."""
        return self.convention.of(self.samples), self.convention.of(self.truth[None])

    @cached_property
    def seen(self) -> Seen:
        """One pass of SqueezeNet an image, which is all that the metrics by it need."""
        size = (int(self.truth.shape[-2]), int(self.truth.shape[-1]))
        with torch.no_grad():
            wanted = squeezenet_features(self.truth[None].float().to(self.device))
            distances, maps, pooled = [], [], torch.zeros(0)
            for i, sample in enumerate(self.samples):  # one at a time: maps are large
                found = squeezenet_features(sample[None].float().to(self.device))
                distances.append(distance_of_maps(found, wanted))
                if len(self) > 1:
                    maps.append(map_of_distances(found, wanted, size))
                if i == 0:
                    pooled = pooled_of_maps(found)[0].cpu()
            truth = pooled_of_maps(wanted)[0].cpu()
        empty = torch.zeros(0, *size)
        return Seen(
            torch.cat(distances).cpu(), torch.cat(maps).cpu() if maps else empty, pooled, truth
        )

    @cached_property
    def niqe_features(self) -> list[Tensor]:
        """Of each sample `[B, 36]`, without the border of the convention."""
        return [niqe_features(each) for each in self.convention.cropped(self.samples)]
