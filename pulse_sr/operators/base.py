"""What an operator is to the rest of the program.

Shape legend: S samples, C channels of the observation, H W high-res, h w low-res. Images are in
[0, 1]. A *picture* is [3, h, w], as a file holds it. An *observation* is what the operator says of
a picture: [1, h, w] after `gray`, [C, 1, K] with the K known pixels after `mask`, else the picture
itself. So a sum or mean over an observation counts every known value once, and nothing else.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pulse_sr.errors import UsageError

#: Variance of the rounding of an input to 8 bits, for pixels in [0, 1].
ROUNDING_VARIANCE = 1 / (12 * 255**2)

Range = tuple[int, int]  # half-open
Size = tuple[int, int]  # height, width


class Operator(ABC):
    """A degradation A from high-res images to what is known of a low-res picture.

    Attributes:
        spec: the operator as the user wrote it, for example `bicubic`.
        low: (h, w), the size of low-res pictures.
        noise_variance: of what the linear part leaves out, noise and files, in units of [0, 1];
            0 for a clean operator. It is what a soft projection goes by.
        random_variance: of the noise alone, which nothing can predict.
    """

    spec: str
    low: Size
    noise_variance: float
    random_variance: float

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """Applies A to x [..., 3, H, W] in its dtype, on its device: an observation."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """Applies the transpose of the linear part to observations: <A x, y> = <x, A' y>."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """Applies the pseudo-inverse: the smallest x [..., 3, H, W] with A x = y.

        Raises:
            UsageError: see `check_exact`.
        """

    @abstractmethod
    def damped_pinv(self, y: Tensor, noise_ratio: float) -> Tensor:
        """Applies A' (A A' + lambda I)^-1 of the linear part, lambda = `noise_ratio` > 0."""

    @abstractmethod
    def whiten(self, y: Tensor, noise_ratio: float) -> Tensor:
        """Applies (A A' + lambda I)^(-1/2) of the linear part, lambda = `noise_ratio` > 0.

        White errors of x are white in `whiten(A x)`, but for what is below lambda. Scaled so that
        white y keep their mean square. Where only some pixels are known, the rest of the grid
        counts as zero, which is no exact root.
        """

    @abstractmethod
    def observe(self, picture: Tensor) -> Tensor:
        """Returns the observation of a picture [..., 3, h, w]; an observation stays as it is."""

    @abstractmethod
    def picture(self, observation: Tensor) -> Tensor:
        """Returns [..., 3, h, w]: grey in three channels, unknown pixels black."""

    @abstractmethod
    def window(self, rows: Range, columns: Range) -> Operator:
        """Returns the operator of `observed` for ranges that were checked."""

    @abstractmethod
    def check_exact(self) -> None:
        """Checks that the exact projection is possible; cheap after the first time.

        Raises:
            UsageError: the operator blurs so much that inverting it is meaningless, does not
                shrink the image, or is not linear.
        """

    def linear(self, x: Tensor) -> Tensor:
        """Applies the linear part to x [..., 3, H, W]: A without JPEG files."""
        return self(x)

    @property
    @abstractmethod
    def gain(self) -> float:
        """The mean of the diagonal of A A': what white noise of variance 1 in x gives in A x."""

    @property
    def known_pixels(self) -> Tensor | None:
        """Which low-res pixels are known, bool [h, w]; None: all of them."""
        return None

    @property
    def noise_limit_db(self) -> float:
        """The LR-PSNR in dB beyond which a search fits noise; infinite without `noise:STD`."""
        return -10.0 * math.log10(self.random_variance) if self.random_variance > 0 else math.inf

    def observed(self, rows: Range, columns: Range) -> Operator:
        """Restricts the operator to a window of the low-res grid; the rest stays unobserved.

        This is how padding is handled: a rectangle of the low-res grid keeps a separable operator
        separable, and the projection leaves alone the high-res pixels that only padding sees.

        Args:
            rows: half-open range of low-res rows.
            columns: half-open range of low-res columns.

        Returns:
            the operator from the same high-res size to [rows, columns].

        Raises:
            UsageError: an empty range, or one outside the grid.
        """
        for name, (start, stop), size in (
            ("rows", rows, self.low[0]),
            ("columns", columns, self.low[1]),
        ):
            if not 0 <= start < stop <= size:
                raise UsageError(f"observed {name} {start}:{stop} do not lie in 0:{size}")
        return self.window(rows, columns)

    def residual(self, x: Tensor, y: Tensor) -> Tensor:
        """Returns y - A x, an observation; y is a picture or an observation."""
        return self.observe(y) - self(x)

    def project(self, x: Tensor, y: Tensor) -> Tensor:
        """Moves x [..., 3, H, W] the least distance that makes A x = y; not clamped.

        One null-space step x + A+ (y - A x), computed in x's dtype.

        Raises:
            UsageError: see `check_exact`.
        """
        return x + self.pinv(self.residual(x, y))

    def project_soft(self, x: Tensor, y: Tensor, noise_ratio: float) -> Tensor:
        """Moves x [..., 3, H, W] towards A x = y as far as a noisy y deserves; not clamped.

        x + A' (A A' + lambda I)^-1 (y - A x), the minimum of |x' - x|^2 + |A x' - y|^2 / lambda,
        with the linear part of A.

        Args:
            x: start.
            y: a picture or an observation.
            noise_ratio: lambda = noise variance / signal variance, positive.

        Raises:
            UsageError: lambda is not positive.
        """
        if not (noise_ratio > 0 and math.isfinite(noise_ratio)):
            raise UsageError(f"noise_ratio must be a positive number, got {noise_ratio}")
        return x + self.damped_pinv(self.observe(y) - self.linear(x), noise_ratio)

    def lr_psnr(self, x: Tensor, y: Tensor) -> Tensor:
        """PSNR of A x against y in dB, float64, one value per sample.

        Peak 1.0, all channels of the observation, no border crop, not rounded or clamped;
        unknown pixels of a mask do not count; identical images give inf. Samples are computed one
        by one, so a value never depends on the rest of the batch.

        Args:
            x: high-res images [S, 3, H, W] (or one image [3, H, W]) in [0, 1].
            y: pictures or observations, [S, ...], or one for all samples.

        Returns:
            float64 [S] (or a scalar).
        """
        if x.dim() == 3:
            return psnr_of(self.residual(x.double(), y.double()).square().mean())
        y = y.expand(len(x), *y.shape[-3:])
        return torch.stack([self.lr_psnr(one, target) for one, target in zip(x, y, strict=True)])


def psnr_of(mse: Tensor) -> Tensor:
    """PSNR in dB that a mean squared error stands for, peak 1.0; infinite at zero error."""
    return -10.0 * torch.log10(mse)
