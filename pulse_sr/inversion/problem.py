"""The inverse problem that one input poses: what is known of it, through which operator, how well.

Shape legend: R the prior's resolution, h w low-res. Pixels are uint8.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pulse_sr.config import SearchConfig
from pulse_sr.errors import UsageError
from pulse_sr.images.fit import FittedInput, fit_to_prior
from pulse_sr.images.pixels import to_uint8
from pulse_sr.images.read import LowResImage
from pulse_sr.inversion.blind.detection import choose_for_image
from pulse_sr.inversion.blind.ranking import Ranking
from pulse_sr.inversion.result import OK_DB
from pulse_sr.operators.base import ROUNDING_VARIANCE, Operator
from pulse_sr.operators.building import make_operator
from pulse_sr.operators.spec import AUTO, OperatorSpec, parse_operator
from pulse_sr.priors.base import Prior

# Unknown pixels are shown as image editors show them: squares of two greys.
_SQUARES, _LIGHT, _DARK = 16, 204, 153

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Problem:
    """What a search has to solve for one input.

    Attributes:
        fitted: the input on the prior's low-res grid.
        operator: from high-res images to what is known of `pixels`.
        spec: the operator as text.
        pixels: uint8 [3, h, w], what is known of the input: grey after `gray`, unknown pixels
            under squares of two greys.
        projection: "exact", "soft" or "off".
        noise_variance: of `pixels` in units of [0, 1], at least that of their rounding.
        target_db: LR-PSNR at which a sample stops.
        ok_db: LR-PSNR from which a written sample is "ok".
        facts: what a record says of the operator beside its text: `chosen_by` ("option", "auto",
            or "photo" for a face that we made small ourselves), `candidates` of auto, `mask`.
        notes: what was changed on reading and fitting the input.
    """

    fitted: FittedInput
    operator: Operator
    spec: str
    pixels: Pixels
    projection: str
    noise_variance: float
    target_db: float
    ok_db: float
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def target(self) -> torch.Tensor:
        """`pixels` as float64 [3, h, w] in [0, 1]."""
        return torch.from_numpy(self.pixels / 255.0)


def pose_problem(image: LowResImage, prior: Prior, config: SearchConfig) -> Problem:
    """Places an input on the prior's grid, settles its operator, and how far to trust the pixels.

    Args:
        image: the input as read.
        prior: the generator; blind mode draws faces of it, once for each kind of input.
        config: the settings.

    Raises:
        InputError: the input does not fit the prior.
        UsageError: the operator does not suit the sizes, or cannot be met exactly as asked.
    """
    fitted = fit_input(image, prior.resolution, config)
    text, chosen_by, ranking = _settle(image, fitted, prior, config)
    spec = parse_operator(text)
    operator = make_operator(spec.text, fitted.side, prior.resolution, fitted.rows, fitted.columns)
    noise_variance = _noise_variance(operator, spec, image)
    notes = list(fitted.notes)
    if spec.in_gray and bool((fitted.pixels != fitted.pixels[:1]).any()):
        notes.append("the input has colours: only its luma was used")
    return Problem(
        fitted=fitted,
        operator=operator,
        spec=spec.text,
        pixels=_known_pixels(operator, spec, fitted.pixels),
        projection=_projection(operator, spec, image, config),
        noise_variance=noise_variance,
        target_db=min(config.target_db, operator.noise_floor_db),
        ok_db=min(OK_DB, -10.0 * math.log10(noise_variance)),
        facts=_facts(spec, chosen_by, ranking),
        notes=tuple(notes),
    )


def fit_input(image: LowResImage, resolution: int, config: SearchConfig) -> FittedInput:
    """Places an input on the low-res grid that the settings ask for.

    Raises:
        InputError, UsageError: see `fit_to_prior`.
    """
    keeps_size = config.operator.strip() != AUTO and not parse_operator(config.operator).resizes
    return fit_to_prior(image, resolution, config.fit, config.scale, keeps_size=keeps_size)


def _settle(
    image: LowResImage, fitted: FittedInput, prior: Prior, config: SearchConfig
) -> tuple[str, str, Ranking | None]:
    """The operator, who chose it, and among which."""
    if config.operator.strip() != AUTO:
        return config.operator, "option", None
    if image.operator:
        return image.operator, "photo", None
    y = torch.from_numpy(fitted.pixels / 255.0)
    ranking = choose_for_image(prior, image, y, prior.resolution // fitted.side)
    return ranking.best, "auto", ranking


def _projection(
    operator: Operator, spec: OperatorSpec, image: LowResImage, config: SearchConfig
) -> str:
    """The projection asked for; without a choice, soft where an exact one has no meaning."""
    wanted = replace(config, operator=spec.text).projection(is_jpeg=image.is_jpeg)
    if wanted != "exact":
        return wanted
    try:
        operator.check_exact()
    except UsageError:
        if config.project == "exact":
            raise
        return "soft"
    return "exact"


def _noise_variance(operator: Operator, spec: OperatorSpec, image: LowResImage) -> float:
    """Of the input's pixels; a file that is part of the operator is not counted twice."""
    file = 0.0 if spec.has_jpeg else image.jpeg_noise**2
    return max(operator.noise_variance + file, ROUNDING_VARIANCE)


def _facts(spec: OperatorSpec, chosen_by: str, ranking: Ranking | None) -> dict[str, Any]:
    facts: dict[str, Any] = {"chosen_by": chosen_by}
    if ranking is not None:
        facts["candidates"] = ranking.describe()
    if spec.mask_file:
        facts["mask"] = {"file": spec.mask_file, "sha256": spec.mask_sha256()}
    return facts


def _known_pixels(operator: Operator, spec: OperatorSpec, pixels: Pixels) -> Pixels:
    if not spec.in_gray and operator.known_pixels is None:
        return pixels
    observation = operator.observe(torch.from_numpy(pixels / 255.0))
    shown = to_uint8(operator.picture(observation).numpy())
    if operator.known_pixels is None:
        return shown
    return np.where(operator.known_pixels.numpy(), shown, _squares(*pixels.shape[1:]))


def _squares(height: int, width: int) -> Pixels:  # [h, w]
    side = max(1, max(height, width) // _SQUARES)
    rows, columns = np.arange(height) // side, np.arange(width) // side
    even = (rows[:, None] + columns) % 2 == 0
    return np.where(even, np.uint8(_LIGHT), np.uint8(_DARK))
