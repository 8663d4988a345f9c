"""The ops that StyleGAN generators, discriminators and latent searches spend their time on.

Each op has one file with a plain PyTorch reference that defines the result on every device and to
every order of differentiation. Names and argument orders are those that the field knows.
"""

from stylegan_ops.bias_act import SQRT2, bias_act
from stylegan_ops.modulated_conv2d import (
    conv2d_resample,
    demodulation,
    modulated_conv2d,
    squared_norms,
)
from stylegan_ops.style_epilogue import style_epilogue
from stylegan_ops.upfirdn2d import setup_filter, upfirdn2d, upsample2d, upsample_matrix

__all__ = [
    "SQRT2",
    "bias_act",
    "conv2d_resample",
    "demodulation",
    "modulated_conv2d",
    "setup_filter",
    "squared_norms",
    "style_epilogue",
    "upfirdn2d",
    "upsample2d",
    "upsample_matrix",
]
