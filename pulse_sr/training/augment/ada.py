"""ADA: geometric and colour augmentation, as strong as the discriminator's overfitting asks for.

Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020: the
pipeline of appendix B without its image-space filters and corruptions ("bgc": pixel blitting,
geometry, colour), and the heuristic of section 3.1.

Shapes: N images, H W size; images around [-1, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import reduce

import torch
from torch import Tensor

from pulse_sr.training.augment import colour
from pulse_sr.training.augment.base import Augmentation, Draws
from pulse_sr.training.augment.colour import map_colours
from pulse_sr.training.augment.geometry import unrotate, unscale, untranslate
from pulse_sr.training.augment.resampling import warp
from stylegan_ops.bias_act import is_channels_last

#: Largest whole-pixel translation, and standard deviation of the fractional one, in sides.
SHIFT = 0.125


class AdaptiveAugment(Augmentation):
    """ADA's pipeline: each transform is applied to each image with probability p.

    The draws hold the parameters of the transforms, neutral where one is not applied. So p counts
    when the draws are made: however often and in whatever parts they are applied later, an image
    is changed in the same way. How much is taken from the generator does not depend on p.

    Attributes:
        p: probability of each transform, 0 to 1; what the trainer sets from step to step.
    """

    def __init__(self, p: float = 0.0) -> None:
        self.p = p

    def draw(self, count: int, rng: torch.Generator) -> Draws:
        """Draw the parameters of all transforms, on the device of `rng`.

        Returns:
            float32 `[count]` (`shift` and `offset`: `[count, 2]`, x and y in sides; angles in
            radians), in the order in which the transforms are applied; empty at p = 0.
        """

        def uniform(low: float, high: float, *size: int) -> Tensor:
            u = torch.rand(count, *size, generator=rng, device=rng.device)
            return low + (high - low) * u

        def normal(deviation: float, *size: int) -> Tensor:
            return deviation * torch.randn(count, *size, generator=rng, device=rng.device)

        def chosen(value: Tensor, neutral: float = 0.0, p: float = self.p) -> Tensor:
            return torch.where(uniform(0, 1, *[1] * (value.ndim - 1)) < p, value, neutral)

        # So that at least one of the two rotations is applied with probability p.
        p_rotation = 1 - math.sqrt(1 - self.p)
        draws = {
            "flip": chosen(uniform(0, 2).floor()),
            "quarter_turns": chosen(uniform(0, 4).floor()),
            "shift": chosen(uniform(-SHIFT, SHIFT, 2)),
            "scale": chosen(normal(0.2).exp2(), neutral=1),
            "rotation_before": chosen(uniform(-math.pi, math.pi), p=p_rotation),
            "stretch": chosen(normal(0.2).exp2(), neutral=1),
            "rotation_after": chosen(uniform(-math.pi, math.pi), p=p_rotation),
            "offset": chosen(normal(SHIFT, 2)),
            "brightness": chosen(normal(0.2)),
            "contrast": chosen(normal(0.5).exp2(), neutral=1),
            "luma_flip": chosen(uniform(0, 2).floor()),
            "hue": chosen(uniform(-math.pi, math.pi)),
            "saturation": chosen(normal(1.0).exp2(), neutral=1),
        }
        return draws if self.p > 0 else {}

    def _transform(self, x: Tensor, draws: Draws) -> Tensor:
        exact = {name: drawn.double() for name, drawn in draws.items()}
        inverse = inverse_geometry(exact, x.shape[2], x.shape[3])
        # An image that no transform moves is not resampled: it stays as it is, bit by bit.
        moved = (inverse != torch.eye(3, dtype=inverse.dtype, device=x.device)).any(2).any(1)
        y = torch.where(moved[:, None, None, None], warp(x, inverse), x)
        matrix = colour_matrix(exact).to(x.dtype)
        return map_colours(y, matrix[:, :3, :3], matrix[:, :3, 3], is_channels_last(x))


def inverse_geometry(draws: Draws, height: int, width: int) -> Tensor:
    """Where each output pixel reads its input (`resampling.warp`), `[N, 3, 3]`.

    Args:
        draws: of `AdaptiveAugment.draw`, float64.
        height: H of the images, pixels.
        width: W of the images.
    """
    scale, stretch = draws["scale"], draws["stretch"]
    mirror = 1 - 2 * draws["flip"]
    shift_x, shift_y = draws["shift"].unbind(1)
    offset_x, offset_y = draws["offset"].unbind(1)
    # In the order of application: the last transform is the first to be undone.
    steps = (
        unscale(mirror, torch.ones_like(mirror)),
        unrotate(draws["quarter_turns"] * (math.pi / 2)),
        untranslate((shift_x * width).round(), (shift_y * height).round()),
        unscale(scale, scale),
        unrotate(draws["rotation_before"]),
        unscale(stretch, 1 / stretch),
        unrotate(draws["rotation_after"]),
        untranslate(offset_x * width, offset_y * height),
    )
    return reduce(torch.matmul, steps)


def colour_matrix(draws: Draws) -> Tensor:
    """The changes of colour as one matrix, `[N, 4, 4]`; draws as for `inverse_geometry`."""
    steps = (
        colour.brightness(draws["brightness"]),
        colour.contrast(draws["contrast"]),
        colour.luma_flip(draws["luma_flip"]),
        colour.hue(draws["hue"]),
        colour.saturation(draws["saturation"]),
    )
    return reduce(torch.matmul, reversed(steps))


@dataclass
class OverfittingHeuristic:
    """Raises p while the discriminator overfits, and lowers it while it does not.

    Overfitting is measured by r_t, the mean sign of the logits of real images: 1 when the
    discriminator knows all of them, 0 when it can not tell. Every few steps p goes up or down by
    as much as takes it from 0 to 1 in `kimg` thousand images.

    Attributes:
        target: the r_t to hold (section 3.1: 0.6).
        kimg: thousands of images in which p can go from 0 to 1.
        interval: steps between two changes of p.
        limit: largest p. The paper clamps p at 0 only, but finds leaks into generated images
            unlikely as long as p stays below 0.8 (section 2.2); a run whose p rose to 21.8 came
            out off-colour (NVlabs/stylegan2-ada issue 175).
        p: what to augment with.
        r: r_t at the last change of p; 0 before the first.
    """

    target: float = 0.6
    kimg: float = 500.0
    interval: int = 4
    limit: float = 0.8
    p: float = 0.0
    r: float = 0.0
    _signs: float = field(default=0.0, init=False)
    _images: int = field(default=0, init=False)
    _steps: int = field(default=0, init=False)

    def observe(self, real_sign: float, images: int, steps: int = 1) -> None:
        """Take note of training steps; changes p when `interval` of them are complete.

        Args:
            real_sign: mean sign of the logits of the steps' real images, of all processes.
            images: how many images the steps showed.
            steps: how many steps they are.
        """
        self._signs += real_sign * images
        self._images += images
        self._steps += steps
        if self._steps < self.interval:
            return
        self.r = self._signs / self._images
        direction = (self.r > self.target) - (self.r < self.target)
        p = self.p + direction * self._images / (self.kimg * 1000)
        self.p = min(max(p, 0.0), self.limit)
        self._signs, self._images, self._steps = 0.0, 0, 0

    def state(self) -> dict[str, float]:
        """What `load` needs to go on exactly, as plain numbers (JSON keeps them bit by bit)."""
        return {
            "p": self.p,
            "r": self.r,
            "signs": self._signs,
            "images": self._images,
            "steps": self._steps,
        }

    def load(self, state: dict[str, float]) -> None:
        """Go on from a `state`."""
        self.p, self.r = state["p"], state["r"]
        self._signs = state["signs"]
        self._images, self._steps = int(state["images"]), int(state["steps"])
