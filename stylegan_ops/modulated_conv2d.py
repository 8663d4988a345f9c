"""Convolutions of StyleGAN2: resampling, and modulated in the input-scaled form.

The input-scaled form multiplies the activations by the styles, applies one convolution that the
whole batch shares, and multiplies by the demodulation factors. It equals StyleGAN2's equations 1 to
3 (Karras et al., CVPR 2020), never builds per-sample weights, and costs two convolution passes
instead of three where the weights are frozen.

Shapes: N images, I input and O output channels, H W size.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from stylegan_ops.style_epilogue import style_epilogue
from stylegan_ops.upfirdn2d import upfirdn2d

EPS = 1e-8


def squared_norms(weight: torch.Tensor) -> torch.Tensor:
    """Sum of squares of each kernel of `[O, I, kh, kw]`, `[I, O]`: constant while weights are."""
    return weight.square().sum(dim=[2, 3]).t()


def demodulation(
    norms: torch.Tensor,
    styles: torch.Tensor,
    multiply: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.matmul,
) -> torch.Tensor:
    """Factors `[N, O]` that give each output channel unit variance (StyleGAN2, eq. 3).

    Args:
        norms: `squared_norms` of the weight, `[I, O]`.
        styles: `[N, I]`.
        multiply: `rows_times` where the bits of a row may not depend on its place in the batch.
    """
    return torch.rsqrt(multiply(styles.square(), norms) + EPS)


def conv2d_resample(
    x: torch.Tensor,
    weight: torch.Tensor,
    f: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    flip_weight: bool = True,
    bias: torch.Tensor | None = None,
    impl: str = "auto",
) -> torch.Tensor:
    """Convolve with FIR-filtered up- or down-sampling.

    Args:
        x: `[N, I, H, W]`.
        weight: `[O, I, k, k]`.
        f: FIR filter `[fh, fw]`, or `[k]` for a separable one, with sum 1, needed when `up` or
            `down` is not 1.
        up: up-sampling factor, applied before the convolution.
        down: down-sampling factor, applied after it.
        padding: as for the same convolution without resampling.
        flip_weight: True correlates (as `torch.nn.functional.conv2d`), False convolves.
        bias: `[O]`, added to the result (not together with `up`), or None.
        impl: of the FIR filter (see `upfirdn2d`).

    Returns:
        `[N, O, ceil(H * up / down), ceil(W * up / down)]` for odd `k` and `padding = k // 2`.

    Raises:
        ValueError: for a bias together with `up`.
    """
    if up > 1 and bias is not None:
        raise ValueError(f"up={up} does not go with a bias")
    size = weight.shape[-1]
    taps = 1 if f is None else f.shape[-1]
    before = after = padding
    if down > 1:
        before, after = before + (taps - down + 1) // 2, after + (taps - down) // 2
    if up > 1:
        # Transposed convolution is a true convolution of the zero-inserted input.
        kernel = weight.flip([2, 3]) if flip_weight else weight
        x = F.conv_transpose2d(x, kernel.transpose(0, 1), stride=up)
        before += (taps + up - 1) // 2 - (size - 1)
        after += (taps - up) // 2 - (size - up)
        x = upfirdn2d(x, f, padding=[before, after, before, after], gain=up**2, impl=impl)
        return x if down == 1 else upfirdn2d(x, f, down=down, impl=impl)
    kernel = weight if flip_weight else weight.flip([2, 3])
    if down > 1:
        pads = [before, after, before, after]
        if size == 1:  # filtering at the low resolution is the same and cheaper
            return F.conv2d(upfirdn2d(x, f, down=down, padding=pads, impl=impl), kernel, bias)
        return F.conv2d(upfirdn2d(x, f, padding=pads, impl=impl), kernel, bias, stride=down)
    return F.conv2d(x, kernel, bias, padding=padding)


def modulated_conv2d(
    x: torch.Tensor,
    weight: torch.Tensor,
    styles: torch.Tensor,
    noise: torch.Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: torch.Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    impl: str = "auto",
) -> torch.Tensor:
    """Modulated convolution in the input-scaled form.

    Args:
        x: `[N, I, H, W]`.
        weight: `[O, I, k, k]`, shared by the batch.
        styles: `[N, I]`, one factor per sample and input channel.
        noise: added to the output, broadcastable to `[N, O, H', W']`, or None.
        up: as in `conv2d_resample`.
        down: as in `conv2d_resample`.
        padding: as in `conv2d_resample`.
        resample_filter: FIR filter of the resampling.
        demodulate: divide each output channel by its expected deviation.
        flip_weight: as in `conv2d_resample`.
        impl: of the FIR filter and of the demodulation with the noise (see `style_epilogue`).

    Returns:
        `[N, O, H', W']`.

    Example:
        >>> modulated_conv2d(torch.ones(1, 2, 4, 4), torch.ones(3, 2, 1, 1), torch.ones(1, 2)).shape
        torch.Size([1, 3, 4, 4])
    """
    x = x * styles[:, :, None, None]
    x = conv2d_resample(x, weight, resample_filter, up, down, padding, flip_weight, impl=impl)
    per_pixel = noise is not None and noise.ndim == 4 and noise.shape[1] == 1
    if demodulate:
        d = demodulation(squared_norms(weight), styles)
        b = x.new_zeros(x.shape[1])
        y, _ = style_epilogue(x, d, b, noise if per_pixel else None, alpha=1.0, gain=1.0, impl=impl)
        assert y is not None  # it was asked to keep it
        x = y
    return x if noise is None or (demodulate and per_pixel) else x + noise
