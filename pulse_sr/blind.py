"""Blind mode: which operator made a low-res face, when only the face and a prior are at hand?

The prior says what faces look like, so each candidate operator says what low-res faces look like:
smooth or sharp at the pixel scale, with how much grain in their colours. A few numbers of many
sampled faces through each candidate form a cloud; the operator whose cloud lies nearest to the
input is chosen (linear discriminant analysis: Fisher, 1936). The residual of a search cannot tell:
whatever the operator, a search bends faces until they fit, and best through a blur
(docs/operators.md has the numbers of both).

Shape legend: N faces, R the prior's resolution, h w low-res, F numbers of a face.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pulse_sr.errors import UsageError
from pulse_sr.operator_spec import parse_operator
from pulse_sr.operators.base import Range, Size
from pulse_sr.operators.building import build_steps
from pulse_sr.operators.degrading import simulate
from pulse_sr.priors.base import Prior
from pulse_sr.search.sampling import sample_seed

#: How many faces of the prior are looked at.
FACES = 512
#: Widths of the Gaussians that are tried, in low-res pixels.
WIDTHS = (0.2, 0.4, 0.6, 0.8)
#: Levels of noise that are tried, in units of [0, 1].
NOISES = (0.02, 0.05)
#: What a fitted value costs, in nats: among operators that do nearly the same, the plain one.
COST = 2.0

_CHUNK = 16
_BANDS = 5
_LOG_FLOOR = 1e-5  # about the power of 8-bit rounding
# Rows: Y', Cb, Cr of BT.601.
_COLOURS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


@dataclass(frozen=True)
class Ranking:
    """Operators by how well the prior's faces explain the input through them, best first.

    Attributes:
        rows: (spec, score in nats relative to the best one, 0 or less): the log-likelihood, less
            `COST` for every value that was fitted (a width, a level of noise).
    """

    rows: tuple[tuple[str, float], ...]

    @property
    def best(self) -> str:
        """The chosen operator."""
        return self.rows[0][0]

    @property
    def runner_up(self) -> tuple[str, float]:
        """The second operator and its score relative to the best."""
        return self.rows[1]

    def describe(self) -> dict[str, Any]:
        """Returns the ranking as JSON."""
        rows = [{"spec": spec, "score": round(value, 2)} for spec, value in self.rows]
        return {"chosen": self.best, "candidates": rows}

    def sentence(self) -> str:
        """Returns one line for people."""
        spec, value = self.runner_up
        return f"operator auto: {self.best} (runner-up {spec}, {-value:.1f} nats behind)"


@dataclass(frozen=True)
class Learned:
    """What low-res faces look like through each candidate.

    Attributes:
        specs: the candidates.
        means: float64 [candidates, F].
        whitener: float64 [F, F], lower Cholesky factor of the covariance within candidates.
    """

    specs: tuple[str, ...]
    means: Tensor
    whitener: Tensor

    def rank(self, y: Tensor) -> Ranking:
        """Ranks the candidates for a low-res face y [3, h, w] in [0, 1]."""
        difference = (_numbers(y[None].double(), self._in_colour) - self.means).mT
        whitened = torch.linalg.solve_triangular(self.whitener, difference, upper=False)
        costs = [COST * _fitted_values(spec) for spec in self.specs]
        scores = -0.5 * whitened.square().sum(dim=0) - whitened.new_tensor(costs)
        relative = (scores - scores.max()).tolist()
        rows = zip(self.specs, relative, strict=True)
        return Ranking(tuple(sorted(rows, key=lambda row: -row[1])))

    @property
    def _in_colour(self) -> bool:
        return self.means.shape[1] > _BANDS


def choose_operator(
    prior: Prior,
    y: Tensor,
    scale: int,
    candidates: Sequence[str] | None = None,
    seed: int = 0,
) -> Ranking:
    """Ranks operators by what the prior can explain.

    Args:
        prior: the generator.
        y: the low-res face, [3, h, w] in [0, 1], an 8-bit picture without padding.
        scale: R / side of the square low-res grid that y lies centred in.
        candidates: at least two specs; None: `default_candidates`.
        seed: of the sampled faces and of noise.

    Raises:
        UsageError: fewer than two candidates, or one that does not suit the sizes.
    """
    if candidates is None:
        candidates = default_candidates(scale, gray=is_gray(y))
    return learn(prior, (y.shape[-2], y.shape[-1]), scale, candidates, seed).rank(y)


def default_candidates(scale: int, *, gray: bool = False, jpeg: int | None = None) -> list[str]:
    """Returns the operators that can be told apart at this scale.

    `bicubic` stands for all resampling that keeps what the low-res picture can hold; `matlab`,
    `pillow` and it differ at the borders only, by less than the faces do.

    Args:
        scale: R / low-res side.
        gray: whether the input is grey: then every candidate ends in `gray`.
        jpeg: the quality of the file, if the input is a JPEG (`jpeg_tables.read_quality`).

    Raises:
        UsageError: the scale is below 2.
    """
    if scale < 2:
        raise UsageError(
            f"--operator auto expects a scale of 2 or more, got {scale}", "--operator SPEC"
        )
    blurs = [f"gaussian:{width * scale:g}" for width in WIDTHS]
    grains = [f"bicubic|noise:{std:g}" for std in NOISES]
    after = [*(["gray"] if gray else []), *([f"jpeg:{jpeg}"] if jpeg is not None else [])]
    return ["|".join([spec, *after]) for spec in ["bicubic", "area", *blurs, *grains]]


def is_gray(y: Tensor) -> bool:
    """Whether the channels of y [3, h, w] are equal."""
    return bool((y == y[:1]).all())


@torch.no_grad()
def learn(prior: Prior, low: Size, scale: int, candidates: Sequence[str], seed: int = 0) -> Learned:
    """Looks at `FACES` faces of the prior through each candidate.

    One call serves all inputs of the same size.

    Args:
        prior, scale, candidates, seed: see `choose_operator`.
        low: (h, w) of the inputs.

    Raises:
        UsageError: see `choose_operator`.
    """
    if len(candidates) < 2:
        raise UsageError(f"--operator auto expects two candidates or more, got {len(candidates)}")
    specs = [parse_operator(text) for text in candidates]
    side = prior.resolution // scale
    rows, columns = (_centred(length, side) for length in low)
    grid, high = (side, side), (prior.resolution, prior.resolution)
    plans = [build_steps(spec, grid, high, rows, columns)[0] for spec in specs]
    in_colour = not all(any(stage.kind == "gray" for stage in spec.stages) for spec in specs)
    seeds = [sample_seed(seed, "blind", index) for index in range(FACES)]
    rng = np.random.default_rng(sample_seed(seed, "blind", FACES))
    found: list[list[Tensor]] = [[] for _ in plans]
    for start in range(0, FACES, _CHUNK):
        faces = prior.sample(seeds[start : start + _CHUNK]).cpu().double()
        faces = (faces * 255).round() / 255
        for numbers, steps in zip(found, plans, strict=True):
            made = (simulate(faces, steps, rng).clamp(0, 1) * 255).round() / 255
            numbers.append(_numbers(made, in_colour))
    clouds = [torch.cat(numbers) for numbers in found]
    within = torch.stack([cloud.mT.cov() for cloud in clouds]).mean(dim=0)
    means = torch.stack([cloud.mean(dim=0) for cloud in clouds])
    return Learned(tuple(spec.text for spec in specs), means, torch.linalg.cholesky(within))


def _fitted_values(spec: str) -> int:
    return sum(stage.kind in ("gaussian", "noise") for stage in parse_operator(spec).stages)


def _centred(length: int, side: int) -> Range:
    first = (side - length) // 2
    return first, first + length


def _numbers(y: Tensor, in_colour: bool) -> Tensor:
    """Logarithms of the power in bands of frequency, luma and chroma apart: [N, F].

    Bands are rings of the cosine transform, equally wide from just above zero to the corner.

    Args:
        y: [N, 3 or 1, h, w].
        in_colour: whether to look at chroma.
    """
    planes = y[:, :1]
    if y.shape[1] == 3:
        planes = torch.einsum("dc,nchw->ndhw", y.new_tensor(_COLOURS), y)
    vertical, horizontal = _cosines(y.shape[-2]).to(y), _cosines(y.shape[-1]).to(y)
    power = (vertical @ planes @ horizontal.mT).square()
    places = [torch.arange(length) / length for length in y.shape[-2:]]
    radius = torch.hypot(places[0][:, None], places[1])
    ring = ((radius * _BANDS / 1.2).long()).clamp_max(_BANDS - 1)
    ring[0, 0] = -1
    numbers = []
    for band in range(_BANDS):
        inside = power[..., ring == band].mean(dim=-1)
        numbers.append(torch.log(inside[:, 0] + _LOG_FLOOR))
        if in_colour:
            numbers.append(torch.log(inside[:, 1:].mean(dim=1) + _LOG_FLOOR))
    return torch.stack(numbers, dim=1)


def _cosines(length: int) -> Tensor:
    """The orthonormal cosine transform, float64 [frequency, place]."""
    place = torch.arange(length, dtype=torch.float64)
    rows = torch.cos(math.pi / length * place[:, None] * (place + 0.5)) * math.sqrt(2 / length)
    rows[0] /= math.sqrt(2)
    return rows
