"""PULSE, step for step (Menon et al., "PULSE: Self-Supervised Photo Upsampling via Latent Space
Exploration of Generative Models", CVPR 2020).

Every sample is judged on its own here: the original keeps the last iterate of a batch, and only if
the summed error of the batch came down to eps. What is kept, and from which random stream a sample
starts, is the caller's (`pulse_sr.search.samples`).

Shapes: S slots, L ws (the style vectors of W+), D latent width, r noise map side.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from pulse_sr.priors.base import Prior
from pulse_sr.search.adam import SlotAdam
from pulse_sr.search.engine import Start
from pulse_sr.search.latents import LatentMap, draw_noise, radius, to_sphere_
from pulse_sr.search.losses import geocross, linear_1cycle_drop, mean_square

#: The low-res error that PULSE is content with.
PULSE_EPS = 2e-3
LEARNING_RATE = 0.4
TRAINED_NOISE_MAPS = 5


class Pulse:
    """Free ws and the first noise maps, each on its sphere, by Adam.

    The loss is `100 * max(mse, eps) + 0.05 * geocross(w)`.
    """

    static = True
    optimiser = SlotAdam

    def __init__(
        self,
        prior: Prior,
        to_style: LatentMap,
        latent: torch.Tensor,
        noise: Sequence[torch.Tensor],
        steps: int = 100,
        eps: float = PULSE_EPS,
    ) -> None:
        """Start from ws `latent` `[S, L, D]` and one map `[S, 1, r, r]` per noise layer.

        Below the low-res error `eps` the data term has no gradient.
        """
        self.prior, self.to_style, self.steps, self.eps = prior, to_style, steps, eps
        self.latent = latent.detach().clone().requires_grad_()
        self.noise = [n.detach().clone() for n in noise]
        if self.noise:
            self.noise[-1] = torch.zeros_like(self.noise[-1])  # the original's "bad" layer
        self.trained = [n.requires_grad_() for n in self.noise[:-1][:TRAINED_NOISE_MAPS]]
        self.radii = [radius(v.detach(), 2) for v in self.variables()]
        self.w = latent

    @classmethod
    def with_slots(cls, prior: Prior, to_style: LatentMap, slots: int, steps: int = 100) -> Pulse:
        """Room for so many samples; `start` puts them in."""
        device = prior.device
        latent = torch.ones(slots, prior.num_ws, prior.latent_dim, device=device)
        noise = [torch.zeros(slots, 1, *shape, device=device) for shape in prior.noise_shapes]
        return cls(prior, to_style, latent, noise, steps)

    @torch.no_grad()
    def start(self, slots: Sequence[int], starts: Sequence[Start]) -> None:
        """Standard normal start, each sample by its own generator."""
        places, generators = list(slots), [each.generator for each in starts]
        shape = self.latent.shape[1:]
        latent = torch.stack([torch.randn(*shape, generator=g) for g in generators])
        self.latent[places] = latent.to(self.latent.device)
        maps = draw_noise(self.prior.noise_shapes, generators)
        # The last map stays zero: the original's "bad" layer.
        for own, drawn in zip(self.noise[:-1], maps[:-1], strict=True):
            own[places] = drawn.to(own.device)
        for variable, radii in zip(self.variables(), self.radii, strict=True):
            radii[places] = radius(variable[places], 2)

    def variables(self) -> list[torch.Tensor]:
        return [self.latent, *self.trained]

    def rates(self, step: int) -> list[float]:
        rate = LEARNING_RATE * linear_1cycle_drop(step, self.steps)
        return [rate] * len(self.variables())

    def image(self, steps_taken: Sequence[int]) -> torch.Tensor:
        self.w = self.to_style(self.latent)
        return self.prior.synthesize(self.w, self.noise)

    def loss(self, residual: torch.Tensor) -> torch.Tensor:
        return 100 * mean_square(residual).clamp_min(self.eps) + 0.05 * geocross(self.w)

    def constrain(self, steps_taken: Sequence[int]) -> None:
        for variable, radii in zip(self.variables(), self.radii, strict=True):
            to_sphere_(variable, radii)
