"""Intermediate layer optimisation (Daras, Dean, Jalal and Dimakis, "Intermediate Layer Optimization
for Inverse Problems using Deep Generative Models", ICML 2021).

First the ws move, then the feature map of one layer after the other, from early to late,
each inside an l1 ball around where the stage before left it. A feature map is moved by an offset
that is added to it, so the ball lies around zero. While one moves, all that it is computed from
rests: ws, noise maps of its own side and below, and the offsets of earlier stages.

What is the paper's: stages of 50, 50, 25 and 25 steps, Adam with rate 0.1, a ramp of the rate
within each stage, geocross with weight 0.01 beside the squared error on the scale [-1, 1], the
first 5 + 2 i noise maps in stage i, spheres for ws and noise maps, the radius of the ball. What
differs: the perceptual term (LPIPS) is left out, since it wants inputs of 256 px and weights of its
own; the radius counts per value of the feature map, so that it fits maps of any size; ws rest
after the first stage, where the original lets the ws of later layers move on.

Shapes: S slots, L ws (the style vectors of W+), D latent width, C r r feature map.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pulse_sr.config import DEFAULT_STEPS
from pulse_sr.priors.base import Prior
from pulse_sr.search.adam import SlotAdam
from pulse_sr.search.engine import Start
from pulse_sr.search.l1_ball import project_l1
from pulse_sr.search.latents import LatentMap, draw_noise, radius, to_sphere_
from pulse_sr.search.losses import geocross, mean_square

#: Steps of the ws' stage and of three feature stages.
STAGE_STEPS = (50, 50, 25, 25)


@dataclass(frozen=True)
class IloSettings:
    """Constants of the method.

    Attributes:
        rate: learning rate of Adam.
        tie: weight of geocross, beside the squared error on the scale [-1, 1].
        ball: l1 radius of an offset divided by its number of values; published are 1000 for a map
            of 512 channels and 8 px.
        noise_maps: trained noise maps in the first stage; two more in each that follows.
    """

    rate: float = 0.1
    tie: float = 0.01
    ball: float = 1000 / (512 * 8 * 8)
    noise_maps: int = 5


class Ilo:
    """The ws, then offsets of successively later feature maps, each inside an l1 ball.

    Not static: which offsets are projected, and in which slots, follows from the steps.
    """

    static = False
    optimiser = SlotAdam

    def __init__(
        self,
        prior: Prior,
        to_style: LatentMap,
        slots: int,
        steps: int = DEFAULT_STEPS["ilo"],
        settings: IloSettings | None = None,
    ) -> None:
        """Make room for S samples, `slots`; `start` puts them in.

        The steps are shared out to the stages as 50, 50, 25 and 25 of 150 are.
        """
        self.prior, self.to_style, self.steps = prior, to_style, steps
        self.settings = settings or IloSettings()
        self.sides = feature_sides(prior)[: len(STAGE_STEPS) - 1]
        self.ends = stage_ends(steps, len(self.sides) + 1)
        device = prior.device
        latent = torch.ones(slots, prior.num_ws, prior.latent_dim, device=device)
        self.latent = latent.requires_grad_()
        self.noise = [torch.zeros(slots, 1, *s, device=device) for s in prior.noise_shapes]
        most = self.settings.noise_maps + 2 * len(self.sides)
        self.trained = [n.requires_grad_() for n in self.noise[:most]]
        self.feature_deltas = [
            torch.zeros(slots, *prior.feature_shape(side), device=device)
            .contiguous(memory_format=torch.channels_last)
            .requires_grad_()
            for side in self.sides
        ]
        self.radii = [radius(v.detach(), 2) for v in [self.latent, *self.trained]]
        self.w = self.latent

    @torch.no_grad()
    def start(self, slots: Sequence[int], starts: Sequence[Start]) -> None:
        """Standard normal ws and noise maps, no offsets; each sample by its own generator."""
        places, generators = list(slots), [each.generator for each in starts]
        shape = self.latent.shape[1:]
        ws = torch.stack([torch.randn(*shape, generator=g) for g in generators])
        self.latent[places] = ws.to(self.latent.device)
        drawn = draw_noise(self.prior.noise_shapes, generators)
        for own, maps in zip(self.noise, drawn, strict=True):
            own[places] = maps.to(own.device)
        for feature_delta in self.feature_deltas:
            feature_delta[places] = 0
        for variable, radii in zip([self.latent, *self.trained], self.radii, strict=True):
            radii[places] = radius(variable[places], 2)

    def stage(self, step: int) -> int:
        """0 while the ws move, then i while the i-th feature map does."""
        return sum(step >= end for end in self.ends[:-1])

    def variables(self) -> list[torch.Tensor]:
        return [self.latent, *self.feature_deltas, *self.trained]

    def rates(self, step: int) -> list[float]:
        stage = self.stage(step)
        start = self.ends[stage - 1] if stage else 0
        rate = self.settings.rate * ramp((step - start + 1) / (self.ends[stage] - start + 1))
        moving = [i == stage for i in range(len(self.feature_deltas) + 1)]
        # A noise map below the feature map that moves would move that as well.
        finest = self.sides[stage - 1] if stage else 0
        count = self.settings.noise_maps + 2 * stage
        for i, noise in enumerate(self.trained):
            moving.append(i < count and noise.shape[-1] > finest)
        return [rate if each else 0.0 for each in moving]

    def image(self, steps_taken: Sequence[int]) -> torch.Tensor:
        self.w = self.to_style(self.latent)
        # Offsets of stages to come are zero.
        feature_deltas = dict(zip(self.sides, self.feature_deltas, strict=True))
        return self.prior.synthesize(self.w, self.noise, feature_deltas or None)

    def loss(self, residual: torch.Tensor) -> torch.Tensor:
        return 4 * mean_square(residual) + self.settings.tie * geocross(self.w)

    def constrain(self, steps_taken: Sequence[int]) -> None:
        for variable, radii in zip([self.latent, *self.trained], self.radii, strict=True):
            to_sphere_(variable, radii)
        stages = [self.stage(step) for step in steps_taken]
        for stage in sorted(set(stages) - {0}):
            # Only where it moves: meeting its ball anew, one that rests would change in its last
            # bits, and so feel who else is in the batch.
            moving = [slot for slot, own in enumerate(stages) if own == stage]
            feature_delta = self.feature_deltas[stage - 1]
            size = self.settings.ball * feature_delta[0].numel()
            feature_delta[moving] = project_l1(feature_delta[moving], size)


def feature_sides(prior: Prior) -> list[int]:
    """Sides of the feature maps that take an offset, from the coarsest on."""
    sides = []
    for k in range(prior.resolution.bit_length()):
        try:
            sides.append(prior.feature_shape(1 << k)[1])
        except ValueError:  # no map of this side
            continue
    return sides


def stage_ends(steps: int, stages: int) -> list[int]:
    """The step after the last of each stage; the last one is `steps`."""
    shares = STAGE_STEPS[:stages]
    return [round(steps * sum(shares[: i + 1]) / sum(shares)) for i in range(stages)]


def ramp(t: float) -> float:
    """Share of the rate at the part t of a stage: linear up over 5 %, a cosine down over 75 %.

    It is the ramp of StyleGAN2's projector (Karras et al., CVPR 2020, appendix D), with the down
    part longer, as the authors of ILO use it.
    """
    down = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - t) / 0.75))
    return down * min(1.0, t / 0.05)
