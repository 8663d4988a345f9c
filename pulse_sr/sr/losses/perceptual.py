"""Losses between an enlarged image and its original, by what an ImageNet network sees in them.

All take images `[N, C, H, W]` in [0, 1], C 3 or 1, and return a scalar, a mean over the images.
Their networks are frozen, and files of the user's (`pulse_sr.sr.backbones`). The one network that
pulse-sr carries is `pulse_sr.metrics.squeezenet`, above this room: its `feature_distance` is a
loss as well, and needs no file.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.sr.backbones import (
    ALEXNET,
    VGG16,
    VGG19,
    layer_index,
    normalise,
    read_weights,
    vgg_features,
)

#: What SRGAN multiplies VGG features by, for a loss about as large as that of the pixels.
SRGAN_SCALE = 1 / 12.75
#: Last activations of the five blocks of VGG-16.
_DISTS_LAYERS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")
_C1 = _C2 = 1e-6


class VGGLoss(nn.Module):
    """Distance of the maps of one layer of VGG-19.

    Ledig et al., SRGAN, CVPR 2017, equation 5 (after the activation, mean square, scaled); Wang et
    al., ESRGAN, ECCVW 2018, section 3.3 (before the activation, mean absolute difference).

    Args:
        layer: "relu2_2" (VGG22), "relu5_4" (VGG54) or "conv5_4" (VGG54 before the activation).
        criterion: `mse_loss` or `l1_loss`.
        scale: of the features.
        folder: of the weights; None: torch hub's.

    Raises:
        ValueError: for an unknown layer.
        SetupError: the weights are missing or damaged.
    """

    def __init__(
        self,
        layer: str = "relu5_4",
        criterion: Callable[[Tensor, Tensor], Tensor] = F.mse_loss,
        scale: float = SRGAN_SCALE,
        folder: Path | None = None,
    ) -> None:
        super().__init__()
        end = layer_index(layer, VGG19) + 1
        self.features = vgg_features(VGG19, folder)[:end]
        self.criterion, self.scale = criterion, scale

    def forward(self, enlarged: Tensor, original: Tensor) -> Tensor:
        with torch.no_grad():
            wanted = self.scale * self.features(normalise(original))
        return self.criterion(self.scale * self.features(normalise(enlarged)), wanted)


class LPIPSLoss(nn.Module):
    """LPIPS 0.1 by the package `lpips`, with its learned weights.

    Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR
    2018. The authors advise "vgg" as a loss, "alex" as a metric.

    Args:
        network: "vgg" or "alex".
        folder: of the weights; None: torch hub's.

    Raises:
        SetupError: the weights are missing or damaged.
    """

    def __init__(self, network: str = "vgg", folder: Path | None = None) -> None:
        super().__init__()
        weights = read_weights(VGG16 if network == "vgg" else ALEXNET, folder)
        import lpips  # with torchvision: seconds, and 160 MB

        with warnings.catch_warnings():  # of torchvision, about how the package calls it
            warnings.simplefilter("ignore", UserWarning)
            self.lpips = lpips.LPIPS(net=network, pnet_rand=True, verbose=False)
        backbone = self.lpips.net
        # `slice3.10.weight` is layer 10 of the network.
        backbone.load_state_dict({k: weights[k.split(".", 1)[1]] for k in backbone.state_dict()})
        self.lpips.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> LPIPSLoss:
        """Nothing: the package has dropout layers, which are for learning its weights."""
        return self

    def forward(self, enlarged: Tensor, original: Tensor) -> Tensor:
        channels = (-1, 3, -1, -1)
        distances: Tensor = self.lpips(
            enlarged.expand(channels), original.expand(channels), normalize=True
        )
        return distances.mean()


def l2_pool(x: Tensor) -> Tensor:
    """Half the size `[N, C, h, w]`: the root of the mean square under a 3x3 Hann window."""
    taps = torch.hann_window(5, periodic=False, dtype=x.dtype, device=x.device)[1:-1]
    kernel = taps[:, None] * taps / taps.sum() ** 2
    channels = x.shape[1]
    power = F.conv2d(
        x.square(), kernel.expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels
    )
    return (power + 1e-12).sqrt()


def dists_of_features(
    a: Sequence[Tensor], b: Sequence[Tensor], alpha: Tensor, beta: Tensor
) -> Tensor:
    """DISTS `[N]` of the maps of two images: means tell texture, covariances structure.

    Args:
        a: maps `[N, C_i, h_i, w_i]`.
        b: the same shapes.
        alpha: `[sum of C_i]`, weights of the means.
        beta: those of the covariances.
    """
    texture, structure = [], []
    for x, y in zip(a, b, strict=True):
        x, y = x.flatten(2), y.flatten(2)
        mean_x, mean_y = x.mean(dim=2), y.mean(dim=2)
        dx, dy = x - mean_x[..., None], y - mean_y[..., None]
        variances = dx.square().mean(dim=2) + dy.square().mean(dim=2)
        texture.append((2 * mean_x * mean_y + _C1) / (mean_x.square() + mean_y.square() + _C1))
        structure.append((2 * (dx * dy).mean(dim=2) + _C2) / (variances + _C2))
    similarity = (alpha * torch.cat(texture, dim=1) + beta * torch.cat(structure, dim=1)).sum(dim=1)
    return 1 - similarity / (alpha.sum() + beta.sum())


class DISTSLoss(nn.Module):
    """Deep image structure and texture similarity, 0 for the same image.

    Ding et al., "Image Quality Assessment: Unifying Structure and Texture Similarity", IEEE TPAMI
    2020: VGG-16 with L2 pooling, and the image itself as the first map. The authors' metric first
    reduces the shorter side to 256 px; the loss takes images as they are.

    Args:
        folder: of the VGG weights; None: torch hub's. The authors' alpha and beta are part of
            pulse-sr (`weights/LICENSE.dists`).

    Raises:
        SetupError: the weights are missing or damaged.
    """

    alpha: Tensor
    beta: Tensor

    def __init__(self, folder: Path | None = None) -> None:
        super().__init__()
        self.features = vgg_features(VGG16, folder)
        self.kept = {layer_index(name, VGG16) for name in _DISTS_LAYERS}
        source = files("pulse_sr.sr.losses") / "weights" / "dists_alpha_beta.npz"
        with source.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            for name in ("alpha", "beta"):
                self.register_buffer(name, torch.from_numpy(stored[name]))

    def _maps(self, images: Tensor) -> list[Tensor]:
        maps, x = [images], normalise(images)
        for i, layer in enumerate(self.features[: max(self.kept) + 1]):
            x = l2_pool(x) if isinstance(layer, nn.MaxPool2d) else layer(x)
            if i in self.kept:
                maps.append(x)
        return maps

    def forward(self, enlarged: Tensor, original: Tensor) -> Tensor:
        channels = (-1, 3, -1, -1)
        with torch.no_grad():
            wanted = self._maps(original.expand(channels))
        found = self._maps(enlarged.expand(channels))
        return dists_of_features(found, wanted, self.alpha, self.beta).mean()


#: What a name means; each takes the folder of the weights.
PERCEPTUAL: dict[str, Callable[[Path | None], nn.Module]] = {
    "vgg22": lambda folder: VGGLoss("relu2_2", folder=folder),
    "vgg54": lambda folder: VGGLoss("relu5_4", folder=folder),
    "vgg54-before-relu": lambda folder: VGGLoss("conv5_4", F.l1_loss, 1.0, folder),
    "lpips-vgg": lambda folder: LPIPSLoss("vgg", folder),
    "lpips-alex": lambda folder: LPIPSLoss("alex", folder),
    "dists": DISTSLoss,
}
