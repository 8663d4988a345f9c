"""What generator and discriminator want of the logits, and penalties on the discriminator.

Goodfellow et al. 2014 (non-saturating logistic loss); Lim and Ye 2017 (hinge); Mao et al., ICCV
2017 (least squares); Arjovsky et al., ICML 2017 (Wasserstein). Relativistic: Jolicoeur-Martineau,
ICLR 2019 (pairs, as "R3GAN", Huang et al., NeurIPS 2024; averages, "Ra") and "On Relativistic
f-Divergences", ICML 2020 (centred, "Rc"), in the scale of the second paper's code: ESRGAN's code
takes half of "ragan".

Shapes: n images; logits `[n, ...]`, positive for real ones; C channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

#: Weight of the gradient penalty in WGAN-GP and RaGP.
PENALTY_WEIGHT = 10.0
_EPS = 1e-12

Criterion = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AdversarialLoss:
    """The two sides of a game, each a mean over the images.

    Attributes:
        discriminator: loss of D given the logits of real and of generated images.
        generator: loss of G given the same; only a paired loss reads the real ones.
        paired: whether the loss of G compares generated images with real ones.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor | None, Tensor], Tensor]
    paired: bool = False


def _hinge(x: Tensor) -> Tensor:
    return F.relu(1 - x)


def _logistic(x: Tensor) -> Tensor:
    return F.softplus(-x)


def _square(x: Tensor) -> Tensor:
    return (x - 1).square()


def _wasserstein(x: Tensor) -> Tensor:
    return -x


def _absolute(criterion: Criterion, generator: Criterion) -> AdversarialLoss:
    """D wants real logits up and generated ones down, G its own up."""
    return AdversarialLoss(
        lambda real, fake: (criterion(real) + criterion(-fake)).mean(),
        lambda _, fake: generator(fake).mean(),
    )


def _relativistic(gap: Callable[[Tensor, Tensor], Tensor]) -> AdversarialLoss:
    """D minimises `gap(real, fake)`; G the same with the roles exchanged."""

    def generator(real: Tensor | None, fake: Tensor) -> Tensor:
        assert real is not None  # `paired` asks for it
        return gap(fake, real)

    return AdversarialLoss(gap, generator, paired=True)


def _pairs(criterion: Criterion) -> AdversarialLoss:
    """A real image is to look more real than the generated one beside it."""
    return _relativistic(lambda up, down: criterion(up - down).mean())


def _average(criterion: Criterion) -> AdversarialLoss:
    """An image is to look more real than the other kind does on average."""
    return _relativistic(
        lambda up, down: criterion(up - down.mean()).mean() + criterion(up.mean() - down).mean()
    )


def _centred(criterion: Criterion) -> AdversarialLoss:
    """An image is to look more real than the mean of both kinds does."""

    def gap(up: Tensor, down: Tensor) -> Tensor:
        middle = (up.mean() + down.mean()) / 2
        return criterion(up - middle).mean() + criterion(middle - down).mean()

    return _relativistic(gap)


#: Those from "ragan" on average logits over the batch they are given, whole or not.
LOSSES = {
    "logistic": _absolute(_logistic, _logistic),
    "hinge": _absolute(_hinge, _wasserstein),
    "relativistic": _pairs(_logistic),
    "least-squares": AdversarialLoss(
        lambda real, fake: (_square(real) + fake.square()).mean(),
        lambda _, fake: _square(fake).mean(),
    ),
    "wasserstein": _absolute(_wasserstein, _wasserstein),
    "ragan": _average(_logistic),
    "rahinge": _average(_hinge),
    "rals": _average(_square),
    "rcgan": _centred(_logistic),
    "rchinge": _centred(_hinge),
    "rcls": _centred(_square),
}


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, shares: Tensor
) -> Tensor:
    """Mean of `(|gradient of the logit| - 1)^2` between real and generated images.

    Gulrajani et al., NeurIPS 2017, equation 3: `PENALTY_WEIGHT` times this makes WGAN-GP of
    "wasserstein" and RaGP of "ragan". The norm is that of an image, over channels and pixels; a
    discriminator under it has no batch normalisation, which would mix in the other images.

    Args:
        discriminator: images to logits `[n, ...]`; several logits of an image are added up.
        real: `[n, C, H, W]`.
        fake: as many generated images.
        shares: `[n, 1, 1, 1]`, uniform in [0, 1): the share of the real image.
    """
    between = (shares * real + (1 - shares) * fake).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(discriminator(between).sum(), between, create_graph=True)
    norms = (gradient.square().sum(dim=[1, 2, 3]) + _EPS).sqrt()
    return (norms - 1).square().mean()
