"""How FastGAN learns: hinge loss with label noise, and a discriminator that reconstructs.

Liu et al., "Towards Faster and Stabilized GAN Training for High-fidelity Few-shot Image Synthesis",
ICLR 2021, section 3.2: decoders on the discriminator's feature maps of real images keep those maps
from looking at a few details only.

Shapes: N images of the batch, n of a part, R resolution, s side of the small image.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.priors.base import Prior
from pulse_sr.priors.fastgan import FastGANConfig, FastGANGenerator
from pulse_sr.priors.fastgan_folding import fold
from pulse_sr.priors.fastgan_layers import advance_spectral_norm
from pulse_sr.priors.fastgan_prior import FastGANPrior
from pulse_sr.priors.recalibration import recalibrate
from pulse_sr.priors.statistics import standard_statistics
from pulse_sr.sr.losses.adversarial import LOSSES
from pulse_sr.training.gan.fastgan_discriminator import (
    LOGITS,
    FastGANDiscriminator,
    Reconstructions,
    quarter_of,
)
from pulse_sr.training.gan.fastgan_reconstruction import RECONSTRUCTIONS
from pulse_sr.training.gan.objective import Augment, Draws, Images, Objective

#: The published training adds up the reconstruction error over its batch of eight images.
RECONSTRUCTION_WEIGHT = 8.0
#: Margins of the hinge loss are uniform in [0.8, 1]: one-sided label noise.
LEAST_MARGIN = 0.8


class FastGANObjective(Objective):
    """FastGAN's generator and its discriminator with decoders.

    An update of a network is one power iteration of its spectral norms. Batch norm takes the
    statistics of a part of the batch over all processes. As published, one call of G serves both
    updates.
    """

    generator: FastGANGenerator
    discriminator: FastGANDiscriminator
    shares_images = True

    def __init__(
        self,
        config: FastGANConfig,
        loss: str = "hinge",
        reconstruction: str = "squeezenet",
        ndf: int | None = None,
    ) -> None:
        """Random networks, drawn from torch's global generator.

        Args:
            config: shape of G.
            loss: out of `options.LOSSES`; "hinge" comes with label noise here.
            reconstruction: out of `fastgan_reconstruction.RECONSTRUCTIONS`.
            ndf: width of D; None: that of G.
        """
        self.generator = FastGANGenerator(config)
        self.discriminator = FastGANDiscriminator(config, ndf)
        self.loss, self.hinge = LOSSES[loss], loss == "hinge"
        self.distance = RECONSTRUCTIONS[reconstruction]
        # Compiled, these take no second derivative: penalties call the networks themselves.
        self._generate: Callable[..., tuple[Tensor, Tensor]] = self.generator
        self._judge: Callable[..., tuple[Tensor, Reconstructions | None]] = self.discriminator

    def draw(self, count: int, rng: torch.Generator) -> Draws:
        config, device = self.generator.config, rng.device
        draws = {"z": torch.randn(count, config.z_dim, generator=rng, device=device)}
        for i, shape in enumerate(config.noise_shapes):
            draws[f"noise{i}"] = torch.randn(count, 1, *shape, generator=rng, device=device)
        for side in ("real", "fake"):
            margin = torch.rand(count, LOGITS, generator=rng, device=device)
            draws[f"{side}_margin"] = LEAST_MARGIN + (1 - LEAST_MARGIN) * margin
        draws["quarter"] = torch.randint(4, (count,), generator=rng, device=device)
        return draws

    def prepare(self, network: nn.Module) -> None:
        advance_spectral_norm(network)

    def generate(self, draws: Draws) -> Images:
        """The images and small ones, `[n, 3, R, R]` and `[n, 3, s, s]`."""
        noise = [draws[f"noise{i}"] for i in range(len(self.generator.config.noise_shapes))]
        return self._generate(draws["z"], noise)

    def logits(self, images: Tensor, draws: Draws, augment: Augment) -> Tensor:
        return self.discriminator(augment(images))[0]  # type: ignore[no-any-return]

    def generator_loss(self, real: Tensor, fake: Images, augment: Augment) -> Tensor:
        big, small = fake
        on_fake = self._judge(augment(big), augment(small))[0]
        on_real = self._judge(augment(real))[0] if self.loss.paired else None
        return self.loss.generator(on_real, on_fake)

    def discriminator_loss(
        self,
        real: Tensor,
        fake: Images,
        draws: Draws,
        augment_real: Augment,
        augment_fake: Augment,
    ) -> tuple[Tensor, Tensor, Tensor]:
        big, small = fake
        real = augment_real(real)
        real_small = self.discriminator.shrink(real)
        on_real, decoded = self._judge(real, real_small, draws["quarter"])
        on_fake, _ = self._judge(augment_fake(big), augment_fake(small))
        assert decoded is not None  # a quarter was given
        kept = self._reconstruction_loss(decoded, real, real_small, draws["quarter"])
        if self.hinge:
            loss = noisy_hinge(on_real, on_fake, draws["real_margin"], draws["fake_margin"])
        else:
            loss = self.loss.discriminator(on_real, on_fake)
        return loss + RECONSTRUCTION_WEIGHT * kept, on_real, on_fake

    def _reconstruction_loss(
        self, decoded: Reconstructions, real: Tensor, small: Tensor, quarter: Tensor
    ) -> Tensor:
        """Distances of the decoded images from what was to be decoded, added up."""
        size = decoded.whole.shape[2:]
        whole = F.interpolate(real, size=size, mode="area")
        part = F.interpolate(quarter_of(real, quarter), size=size, mode="area")
        pairs = ((decoded.whole, whole), (decoded.small, small), (decoded.quarter, part))
        return torch.stack([self.distance(a, b).mean() for a, b in pairs]).sum()

    def stages(self) -> list[nn.Module]:
        return self.discriminator.stages()

    def compile(self) -> None:
        self._generate = torch.compile(self.generator)
        self._judge = torch.compile(self.discriminator)

    def make_prior(self, average: nn.Module, name: str, card: dict[str, Any]) -> Prior:
        """Batch norm is estimated again for the averaged weights, and folded."""
        generator = copy.deepcopy(cast(FastGANGenerator, average))
        recalibrate(generator)
        statistics = standard_statistics(generator.config.z_dim)
        return FastGANPrior(name, fold(generator), statistics, card)


def noisy_hinge(real: Tensor, fake: Tensor, real_margin: Tensor, fake_margin: Tensor) -> Tensor:
    """`mean relu(m_r - D(real)) + mean relu(m_f + D(fake))` with a margin for each logit."""
    return F.relu(real_margin - real).mean() + F.relu(fake_margin + fake).mean()
