"""Everything between two modulated convolutions: demodulation, noise, bias, leaky ReLU and gain.

Shapes: N images, C channels, H W size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from stylegan_ops.bias_act import SQRT2


def style_epilogue(
    x: torch.Tensor,
    d: torch.Tensor,
    b: torch.Tensor,
    noise: torch.Tensor | None = None,
    alpha: float = 0.2,
    gain: float = SQRT2,
) -> torch.Tensor:
    """Compute `leaky_relu(x * d + noise + b, alpha) * gain`.

    The gain is positive, so it commutes with the leaky ReLU and is folded into the small factors:
    that saves one pass over memory, and in-place steps save two more.

    Args:
        x: output of a convolution, `[N, C, H, W]`.
        d: demodulation factors `[N, C]`.
        b: bias `[C]`.
        noise: `[N or 1, 1, H, W]`, its strength applied, or None.
        alpha: slope of the negative side.
        gain: positive factor of the result.

    Returns:
        `[N, C, H, W]`, dtype of `x`.
    """
    d = (d * gain)[:, :, None, None]
    b = (b * gain)[None, :, None, None]
    if noise is None:
        y = torch.addcmul(b, x, d)
    elif noise.shape[0] == 1:
        y = torch.addcmul(torch.add(b, noise, alpha=gain), x, d)
    else:
        y = torch.addcmul(noise * gain, x, d).add_(b)
    return F.leaky_relu_(y, alpha)
