"""What generator and discriminator want of the logits.

Goodfellow et al. 2014 (non-saturating logistic loss); Lim and Ye 2017 (hinge); Jolicoeur-Martineau,
ICLR 2019, and Huang et al., NeurIPS 2024 (relativistic pairing, "R3GAN").

Shapes: n images; logits `[n, ...]`, positive for real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


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


def _logistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return (F.softplus(-real) + F.softplus(fake)).mean()


def _logistic_generator(_: Tensor | None, fake: Tensor) -> Tensor:
    return F.softplus(-fake).mean()


def _hinge_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return (F.relu(1 - real) + F.relu(1 + fake)).mean()


def _hinge_generator(_: Tensor | None, fake: Tensor) -> Tensor:
    return -fake.mean()


def _relativistic_discriminator(real: Tensor, fake: Tensor) -> Tensor:
    return F.softplus(fake - real).mean()


def _relativistic_generator(real: Tensor | None, fake: Tensor) -> Tensor:
    assert real is not None  # `paired` asks for it
    return F.softplus(real - fake).mean()


LOSSES = {
    "logistic": AdversarialLoss(_logistic_discriminator, _logistic_generator),
    "hinge": AdversarialLoss(_hinge_discriminator, _hinge_generator),
    "relativistic": AdversarialLoss(
        _relativistic_discriminator, _relativistic_generator, paired=True
    ),
}
