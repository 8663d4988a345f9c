"""The steps of StyleGAN2 training: non-saturating logistic loss, lazy R1, style mixing.

Goodfellow et al. 2014 (non-saturating loss); Mescheder et al. 2018 (R1); Karras et al. 2020 (lazy
regularisation, appendix B; style mixing from StyleGAN, CVPR 2019).

Shapes: N images, L style rows, D latent width, R resolution; images in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from pulse_sr.priors.stylegan2 import Generator
from pulse_sr.training.augment import diff_augment
from pulse_sr.training.discriminator import Discriminator


@dataclass(frozen=True)
class Losses:
    """Losses and logits of one step; R1 only on the steps that compute it."""

    generator: float
    discriminator: float
    real_sign: float
    fake_sign: float
    r1: float | None


def draw_styles(
    generator: Generator, count: int, mixing: float, rng: torch.Generator
) -> torch.Tensor:
    """Styles `[N, L, D]` of random latents; a share `mixing` changes latent at a random row."""
    config = generator.config
    device = generator.mapping.w_avg.device
    z = torch.randn(2, count, config.z_dim, generator=rng).to(device)
    rows = config.num_rows
    crossover = torch.randint(1, rows, (count,), generator=rng)
    unmixed = torch.rand(count, generator=rng) >= mixing
    crossover = torch.where(unmixed, rows, crossover).to(device)
    first, second = generator.mapping(z.flatten(0, 1)).unflatten(0, (2, count))
    if generator.training:
        with torch.no_grad():
            generator.mapping.w_avg.lerp_(first.float().mean(dim=0), 0.005)
    takes_second = torch.arange(rows, device=device) >= crossover[:, None]
    return torch.where(takes_second[..., None], second[:, None], first[:, None])


def generate(generator: Generator, count: int, mixing: float, rng: torch.Generator) -> torch.Tensor:
    """Images `[N, 3, R, R]` of random latents and random noise maps."""
    ws = draw_styles(generator, count, mixing, rng)
    noise = [
        torch.randn(count, 1, *shape, generator=rng).to(ws.device)
        for shape in generator.noise_shapes
    ]
    return generator.synthesis(ws, noise)


def generator_loss(
    generator: Generator,
    discriminator: Discriminator,
    count: int,
    mixing: float,
    policy: tuple[str, ...],
    rng: torch.Generator,
) -> torch.Tensor:
    """Non-saturating loss `mean softplus(-D(G(z)))`."""
    fake = diff_augment(generate(generator, count, mixing, rng), policy, rng)
    return F.softplus(-discriminator(fake)).mean()


def discriminator_logits(
    generator: Generator,
    discriminator: Discriminator,
    real: torch.Tensor,
    mixing: float,
    policy: tuple[str, ...],
    rng: torch.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of augmented real and generated images, `[N, 1]` each."""
    with torch.no_grad():
        fake = generate(generator, real.shape[0], mixing, rng)
    real_logits = discriminator(diff_augment(real, policy, rng))
    fake_logits = discriminator(diff_augment(fake, policy, rng))
    return real_logits, fake_logits


def r1_penalty(
    discriminator: Discriminator,
    real: torch.Tensor,
    policy: tuple[str, ...],
    rng: torch.Generator,
) -> torch.Tensor:
    """Squared gradient of the logits with respect to the real images, summed over pixels, `[N]`."""
    real = real.detach().requires_grad_()
    logits = discriminator(diff_augment(real, policy, rng))
    (gradient,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    return gradient.square().sum(dim=[1, 2, 3])
