"""The degradation operator A: from high-res images to what is known of a low-res picture.

    base.py       what an operator is: A, A', pseudo-inverse, projections, LR-PSNR
    separable.py  resampling, blur and `gray`: two matrices and three weights, all in closed form
    masked.py     some pixels are known (conjugate_gradients.py where there is no closed form)
    filed.py      JPEG files on the way, forward exact (jpeg.py), backward straight through
    building.py   from a spec (`pulse_sr.operator_spec`, docs/operators.md) to one of these
    projection.py exact projection of 8-bit images, soft projection to the noise
    degrading.py  low-res pictures, with noise and files
    ranking.py    which operator turned one picture into the other

Example:
    >>> import torch
    >>> from pulse_sr.operators import make_operator
    >>> A = make_operator("bicubic", low=8, high=32)
    >>> x = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    >>> y = torch.rand(2, 3, 8, 8, dtype=torch.float64)
    >>> bool(torch.allclose(A(A.project(x, y)), y))
    True
"""

from __future__ import annotations

from pulse_sr.operator_spec import parse_operator
from pulse_sr.operators.base import ROUNDING_VARIANCE, Operator
from pulse_sr.operators.building import build_operator, check_operator
from pulse_sr.operators.degrading import Degraded, degrade, degrade_picture
from pulse_sr.operators.filed import FiledOperator
from pulse_sr.operators.masked import MaskedOperator
from pulse_sr.operators.projection import project_to_floor, project_to_noise
from pulse_sr.operators.ranking import CANDIDATE_SPECS, rank_operators
from pulse_sr.operators.separable import SeparableOperator

__all__ = [
    "CANDIDATE_SPECS",
    "ROUNDING_VARIANCE",
    "Degraded",
    "FiledOperator",
    "MaskedOperator",
    "Operator",
    "SeparableOperator",
    "check_operator",
    "degrade",
    "degrade_picture",
    "make_operator",
    "project_to_floor",
    "project_to_noise",
    "rank_operators",
    "rectangular_operator",
]


def make_operator(
    spec: str,
    low: int,
    high: int,
    rows: tuple[int, int] | None = None,
    columns: tuple[int, int] | None = None,
) -> Operator:
    """Builds the operator from square `high` px images to square `low` px images.

    Args:
        spec: for example `bicubic` or `gaussian:1.6|pillow|noise:0.02`, see `parse_operator`.
        low: low-res side in pixels.
        high: high-res side in pixels.
        rows, columns: half-open window of the low-res grid that the picture covers, None: all of
            it. The same as `Operator.observed`, but a mask file may have the size of the window.

    Raises:
        UsageError: unknown stage (the message lists the known ones), impossible sizes, or a mask
            file that is missing or does not fit.
        InputError: a mask file that is not a picture.
    """
    return build_operator(parse_operator(spec), (low, low), (high, high), rows, columns)


def rectangular_operator(spec: str, low: tuple[int, int], high: tuple[int, int]) -> Operator:
    """The same for images that are not square; sizes are (height, width).

    Raises:
        UsageError, InputError: see `make_operator`.
    """
    return build_operator(parse_operator(spec), low, high)
