"""What is known of one input: its pixels, through which operator, with how much noise.

Shape legend: R the prior's resolution, h w low-res. Pixels are uint8.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from pulse_sr.config import SearchConfig
from pulse_sr.errors import UsageError
from pulse_sr.images.fit import FittedInput, fit_to_prior
from pulse_sr.images.pixels import Pixels, to_uint8
from pulse_sr.images.read import LowResImage
from pulse_sr.inversion.blind.detection import choose_for_image
from pulse_sr.operators.base import ROUNDING_VARIANCE, Operator, Range
from pulse_sr.operators.building import build_operator
from pulse_sr.operators.spec import AUTO, OperatorSpec, parse_operator
from pulse_sr.priors.base import Prior
from pulse_sr.search.records import Observed

#: A written sample at or above this LR-PSNR in dB is "ok", else "below_target"; where the input has
#: noise or is a JPEG file, the level of that is enough: beyond it a sample would fit the noise.
OK_DB = 45.0

# Unknown pixels are shown as image editors show them: squares of two greys.
_SQUARES, _LIGHT, _DARK = 16, 204, 153


@dataclass(frozen=True, eq=False, kw_only=True)
class Observation(Observed):
    """An input as it is searched, and where it comes from.

    Of what the search is told, `y` is float64 `[3, h, w]`: grey after `gray`, unknown pixels under
    squares of two greys.

    Attributes:
        image: the input as read: its file, and for a face its photo and its place there.
        rows, columns: half-open ranges of the low-res grid that `y` covers; the rest is padding.
        projection: "exact", "soft" or "off".
        noise_variance: of `y` in units of [0, 1], at least that of its rounding.
        grey: the input shows no colours, and the operator has not taken them away: neither have the
            samples.
        facts: what a record says of the operator beside its text: `chosen_by` ("option", "auto",
            or "photo" for a face that we made small ourselves), `candidates` of auto, `mask`.
        notes: what was changed on reading and fitting the input.
    """

    image: LowResImage
    rows: Range
    columns: Range
    projection: str = "exact"
    noise_variance: float = ROUNDING_VARIANCE
    grey: bool = False
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def pixels(self) -> Pixels:
        """`y` as uint8 [3, h, w]."""
        return to_uint8(self.y.numpy())

    @property
    def ok_db(self) -> float:
        """LR-PSNR in dB from which a written sample is "ok"."""
        return min(OK_DB, -10.0 * math.log10(self.noise_variance))


def observe(
    image: LowResImage,
    prior: Prior,
    config: SearchConfig,
    indices: Sequence[int],
    previous: Observation | None = None,
) -> Observation:
    """Places an input on the prior's grid, settles its operator, and how far to trust the pixels.

    Args:
        image: the input as read.
        prior: the generator; blind mode draws faces of it, once for each kind of input.
        config: the settings.
        indices: which samples are wanted, from 0.
        previous: an earlier input, whose operator is taken where it is the same.

    Raises:
        InputError: the input does not fit the prior.
        UsageError: the operator does not suit the sizes, or cannot be met exactly as asked.
    """
    spec = _asked_for(config)
    fitted = fitted_input(image, prior.resolution, config)
    facts: dict[str, Any] = {"chosen_by": "option"}
    if spec is None:
        spec, facts = _settled(image, fitted, prior)
    if spec.mask_file:
        facts["mask"] = {"file": spec.mask_file, "sha256": spec.mask_sha256()}
    operator = _operator(spec, fitted, prior.resolution, previous)
    # A file that is part of the operator is not counted twice.
    noise = operator.noise_variance + (0.0 if spec.has_jpeg else image.jpeg_noise**2)
    notes, grey = fitted.notes, bool((fitted.pixels == fitted.pixels[:1]).all())
    if spec.in_gray and not grey:
        notes = (*notes, "the input has colours: only its luma was used")
    if grey and not spec.in_gray:
        notes = (*notes, "the input is grey, so the faces are; --operator 'bicubic|gray' colours")
    return Observation(
        y=torch.from_numpy(_known_pixels(operator, spec, fitted.pixels) / 255.0),
        operator=operator,
        side=fitted.side,
        sha256=image.sha256,
        indices=indices,
        target_db=min(config.target_db, operator.noise_limit_db),
        image=image,
        rows=fitted.rows,
        columns=fitted.columns,
        projection=_projection(operator, spec, image, config),
        noise_variance=max(noise, ROUNDING_VARIANCE),
        grey=grey and not spec.in_gray,
        facts=facts,
        notes=notes,
    )


def fitted_input(image: LowResImage, resolution: int, config: SearchConfig) -> FittedInput:
    """Places an input on the low-res grid of a prior of this resolution, as `config` asks for.

    Raises:
        InputError, UsageError: see `images.fit.fit_to_prior`.
    """
    spec = _asked_for(config)
    keeps_size = spec is not None and not spec.resizes
    return fit_to_prior(image, resolution, config.fit, config.scale, keeps_size=keeps_size)


def _asked_for(config: SearchConfig) -> OperatorSpec | None:
    """The operator; None: it is to be found out."""
    return None if config.operator.strip() == AUTO else parse_operator(config.operator)


def _settled(
    image: LowResImage, fitted: FittedInput, prior: Prior
) -> tuple[OperatorSpec, dict[str, Any]]:
    """The operator where none was asked for, who chose it, and among which."""
    if image.face is not None:
        return parse_operator(image.face.operator), {"chosen_by": "photo"}
    y = torch.from_numpy(fitted.pixels / 255.0)
    ranking = choose_for_image(prior, image, y, prior.resolution // fitted.side)
    return parse_operator(ranking.best), {"chosen_by": "auto", "candidates": ranking.describe()}


def _operator(
    spec: OperatorSpec, fitted: FittedInput, resolution: int, previous: Observation | None
) -> Operator:
    wanted = (spec.text, fitted.side, fitted.rows, fitted.columns)
    if previous is not None:
        built = (previous.operator.spec, previous.side, previous.rows, previous.columns)
        if built == wanted:
            return previous.operator
    low, high = (fitted.side, fitted.side), (resolution, resolution)
    return build_operator(spec, low, high, fitted.rows, fitted.columns)


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
