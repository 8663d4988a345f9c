"""The losses that a recipe can name, between enlarged patches and the true ones.

Shapes: n patches, P side of a patch; images in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch.nn.functional as F
from torch import Tensor

from pulse_sr.sr.losses.content import charbonnier, dssim, total_variation
from pulse_sr.sr.losses.frequency import (
    dct_loss,
    fft_loss,
    focal_frequency_loss,
    spectral_loss,
)

#: (enlarged, true), both `[n, 3, P, P]`, to a scalar.
Content = Callable[[Tensor, Tensor], Tensor]


def _variation(enlarged: Tensor, true: Tensor) -> Tensor:
    return total_variation(enlarged)


#: By the name in a recipe; "fft" sees the spectrum, "fft-l2" is the relative pixel distance.
PLAIN: Mapping[str, Content] = {
    "l1": F.l1_loss,
    "mse": F.mse_loss,
    "charbonnier": charbonnier,
    "tv": _variation,
    "dssim": dssim,
    "fft": fft_loss,
    "fft-l2": partial(fft_loss, norm="l2"),
    "fft-magnitude": partial(fft_loss, spectrum="magnitude"),
    "fft-log": partial(fft_loss, spectrum="log"),
    "dct": dct_loss,
    "spectral": spectral_loss,
    "focal-frequency": focal_frequency_loss,
}
