"""Making low-res pictures: the operator, its noise and its files, for real.

Shape legend: H W high-res, h w low-res. Pixels are uint8.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pulse_sr import __version__
from pulse_sr.errors import InputError
from pulse_sr.images.pixels import to_pillow
from pulse_sr.operators.base import Size
from pulse_sr.operators.building import BuiltStage, Jpeg, Noise, build_steps
from pulse_sr.operators.jpeg import jpeg_round_trip
from pulse_sr.operators.spec import OperatorSpec, parse_operator

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Degraded:
    """A low-res picture.

    Attributes:
        pixels: uint8 [3, h, w], unknown pixels black.
        jpeg: the bytes of the file that decodes to `pixels`, when the last stage is `jpeg`.
    """

    pixels: Pixels
    jpeg: bytes | None


def degrade(
    pixels: Pixels, spec: str, scale: int, rng: np.random.Generator | None = None
) -> Pixels:
    """Makes a low-res picture: every stage in turn in float64, then 8 bits (half to even).

    Args:
        pixels: uint8 [3, H, W].
        spec: see `parse_operator`.
        scale: integer factor that divides H and W; 1 for an operator that keeps the size.
        rng: draws the noise of `noise:STD`; None leaves it out.

    Returns:
        uint8 [3, H / scale, W / scale].

    Raises:
        InputError: the scale does not divide the size.
        UsageError: see `parse_operator` and `make_operator`.
    """
    return degrade_picture(pixels, spec, scale, rng).pixels


def degrade_picture(
    pixels: Pixels, spec: str, scale: int, rng: np.random.Generator | None = None
) -> Degraded:
    """The same with the JPEG file, see `degrade`."""
    height, width = pixels.shape[-2:]
    if scale < 1 or height % scale or width % scale:
        raise InputError(
            f"the image of {width}x{height} px cannot be divided by the scale {scale}",
            f"crop it to {width // max(scale, 1) * scale}x{height // max(scale, 1) * scale}",
        )
    return degrade_to(pixels, parse_operator(spec), (height // scale, width // scale), rng)


def degrade_to(
    pixels: Pixels, spec: OperatorSpec, low: Size, rng: np.random.Generator | None = None
) -> Degraded:
    """The same to a size (h, w), which need not divide the image's."""
    steps, known = build_steps(spec, low, (pixels.shape[-2], pixels.shape[-1]))
    file = steps.pop() if steps and spec.stages[-1].kind == "jpeg" else None
    made = _bytes(simulate(torch.from_numpy(pixels / 255.0), steps, rng))
    jpeg = _encode(made, file.quality) if isinstance(file, Jpeg) else None
    if jpeg is not None:
        made = _decode(jpeg)
    if known is not None:
        made = np.where(known.numpy(), made, np.uint8(0))
    return Degraded(np.repeat(made, 3, axis=0) if len(made) == 1 else made, jpeg)


def simulate(x: Tensor, steps: Sequence[BuiltStage], rng: np.random.Generator | None) -> Tensor:
    """What happens to images, in turn.

    Args:
        x: float64 [..., 3, H, W] in [0, 1].
        steps: from `build_steps`.
        rng: draws the noise; None leaves it out.

    Returns:
        float64 [..., C, h, w], neither clipped nor rounded unless a file came last.
    """
    for step in steps:
        if isinstance(step, Jpeg):
            x = jpeg_round_trip(x, step.quality)
        elif not isinstance(step, Noise):
            x = step(x)
        elif rng is not None:
            x = x + step.std * torch.from_numpy(rng.standard_normal(x.shape))
    return x


def _bytes(x: Tensor) -> Pixels:
    made: Pixels = (x.clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).numpy()
    return made


def _encode(pixels: Pixels, quality: int) -> bytes:
    buffer = io.BytesIO()
    image, comment = to_pillow(pixels[0] if len(pixels) == 1 else pixels), f"pulse-sr {__version__}"
    image.save(buffer, "JPEG", quality=quality, comment=comment)
    return buffer.getvalue()


def _decode(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))
