"""The least work of one search step on a StyleGAN2, counted from shapes alone.

A step is cut into passes. Every convolution and every matrix product is one: it reads its inputs
and writes its output once. What lies between two of them is one fused pass, which reads and writes
once too. Going back, only gradients of what moves and of what lies on the way to it are taken:
weights are frozen, so a convolution costs two passes and not three. Left out, as too small or as a
matter of the data: arithmetic on vectors of one sample's channels, keeping the best image.

Shapes: S samples, L style rows, D latent width, I O channels, r input side, c side after the
convolution (2 r + 1 where it up-samples, else r), q output side, R resolution, h low-res side.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pulse_sr.priors.stylegan2 import RESAMPLE_TAPS, StyleGAN2Config
from stylegan_ops.products import whole_lines

_FLOAT32 = 4  # bytes
_RGB = 3
_KERNEL = 3 * 3
#: A multiplication and an addition for each tap of the filter of an up-sampling layer.
_FIR_FLOP = 2 * len(RESAMPLE_TAPS) ** 2
#: Width of the bicubic kernel, in low-res pixels.
_CUBIC_TAPS = 4


@dataclass(frozen=True)
class Formats:
    """Number formats of a step: `float32`, `tfloat32` (float32 in memory) or `bfloat16`.

    Attributes:
        convolution: of the convolutions, and of the activations in memory.
        product: of the matrix products inside the generator.
        wide: of what is never in bfloat16: latent map, running image, degradation operator.
    """

    convolution: str
    product: str
    wide: str


@dataclass(frozen=True)
class Moved:
    """What a method moves in each sample, besides its style rows.

    Attributes:
        samples: S.
        noise_maps: how many, from the smallest on.
        delta_side: side of the feature map with an offset; None: there is none.
        full_covariance: whether the latent map is a matrix product.
        pairs: M of L-BFGS; 0: Adam.
        whitened: whether the residual is weighted in the eigenbasis of the operator.
    """

    samples: int
    noise_maps: int
    delta_side: int | None = None
    full_covariance: bool = False
    pairs: int = 0
    whitened: bool = False


@dataclass(frozen=True)
class Pass:
    """One pass over memory.

    Attributes:
        part: `convolutions`, `epilogues`, `rgb`, `styles`, `resampling`, `image` or `update`.
        flop: multiplications and additions of products and filters that are needed; 0 for what only
            moves data.
        moved: bytes read and written.
        number_format: what is multiplied.
        run: operations that our program does: more than `flop` where it resamples by dense matrices
            that are mostly zero; None: as many.
    """

    part: str
    flop: int
    moved: int
    number_format: str
    run: int | None = None

    @property
    def flop_run(self) -> int:
        """Operations that our program does."""
        return self.flop if self.run is None else self.run


@dataclass(frozen=True)
class _Layer:
    """A modulated convolution; `outputs` is how many forms of its output are written."""

    i: int
    o: int
    r: int
    c: int
    q: int
    outputs: int
    offset: bool
    trained: bool

    @property
    def up(self) -> bool:
        return self.r != self.q


def count_step(
    config: StyleGAN2Config, low_side: int, moved: Moved, formats: Formats
) -> list[Pass]:
    """Count one step: forward, backward, update.

    Args:
        config: of the generator.
        low_side: h, the side of the square input.
        moved: what the method moves.
        formats: what is computed in.
    """
    step = _Step(config, low_side, moved, formats)
    passes = [*step.latents(), *step.start(), *step.image(), *step.operator(), *step.update()]
    for layer in step.layers:
        passes += [*step.style(layer.i, layer.o), *step.convolution(layer), *step.epilogue(layer)]
    for side, width in zip(config.sides, config.channels, strict=True):
        passes += [*step.style(width, None), *step.rgb(side, width), *step.skip(side)]
    return passes


class _Step:
    def __init__(
        self, config: StyleGAN2Config, low_side: int, moved: Moved, formats: Formats
    ) -> None:
        self.config, self.low, self.moved, self.formats = config, low_side, moved, formats
        self.samples = moved.samples
        self.size = 2 if formats.convolution == "bfloat16" else _FLOAT32
        self.rows = self.samples * config.num_ws * config.w_dim  # values of all style rows
        self.layers = list(self._layers())

    def _layers(self) -> Iterator[_Layer]:
        before, count = 0, 0
        for q, o in zip(self.config.sides, self.config.channels, strict=True):
            if before:
                trained = count < self.moved.noise_maps
                yield _Layer(before, o, q // 2, q + 1, q, 1, False, trained)
                count += 1
            # The RGB layer takes the output as it is, the next block takes it scaled.
            outputs = 1 if q == self.config.resolution else 2
            trained = count < self.moved.noise_maps
            yield _Layer(o, o, q, q, q, outputs, q == self.moved.delta_side, trained)
            before, count = o, count + 1

    def _product(self, part: str, flop: int, values: int, times: int = 2) -> list[Pass]:
        """A matrix product inside the generator; forward and backward cost the same."""
        return [Pass(part, flop, values * self.size, self.formats.product)] * times

    def _wide(self, part: str, flop: int, values: int, times: int) -> list[Pass]:
        return [Pass(part, flop, values * _FLOAT32, self.formats.wide)] * times

    def latents(self) -> Iterator[Pass]:
        """From latents to styles, and geocross.

        The product of the full covariance: rows `[S L, D]` by `[D, D]`, twice. The activation
        reads and writes the rows; back it reads two and writes one. Geocross reads the rows; back
        it reads them and writes a gradient.
        """
        width = self.config.w_dim
        if self.moved.full_covariance:
            yield from self._wide("styles", 2 * self.rows * width, 2 * self.rows + width**2, 2)
        yield from self._wide("update", 0, (2 + 3 + 1 + 2) * self.rows, 1)

    def style(self, channels: int, outputs: int | None) -> Iterator[Pass]:
        """The affine layer of a row, `[S, D]` by `[D, I]`, and demodulation, `[S, I]` by `[I, O]`.

        Each once forward and once back, where the matrix is read again.
        """
        for inner, outer in ((self.config.w_dim, channels), (channels, outputs)):
            if outer is not None:
                values = self.samples * (inner + outer) + inner * outer
                yield from self._product("styles", 2 * self.samples * inner * outer, values)

    def convolution(self, layer: _Layer) -> Iterator[Pass]:
        """Forward and data gradient: each moves input, weight and output in one direction.

        Every value on the smaller of the two grids meets nine taps.
        """
        grid = self.samples * layer.r**2
        flop = 2 * _KERNEL * grid * layer.i * layer.o
        values = grid * layer.i + _KERNEL * layer.i * layer.o + self.samples * layer.c**2 * layer.o
        yield from [Pass("convolutions", flop, values * self.size, self.formats.convolution)] * 2

    def epilogue(self, layer: _Layer) -> Iterator[Pass]:
        """The fused pass after a convolution.

        Forward it reads the convolution's output, noise and offset, and writes the output in each
        form that is wanted. Back it reads the gradient of each form and again what it read forward,
        and writes the gradient of the convolution's output, and those of noise and offset where
        they move. Both ways it filters where the layer up-samples.
        """
        before = self.samples * layer.o * layer.c**2 * self.size
        pixels = self.samples * layer.q**2
        after = layer.outputs * pixels * layer.o * self.size
        noise = pixels * _FLOAT32
        offset = pixels * layer.o * _FLOAT32 if layer.offset else 0
        flop = _FIR_FLOP * pixels * layer.o if layer.up else 0
        forward = before + noise + offset + after
        backward = after + before + noise + offset + before + layer.trained * noise + offset
        for moved in (forward, backward):
            yield Pass("epilogues", flop, moved, self.formats.wide)

    def start(self) -> Iterator[Pass]:
        """The constant times the first styles: written once; back its gradient is read once."""
        values = self.config.channels[0] * self.config.sides[0] ** 2
        moved = self.samples * values * self.size + values * _FLOAT32
        yield from [Pass("epilogues", 0, moved, self.formats.wide)] * 2

    def rgb(self, side: int, width: int) -> Iterator[Pass]:
        """`[r r, C]` by `[C, 3]` for each sample; back the gradients of both factors."""
        pixels = side**2
        values = self.samples * (pixels * width + width * _RGB + pixels * _RGB)
        flop = 2 * self.samples * pixels * width * _RGB
        yield from self._product("rgb", flop, values, times=3)

    def skip(self, side: int) -> Iterator[Pass]:
        """The running image, up-sampled by two dense products each way, plus the new RGB.

        Back, the gradient goes to both; it is written anew for the RGB in bfloat16 only.
        """
        image = self.samples * _RGB * side**2
        cast = image * (_FLOAT32 + self.size) if self.size != _FLOAT32 else 0
        half = side // 2
        if side == self.config.sides[0]:
            added = cast
        else:
            # Four taps meet a zero at every other pixel.
            density = len(RESAMPLE_TAPS) // 2 / half
            yield from self._sandwich(side, half, density, 2)
            added = image * (2 * _FLOAT32 + self.size)
        yield Pass("image", 0, added + cast, self.formats.wide)

    def _sandwich(self, out: int, inner: int, density: float, times: int) -> Iterator[Pass]:
        """`M x M'` for planes `[S, 3, inner, inner]`, M `[out, inner]`; its adjoint costs the same.

        `density` is the share of M that is not zero: the rest is multiplied, but not needed.
        """
        planes = self.samples * _RGB
        matrix, between = out * inner, planes * out * inner
        for run, values in (
            (2 * between * inner, planes * inner**2 + between + matrix),
            (2 * between * out, between + planes * out**2 + matrix),
        ):
            needed = round(run * min(1.0, density))
            each = Pass("resampling", needed, values * _FLOAT32, self.formats.wide, run)
            yield from [each] * times

    def image(self) -> Iterator[Pass]:
        """Scaling to [0, 1] and clamping: one read, two written; back one read, one written."""
        yield from self._wide("image", 0, 5 * self.samples * _RGB * self.config.resolution**2, 1)

    def operator(self) -> Iterator[Pass]:
        """Two dense products for the image, for the clamped one and back; errors against the input.

        Both low-res images are read beside the input, and one gradient is written.
        """
        density = _CUBIC_TAPS / self.low  # as many for each factor of R / h
        yield from self._sandwich(self.low, self.config.resolution, density, 3)
        if self.moved.whitened:
            # Into the eigenbasis and out of it, forward and back; then three colours by three.
            yield from self._sandwich(self.low, self.low, 1.0, 4)
            pixels = self.samples * self.low**2
            yield from self._wide("resampling", 2 * _RGB**2 * pixels, 2 * _RGB * pixels, 2)
        yield from self._wide("image", 0, (3 * self.samples + 2) * _RGB * self.low**2, 1)

    def update(self) -> Iterator[Pass]:
        """Adam reads gradient, variable and two moments and writes the last three.

        L-BFGS reads variable and gradient, and those of the step before, and writes their
        differences, the next two of these and the variable. Of M pairs and the gradient it needs
        the products with its three newest vectors, and then a sum; it does all products, with zeros
        up to whole cache lines.

        The way back to sphere or ball reads and writes the variable once more.
        """
        noise = sum(self.samples * layer.q**2 for layer in self.layers if layer.trained)
        offset = sum(self.samples * layer.o * layer.q**2 for layer in self.layers if layer.offset)
        values = self.rows + noise + offset
        if not self.moved.pairs:
            yield from self._wide("update", 0, (7 + 2) * values, 1)
            return
        kept = 2 * self.moved.pairs + 1
        once = 2 * kept * values
        yield from self._wide("update", 0, (4 + 5 + 2) * values, 1)
        bytes_kept, run = kept * values * _FLOAT32, 2 * whole_lines(kept) * values
        yield Pass("update", 3 * once, bytes_kept, self.formats.wide, whole_lines(kept) * run)
        yield Pass("update", once, bytes_kept, self.formats.wide, run)
