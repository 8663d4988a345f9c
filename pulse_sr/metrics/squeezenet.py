"""Features by SqueezeNet 1.0, the one ImageNet network that pulse-sr carries.

Network: Iandola et al., "SqueezeNet: AlexNet-level accuracy with 50x fewer parameters", 2016.
Weights: Han et al., "Deep Compression", BSD (`weights/LICENSE.squeezenet`), in float16. Distances
by these features are no LPIPS, FID or KID: those names belong to other networks, numbers differ.

Shapes: N images, C channels, h w feature map.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

#: Side that smaller images are enlarged to; the network was trained at 227.
LEAST_SIDE = 224

#: Feature maps that `squeezenet_features` returns: the input of every pooling, and the last one.
LAYERS = ("conv1", "fire4", "fire8", "fire9")
CHANNELS = (96, 256, 512, 512)

_FIRES = ("fire2", "fire3", "fire4", "pool", "fire5", "fire6", "fire7", "fire8", "pool", "fire9")
_MEAN_BGR = (104.0, 117.0, 123.0)
#: Least length that features are divided by.
UNIT_EPS = 1e-10

Weights = dict[str, Tensor]


@cache
def squeezenet_weights(device: torch.device) -> Weights:
    """Kernels and biases by layer, float32."""
    source = files("pulse_sr.metrics") / "weights" / "squeezenet_v1.0_decoded_fp16.npz"
    with source.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        arrays = {key: stored[key] for key in stored.files}
    # A tensor made inside inference mode could never take part in a gradient afterwards.
    with torch.inference_mode(False):
        return {key: torch.from_numpy(array).float().to(device) for key, array in arrays.items()}


def _preprocess(images: Tensor, least_side: int) -> Tensor:
    """RGB in [0, 1] to what the network was trained on: BGR, 0 to 255, minus the mean."""
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"expected float images [N, 3, H, W], got {images.dtype} {tuple(images.shape)}"
        )
    x = images.float()
    short = min(x.shape[-2:])
    if short < least_side:
        height, width = (round(side * least_side / short) for side in x.shape[-2:])
        x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    mean = torch.tensor(_MEAN_BGR, device=x.device).view(1, 3, 1, 1)
    # On a CPU this order of memory is twice as fast (measured at 64 px, one thread).
    return (x.flip(1) * 255.0 - mean).contiguous(memory_format=torch.channels_last)


def _conv(weights: Weights, name: str, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return F.relu(F.conv2d(x, kernel, bias, stride=stride, padding=padding))


def _pool(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, stride=2, ceil_mode=True)


def _fire(weights: Weights, name: str, x: Tensor) -> Tensor:
    squeezed = _conv(weights, f"{name}.conv1x1_1", x)
    wide = _conv(weights, f"{name}.conv3x3_2", squeezed, padding=1)
    return torch.cat([_conv(weights, f"{name}.conv1x1_2", squeezed), wide], dim=1)


def squeezenet_features(images: Tensor, least_side: int = LEAST_SIDE) -> list[Tensor]:
    """Feature maps of `LAYERS`, after the activation.

    Images whose shorter side is under `least_side` are enlarged bilinearly to it; larger ones are
    taken as they are.

    Args:
        images: RGB `[N, 3, H, W]` in [0, 1], any float dtype.
        least_side: in pixels; below 224, features are of larger things than they were learned for.

    Returns:
        float32 `[N, C, h, w]` with 96, 256, 512 and 512 channels, 109, 54, 27 and 13 px for 224.

    Raises:
        ValueError: for another shape or integers.
    """
    x = _preprocess(images, least_side)
    weights = squeezenet_weights(x.device)
    x = _conv(weights, "conv1", x, stride=2)
    maps = [x]
    x = _pool(x)
    for name in _FIRES:
        x = _pool(x) if name == "pool" else _fire(weights, name, x)
        if name in LAYERS:
            maps.append(x)
    return maps


def feature_distance(a: Tensor, b: Tensor, least_side: int = LEAST_SIDE) -> Tensor:
    """SqueezeNet feature distance.

    At every position of the maps of `LAYERS` the channels are scaled to unit length; the squared
    differences are summed over channels, averaged over positions, then over the four layers. The
    form of Zhang et al. (CVPR 2018) without their learned weights.

    Args:
        a: RGB `[N, 3, H, W]` in [0, 1].
        b: the same shape, or `[1, 3, H, W]` for all.
        least_side: see `squeezenet_features`.

    Returns:
        float32 `[N]`, from 0 (identical) to 2.

    Raises:
        ValueError: see `squeezenet_features`; also when the sizes differ.
    """
    if a.shape[-2:] != b.shape[-2:]:
        raise ValueError(f"images of {tuple(a.shape[-2:])} and {tuple(b.shape[-2:])} px")
    return distance_of_maps(squeezenet_features(a, least_side), squeezenet_features(b, least_side))


def distance_of_maps(a: list[Tensor], b: list[Tensor]) -> Tensor:
    """`feature_distance` of images whose `squeezenet_features` are known, float32 `[N]`."""
    distances = [
        (F.normalize(x, eps=UNIT_EPS) - F.normalize(y, eps=UNIT_EPS))
        .square()
        .sum(dim=1)
        .mean(dim=[1, 2])
        for x, y in zip(a, b, strict=True)
    ]
    return torch.stack(distances).mean(dim=0)


def pooled_features(images: Tensor, chunk: int = 16) -> Tensor:
    """Spatial mean of the last map over 32, float32 `[N, 512]`, `chunk` images at a time.

    The network takes pixels of 0 to 255, so its activations are large; divided by 32 they are of
    order one, as the kernel distance wants them.
    """
    with torch.no_grad():
        parts = [pooled_of_maps(squeezenet_features(part)) for part in images.split(chunk)]
    return torch.cat(parts)


def pooled_of_maps(maps: list[Tensor]) -> Tensor:
    """`pooled_features` of images whose `squeezenet_features` are known, float32 `[N, 512]`."""
    return maps[-1].mean(dim=[2, 3]) / 32
