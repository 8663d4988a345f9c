"""How StyleGAN2 learns: style mixing, an adversarial loss, path length regularisation.

Karras et al., "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020 (section 3.2 and
appendix B); style mixing from StyleGAN, CVPR 2019.

Shapes: N images of the batch, n of a part, L style rows, D latent width, R resolution.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.priors.base import Prior
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior
from pulse_sr.sr.losses.adversarial import LOSSES
from pulse_sr.training.gan.discriminator import GROUP_SIZE, Discriminator
from pulse_sr.training.gan.objective import Augment, Draws, Images, Objective

W_AVERAGE_STEP = 0.005


class StyleGAN2Objective(Objective):
    """The skip generator and the residual discriminator of StyleGAN2."""

    generator: Generator
    discriminator: Discriminator
    group = GROUP_SIZE

    def __init__(self, config: StyleGAN2Config, loss: str = "logistic", mixing: float = 0.5):
        """Random networks, drawn from torch's global generator.

        Args:
            config: shape of G; D mirrors its widths.
            loss: out of `options.LOSSES`.
            mixing: share of images with two latents.
        """
        self.generator, self.discriminator = Generator(config), Discriminator(config)
        self.loss, self.mixing = LOSSES[loss], mixing
        # Compiled, these take no second derivative: penalties call the networks themselves.
        self._synthesis: Callable[..., Tensor] = self.generator.synthesis
        self._judge: Callable[[Tensor], Tensor] = self.discriminator

    def draw(self, count: int, rng: torch.Generator) -> Draws:
        config, device = self.generator.config, rng.device
        rows = config.num_ws
        draws = {"z": torch.randn(count, 2, config.z_dim, generator=rng, device=device)}
        crossover = torch.randint(1, rows, (count,), generator=rng, device=device)
        unmixed = torch.rand(count, generator=rng, device=device) >= self.mixing
        draws["crossover"] = torch.where(unmixed, rows, crossover)
        for i, shape in enumerate(self.generator.noise_shapes):
            draws[f"noise{i}"] = torch.randn(count, 1, *shape, generator=rng, device=device)
        return draws

    def styles(self, draws: Draws) -> Tensor:
        """Style rows `[n, L, D]`; those from the crossover on are of the second latent."""
        z = draws["z"]
        first, second = self.generator.mapping(z.flatten(0, 1)).unflatten(0, (-1, 2)).unbind(1)
        rows = torch.arange(self.generator.config.num_ws, device=z.device)
        takes_second = rows >= draws["crossover"][:, None]
        return torch.where(takes_second[..., None], second[:, None], first[:, None])

    def generate(self, draws: Draws) -> Images:
        return (self._synthesis(self.styles(draws), self._noise(draws)),)

    def _noise(self, draws: Draws) -> list[Tensor]:
        return [draws[f"noise{i}"] for i in range(len(self.generator.noise_shapes))]

    def logits(self, images: Tensor, draws: Draws, augment: Augment) -> Tensor:
        return self.discriminator(augment(images))

    def generator_loss(self, real: Tensor, fake: Images, augment: Augment) -> Tensor:
        on_fake = self._judge(augment(fake[0]))
        on_real = self._judge(augment(real)) if self.loss.paired else None
        return self.loss.generator(on_real, on_fake)

    def discriminator_loss(
        self,
        real: Tensor,
        fake: Images,
        draws: Draws,
        augment_real: Augment,
        augment_fake: Augment,
    ) -> tuple[Tensor, Tensor, Tensor]:
        on_real = self._judge(augment_real(real))
        on_fake = self._judge(augment_fake(fake[0]))
        return self.loss.discriminator(on_real, on_fake), on_real, on_fake

    def compile(self) -> None:
        self._synthesis = torch.compile(self.generator.synthesis)
        self._judge = torch.compile(self.discriminator)

    @torch.no_grad()
    def observe(self, draws: Draws) -> None:
        """Moves the mean style `w_avg` towards that of the batch's first latents."""
        mapping = self.generator.mapping
        mean = mapping(draws["z"][:, 0]).mean(dim=0)
        mapping.w_avg.lerp_(mean.to(mapping.w_avg.dtype), W_AVERAGE_STEP)

    def draw_path(self, count: int, rng: torch.Generator) -> Draws:
        side = self.generator.config.resolution
        direction = torch.randn(count, 3, side, side, generator=rng, device=rng.device)
        return self.draw(count, rng) | {"direction": direction}

    def path_lengths(self, draws: Draws) -> Tensor:
        ws = self.styles(draws)
        image = self.generator.synthesis(ws, self._noise(draws))
        product = (image * draws["direction"]).sum() / math.sqrt(image.shape[2] * image.shape[3])
        (gradient,) = torch.autograd.grad(product, ws, create_graph=True)
        return gradient.square().sum(dim=2).mean(dim=1).sqrt()

    def stages(self) -> list[nn.Module]:
        network = self.discriminator
        return [getattr(network, f"b{side}") for side in (*network.sides, 4)]

    def make_prior(self, average: nn.Module, name: str, card: dict[str, Any]) -> Prior:
        # A prior freezes its network: the average has to go on.
        generator = copy.deepcopy(cast(Generator, average))
        return StyleGAN2Prior(name, generator, fit_statistics(generator), card=card)
