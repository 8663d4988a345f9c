"""From a checked operator and two sizes to matrices, masks and files.

Shape legend: H W high-res, h w low-res. The chain of stages has a normal form: all blurs and the
resampling multiply to one pair of matrices, `gray` commutes with them, a mask moves to the end (a
low-res pixel is known if no unknown pixel reaches it), and noise is a variance.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pulse_sr.errors import UsageError
from pulse_sr.images.jpeg import jpeg_noise_level, quantisation_table
from pulse_sr.images.read import read_image
from pulse_sr.operators.base import Operator, Range, Size
from pulse_sr.operators.filed import FiledOperator
from pulse_sr.operators.jpeg import jpeg_round_trip
from pulse_sr.operators.masked import MaskedOperator
from pulse_sr.operators.resampling import gaussian_matrix, resampling_matrix
from pulse_sr.operators.separable import LUMA_ENERGY, SeparableOperator
from pulse_sr.operators.spec import OperatorSpec, Stage, parse_operator

#: A low-res pixel counts as known if unknown pixels change it by less than half a grey level.
_REACH = 0.5 / 255


@dataclass(frozen=True)
class Noise:
    """White Gaussian noise of this standard deviation, in units of [0, 1]."""

    std: float


@dataclass(frozen=True)
class Jpeg:
    """A JPEG file of this quality."""

    quality: int


#: What happens to a picture, in turn.
BuiltStage = SeparableOperator | Noise | Jpeg


def make_operator(
    spec: str,
    low: int | Size,
    high: int | Size,
    rows: Range | None = None,
    columns: Range | None = None,
) -> Operator:
    """Builds the operator from `high` px images to `low` px images.

    Args:
        spec: for example `bicubic` or `gaussian:1.6|pillow|noise:0.02`, see `parse_operator`.
        low: low-res side in pixels, or (height, width).
        high: high-res side in pixels, or (height, width).
        rows: half-open window of the low-res grid that the picture covers, None: all of it. The
            same as `Operator.observed`, but a mask file may have the size of the window.
        columns: the same of its columns.

    Raises:
        UsageError: unknown stage (the message lists the known ones), impossible sizes, or a mask
            file that is missing or does not fit.
        InputError: a mask file that is not a picture.
    """
    low, high = ((side, side) if isinstance(side, int) else side for side in (low, high))
    return build_operator(parse_operator(spec), low, high, rows, columns)


def build_operator(
    spec: OperatorSpec,
    low: Size,
    high: Size,
    rows: Range | None = None,
    columns: Range | None = None,
) -> Operator:
    """Builds the operator.

    Args:
        spec: from `parse_operator`.
        low: (h, w) of the whole low-res grid.
        high: (H, W).
        rows, columns: the window of the grid that is observed; None: all of it.

    Raises:
        UsageError: sizes that the stages cannot make, or a mask that does not fit.
    """
    chain = _run(spec, low, high, rows, columns)
    rebuild = partial(build_operator, spec, low, high)
    full = replace(
        chain.total.operator(spec.text),
        rebuild=rebuild,
        noise_variance=chain.random_variance + chain.file_variance,
        random_variance=chain.random_variance,
    )
    linear: SeparableOperator | MaskedOperator = full
    if chain.known is not None:
        if not bool(chain.known.any()):
            raise UsageError(
                f"operator {spec.text!r} leaves no pixel of the low-res picture known",
                "the mask is white where pixels are known",
            )
        linear = MaskedOperator(full, chain.known, rebuild)
    if not spec.has_jpeg:
        return linear
    # Noise is never drawn in A(x): it is part of the model as a variance only.
    forward = [
        partial(jpeg_round_trip, quality=step.quality) if isinstance(step, Jpeg) else step
        for step in chain.steps
        if not isinstance(step, Noise)
    ]
    return FiledOperator(forward, linear, rebuild)


def build_steps(
    spec: OperatorSpec,
    low: Size,
    high: Size,
    rows: Range | None = None,
    columns: Range | None = None,
) -> tuple[list[BuiltStage], Tensor | None]:
    """Returns what happens to a picture in turn, and which low-res pixels are known (None: all).

    Args: see `build_operator`.

    Raises:
        UsageError: see `build_operator`.
    """
    chain = _run(spec, low, high, rows, columns)
    return chain.steps, chain.known


def check_operator(spec: OperatorSpec, resolution: int, scale: int) -> None:
    """Refuses what no input of this scale could work with, before there is an input.

    The size of a mask is not looked at: it may be that of the input.

    Args:
        spec: from `parse_operator`.
        resolution: H = W.
        scale: H / h.

    Raises:
        UsageError: see `build_operator`; or a mask that can not be read.
    """
    spec.identity()  # reads the mask
    stages = tuple(stage for stage in spec.stages if stage.kind != "mask")
    low = resolution // scale
    build_operator(replace(spec, stages=stages), (low, low), (resolution, resolution))


@dataclass(frozen=True)
class _Linear:
    """A product of blurs, resampling and `gray`."""

    vertical: Tensor
    horizontal: Tensor
    gray: bool = False

    def then(self, vertical: Tensor, horizontal: Tensor) -> _Linear:
        return replace(
            self, vertical=vertical @ self.vertical, horizontal=horizontal @ self.horizontal
        )

    def operator(self, spec: str) -> SeparableOperator:
        return SeparableOperator(spec, self.vertical, self.horizontal, self.gray)


def _identity(size: Size) -> _Linear:
    vertical, horizontal = (torch.eye(length, dtype=torch.float64) for length in size)
    return _Linear(vertical, horizontal)


@dataclass
class _Chain:
    """The stages so far.

    Attributes:
        spec, low, high, rows, columns: see `build_operator`.
        total: all linear stages.
        part: those after the last file or noise; None without any.
        steps: what happens to a picture, without `part`.
        known: bool, the size of the picture so far; None: all of it.
        random_variance, file_variance: of the noise and of the files, seen at this stage.
    """

    spec: OperatorSpec
    low: Size
    high: Size
    rows: Range
    columns: Range
    total: _Linear
    part: _Linear | None = None
    steps: list[BuiltStage] = field(default_factory=list)
    known: Tensor | None = None
    random_variance: float = 0.0
    file_variance: float = 0.0

    @property
    def size(self) -> Size:
        return len(self.total.vertical), len(self.total.horizontal)

    @property
    def window(self) -> Size:
        return self.rows[1] - self.rows[0], self.columns[1] - self.columns[0]

    def add(self, stage: Stage) -> None:
        if stage.kind in ("kernel", "gaussian"):
            self._filter(*self._matrices(stage))
        elif stage.kind == "gray":
            self.total = replace(self.total, gray=True)
            self.part = replace(self.part or _identity(self.size), gray=True)
            self._scale_variances(LUMA_ENERGY)
        elif stage.kind == "noise":
            self._step(Noise(stage.value))
            self.random_variance += stage.value**2
        elif stage.kind == "jpeg":
            self._step(Jpeg(int(stage.value)))
            self.file_variance += _jpeg_variance(int(stage.value), gray=self.total.gray)
        else:
            self.known = self._read_mask(stage)

    def finish(self) -> None:
        """Puts what came after the last file or noise into the steps."""
        if self.part is not None:
            self.steps.append(self.part.operator(self.spec.text))
        self.part = None

    def crop(self) -> None:
        """Restricts the picture to the window of the grid; it has the size of the grid."""
        eye = _identity(self.low)
        self._filter(eye.vertical[slice(*self.rows)], eye.horizontal[slice(*self.columns)])

    def _matrices(self, stage: Stage) -> tuple[Tensor, Tensor]:
        if not stage.resizes:
            return _pair(gaussian_matrix(length, length, stage.value) for length in self.size)
        pair = _pair(
            gaussian_matrix(low, high, stage.value)
            if stage.kind == "gaussian"
            else resampling_matrix(stage.text, low, high)
            for low, high in zip(self.low, self.high, strict=True)
        )
        return pair[0][slice(*self.rows)], pair[1][slice(*self.columns)]

    def _filter(self, vertical: Tensor, horizontal: Tensor) -> None:
        self.part = (self.part or _identity(self.size)).then(vertical, horizontal)
        self.total = self.total.then(vertical, horizontal)
        energies = (matrix.square().sum(dim=1).mean() for matrix in (vertical, horizontal))
        self._scale_variances(float(next(energies) * next(energies)))
        if self.known is not None:
            self.known = _still_known(self.known, vertical, horizontal)

    def _scale_variances(self, factor: float) -> None:
        self.random_variance *= factor
        self.file_variance *= factor

    def _step(self, step: BuiltStage) -> None:
        self.finish()
        self.steps.append(step)

    def _read_mask(self, stage: Stage) -> Tensor:
        pixels = read_image(stage.file).pixels
        known = torch.from_numpy(pixels.astype(np.float64).mean(axis=0) >= 128)
        size = tuple(known.shape)
        if size == self.size:
            return known
        if size == self.low and self.size == self.window:
            return known[slice(*self.rows), slice(*self.columns)]
        if size == self.high:
            return _still_known(known, self.total.vertical, self.total.horizontal)
        raise UsageError(
            f"operator stage {stage.text!r}: the mask has {size[1]}x{size[0]} px, expected "
            f"{self.size[1]}x{self.size[0]} px as the picture at that stage",
            "resize the mask without smoothing",
        )


def _run(
    spec: OperatorSpec, low: Size, high: Size, rows: Range | None, columns: Range | None
) -> _Chain:
    if not spec.resizes and low != high:
        raise UsageError(
            f"operator {spec.text!r} keeps the size, got {low[1]}x{low[0]} px from "
            f"{high[1]}x{high[0]} px",
            f"--operator 'bicubic|{spec.text}', or --scale 1",
        )
    with torch.inference_mode(False):
        rows, columns = rows or (0, low[0]), columns or (0, low[1])
        chain = _Chain(spec, low, high, rows, columns, _identity(high))
        if not spec.resizes and chain.window != low:
            chain.crop()
        for stage in spec.stages:
            chain.add(stage)
        chain.finish()
    return chain


def _pair(matrices: Iterable[NDArray[np.float64]]) -> tuple[Tensor, Tensor]:
    first, second = (torch.from_numpy(matrix) for matrix in matrices)
    return first, second


def _still_known(known: Tensor, vertical: Tensor, horizontal: Tensor) -> Tensor:
    """Which output pixels no unknown input pixel reaches: bool [H, W] to bool [h, w]."""
    unknown = (~known).double()
    return vertical.abs() @ unknown @ horizontal.abs().mT < _REACH


def _jpeg_variance(quality: int, *, gray: bool) -> float:
    luma = quantisation_table(quality).flatten().tolist()
    chroma = [] if gray else quantisation_table(quality, chroma=True).flatten().tolist()
    return jpeg_noise_level(luma, chroma) ** 2
