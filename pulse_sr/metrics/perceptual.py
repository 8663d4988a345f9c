"""LPIPS and DISTS as metrics: the losses of `pulse_sr.sr.losses.perceptual`, as tables take them.

Their networks are weight files of the user's; where one is missing, nothing takes its place.

Shapes: N images, H W size.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.sr.losses.perceptual import DISTSLoss, LPIPSLoss

#: Shorter side that DISTS was fitted at: larger images are reduced to it.
DISTS_SIDE = 256
#: The smallest image with all the maps that AlexNet and VGG-16 have.
LEAST_SIDE = 32


class PerceptualMetric:
    """A distance of images by a network, 0 for the same image.

    Args:
        name: "lpips-alex", "lpips-vgg" or "dists".
        folder: of the weights; None: torch hub's.
        device: where to compute.

    Raises:
        SetupError: the weights are missing or damaged.
        ValueError: another name.
    """

    def __init__(
        self, name: str, folder: Path | None = None, device: torch.device | str = "cpu"
    ) -> None:
        if name not in ("lpips-alex", "lpips-vgg", "dists"):
            raise ValueError(f"no perceptual metric {name!r}")
        self.reduces, self.device = name == "dists", device
        kind = name.removeprefix("lpips-")
        loss = DISTSLoss(folder) if name == "dists" else LPIPSLoss(kind, folder)
        self.loss = loss.to(device).eval()

    def __call__(self, images: Tensor, truth: Tensor) -> list[float]:
        """The distance of each of some images to the truth.

        Args:
            images: RGB `[N, 3, H, W]` in [0, 1].
            truth: RGB `[3, H, W]`.

        Raises:
            ValueError: images under 32 px.
        """
        if min(images.shape[-2:]) < LEAST_SIDE:
            raise ValueError(f"the network needs {LEAST_SIDE} px or more, got {images.shape[-2:]}")
        with torch.no_grad():
            wanted = self._sized(truth[None])
            return [float(self.loss(self._sized(each[None]), wanted)) for each in images]

    def _sized(self, images: Tensor) -> Tensor:
        x, short = images.float().to(self.device), min(images.shape[-2:])
        if not self.reduces or short <= DISTS_SIDE:
            return x
        height, width = (round(side * DISTS_SIDE / short) for side in x.shape[-2:])
        return F.interpolate(x, size=(height, width), mode="bilinear", antialias=True)
