"""The default method: a good start, the ws, then an offset on a low-resolution feature map.

Each sample starts at the best of several points of the prior: the less a search has to bend a face,
the more it stays one. The points come from the seed bank (`pulse_sr.search.seedbank`), or are drawn
at random where there is none. The ws alone can not reach the details of most inputs; a small offset
of an early feature map can (Daras et al., "Intermediate Layer Optimization", ICML 2021). It begins
when the ws have done most of their work and is kept inside a ball around zero, so that the sample
stays close to what the prior can draw.

Both phases go down by L-BFGS. The residual is measured as the high-res change that the projection
would make of it (`Operator.whiten`), with its colours balanced: of a plain square the fine detail
and the colours would be fitted last.

Shapes: S slots, K candidates, L ws (the style vectors of W+), D latent width, C r r feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pulse_sr.operators.base import Operator
from pulse_sr.priors.base import Prior
from pulse_sr.search.engine import Start
from pulse_sr.search.latents import LatentMap, draw_noise, radius, to_sphere_
from pulse_sr.search.lbfgs import SlotLbfgs
from pulse_sr.search.losses import colour_balance, geocross, mean_square, mse_of
from stylegan_ops.products import product

#: Frequencies that the operator lets through with less than this share of its mean gain are not
#: made up for: the match does not depend on them.
LEAST_GAIN = 0.01
#: Where noise is weighed against what the search has still to fit: about the match of the ws.
NOISE_DB = 25.0


@dataclass(frozen=True)
class PhasedSettings:
    """Constants of the method, chosen on held-back faces (docs/search.md).

    Attributes:
        share: how many samples of the seed bank each sample chooses its candidates from.
        candidates: K, how many of them, nearest to the input by their thumbnails, are judged by the
            true operator; a sample starts at the best.
        starts: K without a bank: how many random points each sample starts from the best of.
        ws_rate, noise_rate, delta_rate: root mean square of the first step of each phase.
        tie: weight of geocross, which keeps the ws together.
        delta_start: the share of the steps after which the offset begins to move.
        delta_radius: largest root mean square of the offset; features have about 1.
        least_side: smallest side of the feature map that takes the offset.
        noise_reach: side of the largest noise map that moves, in sides of the low-res input: larger
            ones barely reach the input.
    """

    share: int = 128
    candidates: int = 8
    starts: int = 64
    ws_rate: float = 0.05
    noise_rate: float = 0.05
    delta_rate: float = 0.01
    tie: float = 0.1
    delta_start: float = 0.2
    delta_radius: float = 0.3
    least_side: int = 8
    noise_reach: float = 2.0


class Phased:
    """Tied start, free ws, small noise maps, then a feature offset inside a ball."""

    static = True
    optimiser = SlotLbfgs

    def __init__(
        self,
        prior: Prior,
        to_style: LatentMap,
        operator: Operator,
        low_side: int,
        slots: int,
        steps: int = 100,
        settings: PhasedSettings | None = None,
    ) -> None:
        """Make room for S samples, `slots`; `start` puts them in.

        `low_side` is n, the side of the low-res input.
        """
        self.prior, self.to_style, self.operator, self.steps = prior, to_style, operator, steps
        self.settings = settings or PhasedSettings()
        device = prior.device
        self.ws_radius = torch.full((1, 1, 1), prior.latent_dim**0.5, device=device)
        ws = torch.ones(slots, prior.num_ws, prior.latent_dim, device=device)
        self.latent = ws.requires_grad_()
        self.noise = [torch.zeros(slots, 1, *s, device=device) for s in prior.noise_shapes]
        largest = self.settings.noise_reach * low_side
        self.trained = [n.requires_grad_() for n in self.noise if n.shape[-1] <= largest]
        self.noise_radii = [radius(n.detach(), 2) for n in self.trained]
        # The smallest feature map that is not coarser than the input.
        self.side = max(1 << (low_side - 1).bit_length(), self.settings.least_side)
        shape = prior.feature_shape(self.side)
        feature_delta = torch.zeros(slots, *shape, device=device)
        self.feature_delta = feature_delta.contiguous(
            memory_format=torch.channels_last
        ).requires_grad_()
        self.w = self.latent
        self.colours = colour_balance().to(feature_delta)
        noise = operator.noise_variance / mse_of(NOISE_DB)
        self.noise_ratio = operator.gain * (LEAST_GAIN + noise)

    def start(self, slots: Sequence[int], starts: Sequence[Start]) -> None:
        """Start each sample at the best of its candidates, or of points that it draws itself."""
        shape = (self.settings.starts, self.prior.latent_dim)
        points = [
            torch.randn(*shape, generator=each.generator)
            if each.candidates is None
            else each.candidates
            for each in starts
        ]
        maps = draw_noise(self.prior.noise_shapes, [each.generator for each in starts])
        noise = [n.to(self.prior.device) for n in maps]
        latents = self._nearest([p.to(self.prior.device) for p in points], noise, starts)
        self.place(slots, latents, noise)

    @torch.no_grad()
    def place(
        self, slots: Sequence[int], latents: torch.Tensor, noise: Sequence[torch.Tensor]
    ) -> None:
        """Put n samples into slots.

        Args:
            slots: n of them.
            latents: `[n, D]`, the start of all ws of a sample, put on the sphere of radius sqrt(D).
            noise: one map `[n, 1, r, r]` per noise layer of the prior.
        """
        places = list(slots)
        # One row for all layers: the start is an ordinary sample of the prior.
        tied = latents[:, None].expand(-1, self.prior.num_ws, -1).clone()
        to_sphere_(tied, self.ws_radius)
        self.latent[places] = tied
        self.feature_delta[places] = 0
        for own, given in zip(self.noise, noise, strict=True):
            own[places] = given
        for own, radii in zip(self.trained, self.noise_radii, strict=True):
            radii[places] = radius(own[places], 2)

    @torch.no_grad()
    def _nearest(
        self,
        points: Sequence[torch.Tensor],
        noise: Sequence[torch.Tensor],
        starts: Sequence[Start],
    ) -> torch.Tensor:
        """Of the points `[K, D]` of each sample, the one nearest to its input, `[n, D]`.

        They are judged in batches of S, as everything is: an error must not depend on how many
        samples start together.
        """
        latents = torch.cat([self._on_sphere(each) for each in points])
        counts = [len(each) for each in points]
        owner = torch.repeat_interleave(torch.arange(len(starts)), torch.tensor(counts))
        targets = torch.cat([each.target for each in starts])
        batch, errors = len(self.latent), []
        for part in torch.arange(len(latents)).split(batch):
            padded = torch.cat([part, part.new_zeros(batch - len(part))]).to(latents.device)
            who = owner.to(latents.device)[padded]
            tied = latents[padded][:, None].expand(-1, self.prior.num_ws, -1).contiguous()
            images = self.prior.synthesize(self.to_style(tied), [n[who] for n in noise])
            errors.append(
                mean_square(self.operator(images.clamp(0, 1)) - targets[who])[: len(part)]
            )
        groups = zip(latents.split(counts), torch.cat(errors).split(counts), strict=True)
        return torch.stack([own[error.argmin()] for own, error in groups])

    def _on_sphere(self, points: torch.Tensor) -> torch.Tensor:
        latents = points[None].clone()
        to_sphere_(latents, self.ws_radius)
        return latents[0]

    def variables(self) -> list[torch.Tensor]:
        return [self.latent, self.feature_delta, *self.trained]

    def rates(self, step: int) -> list[float]:
        settings = self.settings
        if step >= settings.delta_start * self.steps:
            return [0.0, settings.delta_rate, *[0.0] * len(self.trained)]
        return [settings.ws_rate, 0.0, *[settings.noise_rate] * len(self.trained)]

    def image(self, steps_taken: Sequence[int]) -> torch.Tensor:
        self.w = self.to_style(self.latent)
        # Also where the offset is still zero: with it or without, other kernels would run.
        return self.prior.synthesize(self.w, self.noise, {self.side: self.feature_delta})

    def loss(self, residual: torch.Tensor) -> torch.Tensor:
        weighted = self.operator.whiten(residual, self.noise_ratio)
        if weighted.shape[1] == len(self.colours):
            weighted = product(self.colours, weighted.flatten(2)).view_as(weighted)
        return 100 * mean_square(weighted) + self.settings.tie * geocross(self.w)

    def constrain(self, steps_taken: Sequence[int]) -> None:
        to_sphere_(self.latent, self.ws_radius)
        for noise, radii in zip(self.trained, self.noise_radii, strict=True):
            to_sphere_(noise, radii)
        size = self.feature_delta[0].numel() ** 0.5
        norm = radius(self.feature_delta, 1)
        self.feature_delta.mul_((self.settings.delta_radius * size / norm).clamp_max(1))
