"""Samples of the posterior by annealed Langevin dynamics.

The model: ws and noise maps are normal, `x ~ N(0, I)`, and the input is `y = A G(x) + sigma n`.
Each chain starts at a draw of the prior and moves by kinetic Langevin dynamics while sigma falls
from `first_sigma` to that of the input, as in Song and Ermon (2019) and, for generators, Jalal et
al., "Instance-Optimal Compressed Sensing via Posterior Sampling" (ICML 2021). No chain is chosen or
restarted by how well it fits, which would bias the samples.

The prior over the ws: `u_l = sqrt(c) v + sqrt(1 - c) e_l` with v, e_1, ..., e_L standard normal.
c = 1 ties the ws, as the prior's own samples are; c = 0 makes them independent.

A step is BAOAB (Leimkuhler and Matthews, "Rational construction of stochastic numerical methods for
molecular sampling", 2013): it samples a Gaussian posterior exactly at any stable step size. The
mass is `1 + margin M / sigma^2`, M the mean curvature over the prior (`curvature.py`).

Where a chain can not follow the falling sigma, its own sigma stays above `lag` times its low-res
error, else the pull of the input would heat it far beyond the prior. `sigmas` says where it ended.

Shapes: S slots, L ws (the style vectors of W+), B their components, D latent width, T kept steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pulse_sr.config import DEFAULT_STEPS
from pulse_sr.operators.base import ROUNDING_VARIANCE, Operator
from pulse_sr.priors.base import LatentStatistics, Prior
from pulse_sr.search.curvature import Curvature, mean_curvature, ws_root
from pulse_sr.search.engine import Chain, Start
from pulse_sr.search.latents import LatentMap
from pulse_sr.search.losses import mean_square
from stylegan_ops.products import product, rows_times

#: Principal coordinates of the styles that diagnostics look at.
COORDINATES = 8


@dataclass(frozen=True)
class LangevinSettings:
    """Constants of the method, chosen on faces that the prior drew (docs/langevin.md).

    Attributes:
        ws_correlation: c of the prior over the ws, 0 to 1.
        first_sigma: where sigma starts; pixels have a range of 1.
        step_size: h; 1 would be a radian of a direction whose curvature is `margin` times the mean.
        momentum: the share of a velocity that a step keeps; 0 is overdamped Langevin.
        margin: how many times stiffer than its mean over the prior a direction may be.
        lag: least sigma of a chain in units of its low-res error.
        anneal: the share of the steps in which sigma falls; the rest is sampled at its end.
        probes: backward passes for the mean curvature, at least.
        noise_reach: side of the largest noise map that moves, in sides of the low-res input; larger
            ones barely reach the input and stay draws of the prior.
    """

    ws_correlation: float = 0.9
    first_sigma: float = 0.3
    step_size: float = 0.4
    momentum: float = 0.97
    margin: float = 10.0
    lag: float = 0.7
    anneal: float = 0.8
    probes: int = 256
    noise_reach: float = 2.0


class Langevin:
    """Chains of the posterior, one per slot; the last iterate is the sample.

    Not static: sigma follows from the steps, noise is drawn on the CPU, traces are kept there.

    Attributes:
        sigmas: at which sigma each chain was when its energy was last asked for, `[S]`.
    """

    static = False

    def __init__(
        self,
        prior: Prior,
        to_style: LatentMap,
        curvature: Curvature,
        sigma: float,
        low_side: int,
        slots: int,
        steps: int = DEFAULT_STEPS["langevin"],
        settings: LangevinSettings | None = None,
    ) -> None:
        """Make room for S chains, `slots`; `start` puts them in.

        Args:
            prior, to_style: what the images come from.
            curvature: from `measure_curvature`, with the same settings.
            sigma: deviation of the input's noise, in units of [0, 1].
            low_side: n, the side of the low-res input.
            slots, steps, settings: S, of each chain, and the constants.
        """
        self.prior, self.to_style = prior, to_style
        self.curvature, self.sigma, self.steps = curvature, sigma, steps
        self.settings = settings or LangevinSettings()
        device = prior.device
        self.root = ws_root(prior.num_ws, self.settings.ws_correlation).to(device)
        shape = (slots, self.root.shape[1], prior.latent_dim)
        self.ws = torch.zeros(shape, device=device).requires_grad_()
        self.noise = [torch.zeros(slots, 1, *s, device=device) for s in prior.noise_shapes]
        moved = moved_maps(prior, low_side, self.settings)
        self.moved = [self.noise[i].requires_grad_() for i in moved]
        self.velocities = [torch.zeros_like(v) for v in self.variables()]
        self.sigmas = torch.full((slots,), self.settings.first_sigma, device=device)
        self.observed = torch.zeros(slots, device=device)
        self.axes = principal_axes(prior.statistics)
        self._generators: list[torch.Generator | None] = [None] * slots
        self._kept: list[list[torch.Tensor]] = [[] for _ in range(slots)]
        self._steps: Sequence[int] = [0] * slots

    @classmethod
    def with_slots(
        cls,
        prior: Prior,
        to_style: LatentMap,
        operator: Operator,
        low_side: int,
        slots: int,
        steps: int = DEFAULT_STEPS["langevin"],
        settings: LangevinSettings | None = None,
    ) -> Langevin:
        """Room for so many chains of inputs seen through one operator; measures the curvature."""
        curvature = measure_curvature(prior, to_style, operator, low_side, settings)
        sigma = input_sigma(operator)
        return cls(prior, to_style, curvature, sigma, low_side, slots, steps, settings)

    @torch.no_grad()
    def start(self, slots: Sequence[int], starts: Sequence[Start]) -> None:
        """Start at draws of the prior; all that is random of a chain comes from its generator."""
        for slot, each in zip(slots, starts, strict=True):
            self._generators[slot], self._kept[slot] = each.generator, []
            self.observed[slot] = each.target[0].numel()
            for drawn in [self.ws, *self.noise, *self.velocities]:
                drawn[slot] = self._normal(slot, drawn)

    def variables(self) -> list[torch.Tensor]:
        return [self.ws, *self.moved]

    def image(self, steps_taken: Sequence[int]) -> torch.Tensor:
        self._steps = steps_taken
        latent = product(self.root, self.ws)  # [S, L, D]
        return self.prior.synthesize(self.to_style(latent), self.noise)

    def loss(self, residual: torch.Tensor) -> torch.Tensor:
        """Energy `[S]`: minus the logarithm of the posterior density, up to a constant."""
        mse = mean_square(residual)
        error = mse.detach().sqrt()
        self.sigmas = torch.maximum(self.settings.lag * error, self._scheduled())
        self._keep(error)
        data = self.observed * mse / (2 * self.sigmas.square())
        return data + sum(0.5 * v.square().flatten(1).sum(dim=1) for v in self.variables())

    def update(self, gradients: Sequence[torch.Tensor], steps_taken: Sequence[int]) -> None:
        """One step: kick, half a drift, friction and noise, half a drift.

        The gradients are those of the energy.
        """
        h, keep = self.settings.step_size, self.settings.momentum
        fresh = (1 - keep**2) ** 0.5
        for i, (x, gradient) in enumerate(zip(self.variables(), gradients, strict=True)):
            velocity = self.velocities[i] - h * self._scaled(i, gradient)
            x.add_(self._scaled(i, velocity), alpha=h / 2)
            noise = torch.stack([self._normal(slot, x) for slot in range(len(x))])
            velocity = keep * velocity + fresh * noise.to(x.device)
            x.add_(self._scaled(i, velocity), alpha=h / 2)
            self.velocities[i] = velocity

    def chain(self, slot: int) -> Chain:
        """The trace of a chain after the annealing, `[T, 9]`, and its sigma.

        The coordinates are 8 principal ones of the mean row. It is the chain in the slot until
        another one starts there.
        """
        kept = self._kept[slot]
        trace = torch.stack(kept) if kept else torch.empty(0, 1 + self.axes.shape[1])
        return Chain(trace, float(self.sigmas[slot]))

    @property
    def _annealed(self) -> int:
        return round(self.settings.anneal * self.steps)

    def _scheduled(self) -> torch.Tensor:  # [S]
        first = max(self.settings.first_sigma, self.sigma)
        shares = [min(1.0, step / max(1, self._annealed)) for step in self._steps]
        falling = [first * (self.sigma / first) ** share for share in shares]
        return torch.tensor(falling, device=self.ws.device)

    def _scaled(self, index: int, x: torch.Tensor) -> torch.Tensor:
        """`mass^(-1/2) x` of the variable of this index."""
        precision = self.settings.margin / self.sigmas.square()  # [S]
        if index:
            curvature = self.curvature.noise[index - 1]
            return x * (1 + precision * curvature).rsqrt().view(-1, 1, 1, 1)
        vectors = self.curvature.vectors
        scales = (1 + precision[:, None, None] * self.curvature.values).rsqrt()
        turned = _by_block(x, vectors) * scales
        return _by_block(turned, vectors.mT)

    def _normal(self, slot: int, x: torch.Tensor) -> torch.Tensor:
        """Standard normal, of the shape of a sample of x, on the CPU; zeros for an idle slot."""
        generator = self._generators[slot]
        if generator is None:
            return torch.zeros(x.shape[1:])
        return torch.randn(x.shape[1:], generator=generator)

    @torch.no_grad()
    def _keep(self, error: torch.Tensor) -> None:
        slots = [i for i, step in enumerate(self._steps) if step >= self._annealed]
        if not slots:
            return
        mean = product(self.root, self.ws).mean(dim=1)  # [S, D]
        facts = torch.cat([error[:, None] / self.sigma, rows_times(mean, self.axes)], dim=1).cpu()
        for slot in slots:
            self._kept[slot].append(facts[slot])


def _by_block(x: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """`[S, B, D]` by one matrix `[D, E]` for each of B: `[S, B, E]`."""
    pairs = zip(x.unbind(1), matrices, strict=True)
    return torch.stack([rows_times(each, matrix) for each, matrix in pairs], dim=1)


def moved_maps(prior: Prior, low_side: int, settings: LangevinSettings) -> list[int]:
    """Indices of the noise maps that move."""
    largest = settings.noise_reach * low_side
    return [i for i, shape in enumerate(prior.noise_shapes) if shape[0] <= largest]


def measure_curvature(
    prior: Prior,
    to_style: LatentMap,
    operator: Operator,
    low_side: int,
    settings: LangevinSettings | None = None,
) -> Curvature:
    """The mean curvature that the chains of all inputs of one size and operator share."""
    settings = settings or LangevinSettings()
    root = ws_root(prior.num_ws, settings.ws_correlation).to(prior.device)
    moved = moved_maps(prior, low_side, settings)
    return mean_curvature(prior, to_style, operator, root, moved, settings.probes)


def input_sigma(operator: Operator) -> float:
    """Deviation of an 8-bit input around `A x`: its rounding, and the operator's `noise:STD`."""
    return (ROUNDING_VARIANCE + operator.random_variance) ** 0.5


def principal_axes(statistics: LatentStatistics) -> torch.Tensor:
    """From a latent to its first principal coordinates in style space, `[D, 8]` or fewer.

    The coordinates are standard normal where the latent is.
    """
    # cov = C C' = U s^2 U'; coordinates U' C u / s = V' u.
    _, _, vectors = torch.linalg.svd(statistics.cholesky)
    return vectors[:COORDINATES].t().contiguous()
