"""The default method: a good start, style rows, then an offset on a low-resolution feature map.

Each sample starts at the best of several points of the prior: the less a search has to bend a face,
the more it stays one. The points come from the seed bank (`pulse_sr.search.seedbank`), or are drawn
at random where there is none. Rows alone can not reach the details of most inputs; a small offset
of an early feature map can (Daras et al., "Intermediate Layer Optimization", ICML 2021). It begins
when the rows have done most of their work and is kept inside a ball around zero, so that the sample
stays close to what the prior can draw.

Shapes: S samples, K candidates, L style rows, D latent width, C r r feature map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pulse_sr.operators import Operator
from pulse_sr.priors.base import Prior
from pulse_sr.search.latents import LatentMap, draw_noise, radius, to_sphere_
from pulse_sr.search.losses import cosine_1cycle, geocross, mean_square


@dataclass(frozen=True)
class PhasedSettings:
    """Constants of the method, chosen on held-back faces (docs/search.md).

    Attributes:
        hand: how many samples of the seed bank each sample chooses its candidates from.
        candidates: K, how many of them, nearest to the input by their thumbnails, are judged by the
            true operator; a sample starts at the best.
        starts: K without a bank: how many random points each sample starts from the best of.
        row_rate, noise_rate, offset_rate: learning rates of Adam.
        tie: weight of geocross, which keeps the rows together.
        offset_start: the share of the steps after which the offset begins to move.
        offset_radius: largest root mean square of the offset; features have about 1.
        least_side: smallest side of the feature map that takes the offset.
        noise_reach: side of the largest noise map that moves, in sides of the low-res input: larger
            ones barely reach the input.
    """

    hand: int = 128
    candidates: int = 8
    starts: int = 64
    row_rate: float = 0.1
    noise_rate: float = 0.1
    offset_rate: float = 0.01
    tie: float = 0.2
    offset_start: float = 0.5
    offset_radius: float = 0.3
    least_side: int = 8
    noise_reach: float = 2.0


class Phased:
    """Tied start, free rows, small noise maps, then a feature offset inside a ball."""

    def __init__(
        self,
        prior: Prior,
        to_style: LatentMap,
        row: torch.Tensor,
        noise: Sequence[torch.Tensor],
        low_side: int,
        steps: int = 100,
        settings: PhasedSettings | None = None,
    ) -> None:
        """Start from given variables.

        Args:
            prior: the generator.
            to_style: from the latent to the style space.
            row: `[S, D]`, the start of all rows of a sample, put on the sphere of radius sqrt(D).
            noise: one map `[S, 1, r, r]` per noise layer of the prior.
            low_side: n, the side of the low-res input.
            steps: how many.
            settings: constants; None: the defaults.
        """
        self.prior, self.to_style, self.steps = prior, to_style, steps
        self.settings = settings or PhasedSettings()
        device = prior.device
        self.row_radius = torch.full((1, 1, 1), prior.latent_dim**0.5, device=device)
        # One row for all layers: the start is an ordinary sample of the prior.
        rows = row[:, None].expand(-1, prior.num_rows, -1).clone()
        to_sphere_(rows, self.row_radius)
        self.latent = rows.requires_grad_()
        self.noise = [n.detach().clone() for n in noise]
        largest = self.settings.noise_reach * low_side
        self.trained = [n.requires_grad_() for n in self.noise if n.shape[-1] <= largest]
        self.noise_radii = [radius(n.detach(), 2) for n in self.trained]
        # The smallest feature map that is not coarser than the input.
        self.side = max(1 << (low_side - 1).bit_length(), self.settings.least_side)
        shape = prior.feature_shape(self.side)
        offset = torch.zeros(len(row), *shape, device=device)
        self.offset = offset.contiguous(memory_format=torch.channels_last).requires_grad_()
        self.w = self.latent

    @classmethod
    def from_generators(
        cls,
        prior: Prior,
        to_style: LatentMap,
        generators: Sequence[torch.Generator],
        operator: Operator,
        target: torch.Tensor,
        low_side: int,
        steps: int = 100,
        settings: PhasedSettings | None = None,
        candidates: torch.Tensor | None = None,
    ) -> Phased:
        """Start each sample at the best of K points of the prior.

        Args:
            prior, to_style, low_side, steps, settings: as above.
            generators: one CPU generator per sample.
            operator: from high-res to low-res.
            target: low-res input `[S or 1, 3, h, w]`.
            candidates: latents of the points, `[S, K, D]`; None: drawn by the generators.
        """
        settings = settings or PhasedSettings()
        rows = candidates
        if rows is None:
            shape = (settings.starts, prior.latent_dim)
            rows = torch.stack([torch.randn(*shape, generator=g) for g in generators])
        noise = [n.to(prior.device) for n in draw_noise(prior.noise_shapes, generators)]
        row = _best_start(prior, to_style, rows.to(prior.device), noise, operator, target)
        return cls(prior, to_style, row, noise, low_side, steps, settings)

    def variables(self) -> list[torch.Tensor]:
        return [self.latent, self.offset, *self.trained]

    def rates(self, step: int) -> list[float]:
        settings = self.settings
        cycle = cosine_1cycle(step, self.steps)
        offset = settings.offset_rate if self._offset_moves(step) else 0.0
        noise = settings.noise_rate * cycle
        return [settings.row_rate * cycle, offset, *[noise] * len(self.trained)]

    def _offset_moves(self, step: int) -> bool:
        return step >= self.settings.offset_start * self.steps

    def image(self, step: int) -> torch.Tensor:
        self.w = self.to_style(self.latent)
        offsets = {self.side: self.offset} if self._offset_moves(step) else None
        return self.prior.synthesize(self.w, self.noise, offsets)

    def loss(self, mse: torch.Tensor) -> torch.Tensor:
        return 100 * mse + self.settings.tie * geocross(self.w)

    def constrain(self, step: int) -> None:
        to_sphere_(self.latent, self.row_radius)
        for noise, radii in zip(self.trained, self.noise_radii, strict=True):
            to_sphere_(noise, radii)
        size = self.offset[0].numel() ** 0.5
        norm = radius(self.offset, 1)
        self.offset.mul_((self.settings.offset_radius * size / norm).clamp_max(1))


@torch.no_grad()
def _best_start(
    prior: Prior,
    to_style: LatentMap,
    rows: torch.Tensor,
    noise: Sequence[torch.Tensor],
    operator: Operator,
    target: torch.Tensor,
) -> torch.Tensor:
    """Of candidates `[S, K, D]`, each sample's nearest to the input, `[S, D]`."""
    to_sphere_(rows, rows.new_tensor(rows.shape[2] ** 0.5))
    errors = []
    for candidate in rows.unbind(dim=1):
        w = to_style(candidate[:, None].expand(-1, prior.num_rows, -1).contiguous())
        errors.append(mean_square(operator(prior.synthesize(w, noise).clamp(0, 1)), target))
    best = torch.stack(errors, dim=1).argmin(dim=1)
    return rows[torch.arange(len(rows), device=rows.device), best]
