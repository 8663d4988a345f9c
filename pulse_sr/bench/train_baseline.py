"""FastGAN's training step as public PyTorch ports write it: what our step is measured against.

Float32 in contiguous NCHW, every transform of DiffAugment an op of its own, one call of G for both
updates, gradients for D's weights in G's update too, the average by a loop over parameters, and the
losses read in every step. Written from the papers (Liu et al., ICLR 2021; Zhao et al., NeurIPS
2020). One thing is ours: the reconstruction loss, since the published one needs weights of VGG; it
is the same function on both sides.

Shapes: N images, R resolution, s side of the small image; images in [-1, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.bench.plain_fastgan import PlainDiscriminator, PlainGenerator, quarter_of
from pulse_sr.training.gan.config import TrainConfig
from pulse_sr.training.gan.fastgan_discriminator import LOGITS
from pulse_sr.training.gan.fastgan_objective import RECONSTRUCTION_WEIGHT, FastGANObjective

#: What the published training keeps of the average in each step.
AVERAGE_DECAY = 0.999
#: Draws of one call of DiffAugment, uniform in [0, 1), `[N]` each.
AUGMENT_DRAWS = ("brightness", "saturation", "contrast", "translation_rows", "translation_columns")


def augment(x: Tensor, draws: dict[str, Tensor]) -> Tensor:
    """DiffAugment's colour and translation of images `[N, 3, r, r]`; `draws`: `AUGMENT_DRAWS`."""
    brightness, saturation, contrast, rows, columns = (
        draws[name].view(-1, 1, 1, 1) for name in AUGMENT_DRAWS
    )
    x = x + (brightness - 0.5)
    grey = x.mean(dim=1, keepdim=True)
    x = (x - grey) * (saturation * 2) + grey
    mean = x.mean(dim=[1, 2, 3], keepdim=True)
    x = (x - mean) * (contrast + 0.5) + mean
    return _translate(x, rows.view(-1), columns.view(-1))


def _translate(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Shift each image by up to an eighth of its side, by a gather from the padded images."""
    n, _, height, width = x.shape
    limit = int(height * 0.125 + 0.5)
    shifts = [(u * (2 * limit + 1)).long().view(-1, 1, 1) - limit for u in (rows, columns)]
    axes = [torch.arange(size, device=x.device) for size in (n, height, width)]
    image, row, column = torch.meshgrid(*axes, indexing="ij")
    row = (row + shifts[0] + 1).clamp(0, height + 1)
    column = (column + shifts[1] + 1).clamp(0, width + 1)
    pixels = F.pad(x, [1, 1, 1, 1]).permute(0, 2, 3, 1).contiguous()
    return pixels[image, row, column].permute(0, 3, 1, 2).contiguous()


class BaselineTraining:
    """The published course: D on real and on generated images, then G on the same images.

    Attributes:
        generator: begins with the weights of ours.
        discriminator: likewise.
        average: running averages of G's parameters.
    """

    def __init__(
        self,
        objective: FastGANObjective,
        config: TrainConfig,
        images: np.ndarray,
        device: torch.device,
    ) -> None:
        """Take over weights, loss and rates of our training; images are uint8 `[M, 3, R, R]`."""
        self.config, self.images, self.device = config, images, device
        self.generator = PlainGenerator(objective.generator.to(device))
        config_g = self.generator.config
        self.discriminator = PlainDiscriminator(config_g, objective.discriminator.to(device))
        self.distance: Callable[[Tensor, Tensor], Tensor] = objective.distance
        self.adam_g, self.adam_d = (
            torch.optim.Adam(network.parameters.values(), lr=config.lr, betas=config.betas)
            for network in (self.generator, self.discriminator)
        )
        self.average = [p.detach().clone() for p in self.generator.parameters.values()]
        self.rng = torch.Generator(device).manual_seed(config.seed)
        self.order = np.random.default_rng(config.seed)

    def step(self) -> dict[str, float]:
        """Update both networks once; returns the losses of both."""
        real = self._real()
        n = len(real)
        images = self.generator(*self._latents(n))
        big, small = (augment(each, self._augment_draws(n)) for each in images)
        part = int(self.order.integers(4))

        self.adam_d.zero_grad()
        on_real = self.real_loss(augment(real, self._augment_draws(n)), self._margin(n), part)
        on_real.backward()
        on_fake = self.fake_loss(big.detach(), small.detach(), self._margin(n))
        on_fake.backward()
        self.adam_d.step()

        self.adam_g.zero_grad()
        loss = self.generator_loss(big, small)
        loss.backward()
        self.adam_g.step()

        for kept, current in zip(self.average, self.generator.parameters.values(), strict=True):
            kept.mul_(AVERAGE_DECAY).add_((1 - AVERAGE_DECAY) * current.data)
        return {"discriminator": on_real.item() + on_fake.item(), "generator": loss.item()}

    def real_loss(self, real: Tensor, margin: Tensor, part: int) -> Tensor:
        """Hinge loss and reconstruction of augmented real images; `margin` is `[N, 50]`."""
        side = self.generator.config.small_side
        small = F.interpolate(real, side)
        logits, decoded = self.discriminator(real, small, part)
        quarter = F.interpolate(quarter_of(real, part), side, mode="area")
        targets = (F.interpolate(real, side, mode="area"), small, quarter)
        pairs = zip(decoded, targets, strict=True)
        kept = sum(self.distance(ours, target).mean() for ours, target in pairs)
        return F.relu(margin - logits).mean() + RECONSTRUCTION_WEIGHT * kept

    def fake_loss(self, big: Tensor, small: Tensor, margin: Tensor) -> Tensor:
        """Hinge loss of augmented generated images."""
        return F.relu(margin + self.discriminator(big, small).logits).mean()

    def generator_loss(self, big: Tensor, small: Tensor) -> Tensor:
        """What G wants of augmented generated images."""
        return -self.discriminator(big, small).logits.mean()

    def _real(self) -> Tensor:
        chosen = self.order.integers(len(self.images), size=self.config.batch)
        real = torch.from_numpy(self.images[chosen]).to(self.device).float() / 127.5 - 1
        flip = torch.rand(len(real), 1, 1, 1, generator=self.rng, device=self.device) < 0.5
        return torch.where(flip, real.flip(3), real)

    def _latents(self, n: int) -> tuple[Tensor, list[Tensor]]:
        shapes = [
            (self.generator.config.z_dim,),
            *((1, *s) for s in self.generator.config.noise_shapes),
        ]
        z, *noise = (
            torch.randn(n, *shape, generator=self.rng, device=self.device) for shape in shapes
        )
        return z, noise

    def _augment_draws(self, n: int) -> dict[str, Tensor]:
        return {
            name: torch.rand(n, generator=self.rng, device=self.device) for name in AUGMENT_DRAWS
        }

    def _margin(self, n: int) -> Tensor:
        return 0.8 + 0.2 * torch.rand(n, LOGITS, generator=self.rng, device=self.device)
