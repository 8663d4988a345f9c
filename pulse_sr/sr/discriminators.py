"""Discriminators of supervised super-resolution: logits, positive for real images.

Shapes: N images, C channels, H W pixels.
"""

from __future__ import annotations

import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import spectral_norm

from pulse_sr.sr.spectrum import azimuthal_mean, grey_of, log_magnitude, normalised

SLOPE = 0.2


class VGGDiscriminator(nn.Module):
    """The discriminator of SRGAN: eight convolutions, every second one halves; two dense layers.

    Ledig et al., CVPR 2017, figure 4, without the sigmoid. Under a gradient penalty it must not
    normalise over the batch: the gradient of an image would go through the others (Gulrajani et
    al., NeurIPS 2017, section 4).

    Args:
        size: height and width of the images, any from 16 on; 96 in the paper.
        channels: 3 for RGB, 1 for grey.
        width: channels of the first convolution; the last has eight times as many.
        hidden: width of the dense layer.
        batch_norm: normalise after all convolutions but the first.
    """

    def __init__(
        self,
        size: int | tuple[int, int] = 96,
        channels: int = 3,
        width: int = 64,
        hidden: int = 1024,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        self.size = (size, size) if isinstance(size, int) else size
        self.channels = channels
        layers: list[nn.Module] = []
        in_channels = channels
        for i in range(8):
            out_channels = width * 2 ** (i // 2)
            norm = batch_norm and i > 0
            layers.append(nn.Conv2d(in_channels, out_channels, 3, 1 + i % 2, 1, bias=not norm))
            layers += [nn.BatchNorm2d(out_channels)] * norm
            layers.append(nn.LeakyReLU(SLOPE, inplace=True))
            in_channels = out_channels
        self.features = nn.Sequential(*layers)
        left = -(-self.size[0] // 16) * -(-self.size[1] // 16)
        self.classifier = nn.Sequential(
            nn.Linear(in_channels * left, hidden),
            nn.LeakyReLU(SLOPE, inplace=True),
            nn.Linear(hidden, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, 1]` of images `[N, C, H, W]` in [0, 1].

        Raises:
            ValueError: for images of another shape than the network was built for.
        """
        expected = (self.channels, *self.size)
        if images.shape[1:] != expected:
            raise ValueError(f"images of {tuple(images.shape[1:])}, expected {expected}")
        y: Tensor = self.classifier(self.features(images).flatten(1))
        return y


class UNetDiscriminator(nn.Module):
    """The U-Net with spectral normalisation of Real-ESRGAN: one logit a pixel.

    Wang et al., ICCVW 2021, section 3.3, with the key names of the published files; 4,376,897
    parameters by default.

    Args:
        channels: 3 for RGB, 1 for grey.
        width: channels of the first convolution.
    """

    def __init__(self, channels: int = 3, width: int = 64) -> None:
        super().__init__()

        def conv(in_channels: int, out_channels: int, size: int = 3) -> nn.Module:
            stride = 2 if size == 4 else 1
            return spectral_norm(
                nn.Conv2d(in_channels, out_channels, size, stride, padding=1, bias=False)
            )

        self.conv0 = nn.Conv2d(channels, width, 3, padding=1)
        self.conv1 = conv(width, 2 * width, 4)
        self.conv2 = conv(2 * width, 4 * width, 4)
        self.conv3 = conv(4 * width, 8 * width, 4)
        self.conv4 = conv(8 * width, 4 * width)
        self.conv5 = conv(4 * width, 2 * width)
        self.conv6 = conv(2 * width, width)
        self.conv7, self.conv8 = conv(width, width), conv(width, width)
        self.conv9 = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, 1, H, W]` of images `[N, C, H, W]` in [0, 1], H and W at least 8."""
        skips = [F.leaky_relu(self.conv0(images), SLOPE)]
        for conv in (self.conv1, self.conv2, self.conv3):
            skips.append(F.leaky_relu(conv(skips[-1]), SLOPE))
        y = skips.pop()
        for conv in (self.conv4, self.conv5, self.conv6):
            skip = skips.pop()
            y = F.interpolate(y, size=skip.shape[-2:], mode="bilinear", align_corners=False)
            y = F.leaky_relu(conv(y), SLOPE) + skip
        for conv in (self.conv7, self.conv8):
            y = F.leaky_relu(conv(y), SLOPE)
        logits: Tensor = self.conv9(y)
        return logits


class SpectralDiscriminator(nn.Module):
    """A linear layer on the profile of the spectrum of an image.

    Chen et al., "SSD-GAN: Measuring the Realness in the Spatial and Spectral Domains", AAAI 2021,
    section 3.2: the azimuthal mean of the logarithmic magnitudes of the luma, scaled to [0, 1]. The
    mean of the image is left out, and so are the corners beyond the Nyquist frequency.

    Args:
        size: height and width of the images.
    """

    def __init__(self, size: int | tuple[int, int]) -> None:
        super().__init__()
        self.rings = min((size, size) if isinstance(size, int) else size) // 2
        self.linear = nn.Linear(self.rings, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Logits `[N, 1]` of images `[N, C, H, W]` in [0, 1], C 1 or 3.

        Raises:
            ValueError: for images of another size than the network was built for.
        """
        profile = normalised(azimuthal_mean(log_magnitude(grey_of(images)))[..., 1:])
        if profile.shape[-1] != self.rings:
            raise ValueError(f"images of {tuple(images.shape[-2:])} px have another spectrum")
        y: Tensor = self.linear(profile)
        return y


class SSDDiscriminator(nn.Module):
    """A discriminator of pixels and one of spectra, weighed against each other (SSD-GAN).

    Args:
        spatial: images to logits `[N, 1]` or a map of them.
        spectral: images to logits `[N, 1]`.
        weight: lambda of the paper's equation 8, the share of the pixels.
    """

    def __init__(self, spatial: nn.Module, spectral: nn.Module, weight: float = 0.5) -> None:
        super().__init__()
        self.spatial, self.spectral, self.weight = spatial, spectral, weight

    def forward(self, images: Tensor) -> Tensor:
        """Logits as those of `spatial`, for the loss of both sides of the game.

        As in the authors' code the spectral part weighs in without a gradient: its weights learn
        from a loss on `spectral_logits` alone.
        """
        spatial = self.spatial(images)
        spectral = self.spectral_logits(images).detach()
        spectral = spectral.view(-1, *[1] * (spatial.dim() - 1))
        y: Tensor = self.weight * spatial + (1 - self.weight) * spectral
        return y

    def spectral_logits(self, images: Tensor) -> Tensor:
        """Logits `[N, 1]` of the spectra, to train the spectral layer by."""
        y: Tensor = self.spectral(images)
        return y
