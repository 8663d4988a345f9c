"""What is compared of two pictures: which channels, without which border.

Tables of super-resolution differ by decibels in this alone, so the words of a convention stand
beside every number.

Shapes: N images, H W size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

CHANNELS = ("rgb", "y")
#: Y of ITU-R BT.601 in studio range, 16 to 235, from RGB in [0, 1].
LUMA, LUMA_OFFSET = (65.481, 128.553, 24.966), 16.0


def luma(images: Tensor) -> Tensor:
    """Y of ITU-R BT.601, studio range: `[N, 3, H, W]` in [0, 1] to float64 `[N, H, W]`, 16 to 235.

    Not rounded, as in MATLAB's `rgb2ycbcr` of floats. Full-range luma gives a PSNR that is
    20 log10(255 / 219) = 1.32 dB lower.
    """
    weights = torch.tensor(LUMA, dtype=torch.float64, device=images.device)
    return (images.double() * weights.view(1, 3, 1, 1)).sum(dim=1) + LUMA_OFFSET


@dataclass(frozen=True)
class Convention:
    """What PSNR and SSIM look at.

    Attributes:
        channels: "rgb", or "y" for `luma` over 255.
        crop: px that are left out at each side.
    """

    channels: str = "rgb"
    crop: int = 0

    @property
    def words(self) -> str:
        """For people, beside a number."""
        return f"{'RGB' if self.channels == 'rgb' else 'Y (BT.601, studio range)'}, {self.border}"

    @property
    def border(self) -> str:
        """The words of the border alone."""
        return f"without {self.crop} px at each side" if self.crop else "no crop"

    def of(self, images: Tensor) -> Tensor:
        """The part that is compared, float64 `[N, C, h, w]` with peak 1.

        Args:
            images: RGB `[N, 3, H, W]` in [0, 1].

        Raises:
            ValueError: when nothing is left, or for another shape.
        """
        if images.dim() != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise ValueError(
                f"expected float images [N, 3, H, W], got {images.dtype} {tuple(images.shape)}"
            )
        x = self.cropped(images)
        return luma(x)[:, None] / 255 if self.channels == "y" else x.double()

    def cropped(self, images: Tensor) -> Tensor:
        """Without the border, `[N, C, h, w]`; raises as `of`."""
        height, width = images.shape[-2:]
        if 2 * self.crop >= min(height, width):
            raise ValueError(f"a border of {self.crop} px leaves nothing of {width}x{height} px")
        return images[..., self.crop : height - self.crop, self.crop : width - self.crop]


#: All channels, all pixels.
RGB = Convention()
