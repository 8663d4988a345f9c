"""What the training loop needs to know of an architecture, and the randomness of a step.

Everything random in a step is drawn for the whole batch at once. A micro-batch or a process then
takes its part of the draws, so that the course of a training depends neither on how many images fit
into memory nor on how many processes share the work.

Shapes: N images of the whole batch, n of a part, R resolution; images in [-1, 1].
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.priors.base import Prior
from pulse_sr.training.augment.base import Draws as Draws

#: An augmentation whose draws are fixed: `[n, 3, r, r]` of any side to the same shape.
Augment = Callable[[Tensor], Tensor]
#: What a generator makes: `[n, 3, R, R]` first, then its smaller versions if it has any.
Images = tuple[Tensor, ...]


class Objective(ABC):
    """Two networks and what they learn from.

    Attributes:
        generator: the training network G.
        discriminator: the training network D.
        group: how many images D compares with each other; a part of a batch holds whole groups.
        shares_images: whether D learns from the images that G has just learned from, instead of
            new ones.
    """

    generator: nn.Module
    discriminator: nn.Module
    group: int = 1
    shares_images: bool = False

    @abstractmethod
    def draw(self, count: int, rng: torch.Generator) -> Draws:
        """Latents, noise maps and all else that a call of G and of D takes, on `rng.device`."""

    def prepare(self, network: nn.Module) -> None:  # noqa: B027  most networks need nothing
        """Called once before each update of G or D, whatever parts its batch is dealt out in."""

    @abstractmethod
    def generate(self, draws: Draws) -> Images:
        """Images `[n, 3, R, R]` of the draws, and whatever else D is shown of them."""

    @abstractmethod
    def logits(self, images: Tensor, draws: Draws, augment: Augment) -> Tensor:
        """What D says of images `[n, 3, R, R]`: `[n, ...]`, positive for real ones."""

    @abstractmethod
    def generator_loss(self, real: Tensor, fake: Images, augment: Augment) -> Tensor:
        """Mean over the images of the loss of G; `real` is for losses that compare pairs."""

    @abstractmethod
    def discriminator_loss(
        self,
        real: Tensor,
        fake: Images,
        draws: Draws,
        augment_real: Augment,
        augment_fake: Augment,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Mean over the images of the loss of D, the logits of real and of generated images."""

    @abstractmethod
    def stages(self) -> list[nn.Module]:
        """Parts of D from the image inwards: what freezing D freezes first (Mo et al. 2020)."""

    @abstractmethod
    def make_prior(self, average: nn.Module, name: str, card: dict[str, Any]) -> Prior:
        """The averaged generator with its latent statistics, as a search takes it."""

    def observe(self, draws: Draws) -> None:  # noqa: B027  not every network keeps one
        """Update running averages of G, once for each step of G, from the whole batch's draws."""

    def draw_path(self, count: int, rng: torch.Generator) -> Draws:
        """Draws of G and a random direction in image space, for `path_lengths`.

        Raises:
            NotImplementedError: for an architecture without style rows.
        """
        raise NotImplementedError(f"{type(self).__name__} has no style rows")

    def path_lengths(self, draws: Draws) -> Tensor:
        """How far a step in the styles moves the image, `[n]` (Karras et al. 2020, eq. 4)."""
        raise NotImplementedError(f"{type(self).__name__} has no style rows")

    @abstractmethod
    def compile(self) -> None:
        """Run the networks through torch.compile where no second derivative is needed."""

    def set_recompute(self, recompute: bool) -> None:
        """Keep no activations inside the blocks of G and D, compute them again going back."""
        for network in (self.generator, self.discriminator):
            for module in network.modules():
                if hasattr(module, "recompute"):
                    module.recompute = recompute  # type: ignore[assignment]


def gradient_penalty(
    objective: Objective, images: Tensor, draws: Draws, augment: Augment
) -> Tensor:
    """Squared gradient of the logits with respect to the images, summed over pixels, `[n]`.

    R1 for real images (Mescheder et al., ICML 2018, eq. 9), R2 for generated ones (eq. 10).
    """
    images = images.detach().requires_grad_()
    logits = objective.logits(images, draws, augment)
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=[1, 2, 3])


def take(draws: Draws, rows: Tensor) -> Draws:
    """The draws of some images of the batch."""
    return {name: tensor[rows.to(tensor.device)] for name, tensor in draws.items()}
