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

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pulse_sr.devices import images_at_once
from pulse_sr.errors import UsageError
from pulse_sr.images.jpeg import read_quality
from pulse_sr.images.read import LowResImage
from pulse_sr.inversion.blind.band_power import band_power
from pulse_sr.inversion.blind.ranking import Ranking
from pulse_sr.operators.base import Range, Size
from pulse_sr.operators.building import build_steps
from pulse_sr.operators.degrading import simulate
from pulse_sr.operators.spec import parse_operator
from pulse_sr.priors.base import Prior
from pulse_sr.search.samples import sample_seed

#: How many faces of the prior are looked at.
FACES = 512
#: Widths of the Gaussians that are tried, in low-res pixels.
WIDTHS = (0.2, 0.4, 0.6, 0.8)
#: Levels of noise that are tried, in units of [0, 1].
NOISES = (0.02, 0.05)
#: What a fitted value costs, in nats: among operators that do nearly the same, the plain one.
COST = 2.0

_CHUNK, _CHUNK_PIXELS = 16, 2**20
# Faces of a prior are kept for the next kind of input if they take no more bytes.
_KEEP_BYTES = 2**27
# Keeps the covariance invertible where all faces have the same number; others vary by about 1.
_RIDGE = 1e-6


@dataclass(frozen=True)
class Learned:
    """What low-res faces look like through each candidate.

    Attributes:
        specs: the candidates.
        means: float64 [candidates, F].
        whitener: float64 [F, F], lower Cholesky factor of the covariance within candidates.
        in_colour: whether chroma was looked at.
    """

    specs: tuple[str, ...]
    means: Tensor
    whitener: Tensor
    in_colour: bool

    def rank(self, y: Tensor) -> Ranking:
        """Ranks the candidates for a low-res face y [3, h, w] in [0, 1]."""
        difference = (band_power(y[None].double(), self.in_colour) - self.means).mT
        whitened = torch.linalg.solve_triangular(self.whitener, difference, upper=False)
        costs = [COST * _fitted_values(spec) for spec in self.specs]
        scores = -0.5 * whitened.square().sum(dim=0) - whitened.new_tensor(costs)
        relative = (scores - scores.max()).tolist()
        rows = zip(self.specs, relative, strict=True)
        return Ranking(tuple(sorted(rows, key=lambda row: -row[1])))


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
    low = (y.shape[-2], y.shape[-1])
    return _remembered(prior, low, scale, tuple(candidates), seed).rank(y)


def choose_for_image(prior: Prior, image: LowResImage, y: Tensor, scale: int) -> Ranking:
    """Ranks the default candidates for an input file.

    The same input and prior always give the same ranking, so that a run can be resumed.

    Args:
        image: the input as read: a JPEG file says itself with which quality it was written.
        prior, y, scale: see `choose_operator`.

    Raises:
        UsageError: the scale is below 2.
    """
    quality = read_quality(image.path) if image.is_jpeg else None
    candidates = default_candidates(scale, gray=is_gray(y), jpeg=quality)
    return choose_operator(prior, y, scale, candidates)


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
    rng = np.random.default_rng(sample_seed(seed, "blind", FACES))
    found: list[list[Tensor]] = [[] for _ in plans]
    for drawn in _faces(prior, seed):
        faces = drawn.double() / 255
        for numbers, steps in zip(found, plans, strict=True):
            made = (simulate(faces, steps, rng).clamp(0, 1) * 255).round() / 255
            numbers.append(band_power(made, in_colour))
    clouds = [torch.cat(numbers) for numbers in found]
    within = torch.stack([cloud.mT.cov() for cloud in clouds]).mean(dim=0)
    within += _RIDGE * torch.eye(len(within), dtype=within.dtype)
    means = torch.stack([cloud.mean(dim=0) for cloud in clouds])
    names = tuple(spec.text for spec in specs)
    return Learned(names, means, torch.linalg.cholesky(within), in_colour)


@dataclass
class _Memory:
    """What is kept of one prior: what was learnt, and its faces, uint8 [N, 3, R, R], by seed."""

    owner: weakref.ref[Prior]
    learned: dict[tuple[object, ...], Learned] = field(default_factory=dict)
    faces: dict[int, list[Tensor]] = field(default_factory=dict)


# By the id of the prior: a folder asks once. Priors that are gone are forgotten.
_memories: dict[int, _Memory] = {}


def _memory_of(prior: Prior) -> _Memory:
    for key in [key for key, memory in _memories.items() if memory.owner() is None]:
        del _memories[key]
    return _memories.setdefault(id(prior), _Memory(weakref.ref(prior)))


def _remembered(
    prior: Prior, low: Size, scale: int, candidates: tuple[str, ...], seed: int
) -> Learned:
    """`learn`, once in a process for each prior and kind of input."""
    answers, question = _memory_of(prior).learned, (low, scale, candidates, seed)
    if question not in answers:
        answers[question] = learn(prior, low, scale, candidates, seed)
    return answers[question]


def _faces(prior: Prior, seed: int) -> Iterator[Tensor]:
    """Faces as files hold them, uint8 [n, 3, R, R] on the CPU, a few at a time."""
    kept = _memory_of(prior).faces
    if seed in kept:
        yield from kept[seed]
        return
    fits = FACES * 3 * prior.resolution**2 <= _KEEP_BYTES
    drawn = []
    chunk = images_at_once(prior.resolution, _CHUNK, _CHUNK_PIXELS)
    seeds = [sample_seed(seed, "blind", index) for index in range(FACES)]
    for start in range(0, FACES, chunk):
        faces = prior.in_precision(bf16=False).sample(seeds[start : start + chunk])
        drawn.append((faces * 255).round().to(torch.uint8).cpu())
        yield drawn[-1] if fits else drawn.pop()
    if fits:
        kept.clear()
        kept[seed] = drawn


def _fitted_values(spec: str) -> int:
    return sum(stage.kind in ("gaussian", "noise") for stage in parse_operator(spec).stages)


def _centred(length: int, side: int) -> Range:
    first = (side - length) // 2
    return first, first + length
