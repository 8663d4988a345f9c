"""Heads on the features of a frozen ImageNet network, beside the discriminator.

Kumari et al., "Ensembling Off-the-shelf Models for GAN Training", CVPR 2022: the generator hears
the discriminator and, more quietly, heads on pretrained features. Images are augmented before the
features (DiffAugment), the heads learn by the hinge loss. The loss of the generator is minus the
mean logit of each head, averaged over the heads.

The heads learn in every second step, from the images that the generator has just learned from:
their features are there. Features of real images are taken in these steps alone.
All draws come from a generator of their own, so that the other networks draw what they would
without heads.

Shapes: N images of the whole batch, n of a part, R resolution; images in [-1, 1].
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pulse_sr.data.order import rng_of
from pulse_sr.metrics.feature_networks import NETWORKS, FeatureNetwork
from pulse_sr.sr.losses.adversarial import LOSSES
from pulse_sr.training.augment.base import Augmentation, Draws
from pulse_sr.training.augment.diffaug import DiffAugment
from pulse_sr.training.gan.config import TrainConfig
from pulse_sr.training.gan.feature_judges import FeatureJudges
from pulse_sr.training.gan.objective import take

POLICY = ("color", "translation", "cutout")
LEARNING_RATE, BETAS = 0.002, (0.0, 0.99)
#: Images below this side are enlarged to it before the features, larger ones taken as they are.
LEAST_SIDE = 64
#: Steps between two updates of the heads.
INTERVAL = 2

_HINGE = LOSSES["hinge"]


@dataclass
class FeatureHeads:
    """A frozen network and what learns on its features.

    Attributes:
        network: the frozen one.
        judges: mixing and heads: what a state holds.
        weight: of their loss beside the discriminator's, for the generator.
        warmup: so many images long the heads learn unheard.
        augmentation: of real and generated images before the features.
        seed: of the run.
    """

    network: FeatureNetwork
    judges: FeatureJudges
    weight: float
    warmup: int = 0
    augmentation: Augmentation = field(default_factory=lambda: DiffAugment(POLICY))
    seed: int = 0

    def make_optimizer(self) -> torch.optim.Adam:
        """Adam of the heads; the mixing is not among its parameters."""
        parameters = list(self.judges.parameters())
        return torch.optim.Adam(parameters, lr=LEARNING_RATE, betas=BETAS, fused=True)

    def frozen(self, device: torch.device) -> list[Tensor]:
        """The tensors of the frozen network."""
        return list(self.network.weights(device).values())

    def features(self, images: Tensor, draws: Draws) -> list[Tensor]:
        """Maps of augmented images `[n, 3, R, R]`."""
        augmented = self.augmentation.apply(images, draws)
        return self.network.features(augmented * 0.5 + 0.5, LEAST_SIDE)

    def turn(self, count: int, shown: int, device: torch.device) -> HeadsTurn:
        """What one step draws and keeps.

        Args:
            count: images of the whole batch.
            shown: images that were shown before.
            device: where the draws are made.
        """
        rng = torch.Generator(device)
        rng.manual_seed(rng_of(self.seed, "heads", shown).initial_seed())
        on_fake, on_real = (self.augmentation.draw(count, rng) for _ in range(2))
        learning = shown // count % INTERVAL == 0
        return HeadsTurn(self, on_fake, on_real, shown >= self.warmup, learning)


@dataclass
class HeadsTurn:
    """One step: first the loss of G on every part of the batch, then that of the heads.

    Attributes:
        heads: of the run.
        on_fake: draws of the augmentation for generated images.
        on_real: the same for real ones.
        heard: whether G learns from the heads already.
        learning: whether the heads learn in this step.
        kept: features of the generated images, one entry a part, in their order.
    """

    heads: FeatureHeads
    on_fake: Draws
    on_real: Draws
    heard: bool
    learning: bool
    kept: list[list[Tensor]] = field(default_factory=list)

    def generator_loss(self, fake: Tensor, rows: Tensor) -> Tensor:
        """Minus the mean logit, averaged over the heads; no gradient while they are unheard.

        Args:
            fake: `[n, 3, R, R]`, of the generator.
            rows: their places in the batch, `[n]`.
        """
        with torch.set_grad_enabled(self.heard and torch.is_grad_enabled()):
            maps = self.heads.features(fake, take(self.on_fake, rows))
            if self.learning:
                self.kept.append([each.detach() for each in maps])
            logits = self.heads.judges(maps)
            return torch.stack([_HINGE.generator(None, each) for each in logits]).mean()

    def judges_loss(self, real: Tensor, rows: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Hinge loss of the heads, averaged over them, and how often they are right.

        Args:
            real: `[n, 3, R, R]`.
            rows: their places in the batch; parts come in the order of `generator_loss`.

        Returns:
            the loss, and the mean signs of the logits of real and of generated images.
        """
        with torch.no_grad():
            maps = self.heads.features(real, take(self.on_real, rows))
        reals, fakes = self.heads.judges(maps), self.heads.judges(self.kept.pop(0))
        losses = [_HINGE.discriminator(a, b) for a, b in zip(reals, fakes, strict=True)]
        signs = (torch.cat([x.flatten() for x in each]).sign().mean() for each in (reals, fakes))
        names = ("heads_real_sign", "heads_fake_sign")
        return torch.stack(losses).mean(), dict(zip(names, signs, strict=True))


def build_heads(config: TrainConfig, device: torch.device) -> FeatureHeads | None:
    """The heads of a config with random weights, on a device; None where it has none.

    The draws come from the seed of the run; torch's global random state is left alone.

    Raises:
        SetupError: when the weights of the frozen network are not installed.
    """
    if config.heads == "off":
        return None
    network, side = NETWORKS[config.heads], config.network.resolution
    with torch.no_grad():
        blank = torch.zeros(1, 3, side, side, device=device)
        sides = [each.shape[-1] for each in network.features(blank, LEAST_SIDE)]
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(rng_of(config.seed, "heads").initial_seed())
        judges = FeatureJudges(network.channels, network.scales, sides)
    judges.to(memory_format=torch.channels_last).train().to(device)
    return FeatureHeads(network, judges, config.heads_weight, config.heads_warmup, seed=config.seed)
