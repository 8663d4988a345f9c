"""The original's loop as public PyTorch ports write it: what our search is measured against.

The same mathematics on the same weights in plain NCHW PyTorch, written from the papers: modulated
convolutions with per-sample weights and groups (Karras et al., CVPR 2020, section 2.2), every step
between two convolutions an op of its own, bicubic downscaling by strided depthwise convolutions,
and PULSE's search (Menon et al., CVPR 2020). Equal to ours in numbers; form and layout differ.

Shapes: N samples, L style rows, D latent width, I O channels, r feature resolution, h w low-res.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.priors.base import LatentStatistics
from pulse_sr.priors.style import StylePrior
from pulse_sr.priors.stylegan2 import FullyConnected, SynthesisLayer, ToRGB

TRAINED_NOISE_MAPS = 5
LEARNING_RATE = 0.4
L2_EPS = 2e-3


class BaselineGenerator:
    """A StyleGAN2 generator by grouped convolutions, all tensors contiguous NCHW."""

    def __init__(self, prior: StylePrior) -> None:
        """Take over the weights of `prior`."""
        self.synthesis = prior.generator.synthesis
        # The prior's own weights lie in channels_last order, the ports' in NCHW.
        self.weights = {
            id(layer): layer.weight.detach().contiguous()
            for layer in self.synthesis.modules()
            if isinstance(layer, SynthesisLayer | ToRGB)
        }
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], device=prior.device)
        self.fir = torch.outer(taps, taps) * 4 / taps.sum() ** 2  # gain of an up-sampling by two

    def __call__(self, w: Tensor, noise: Sequence[Tensor]) -> Tensor:
        """Styles `[N, L, D]` and noise `[N or 1, 1, r, r]` to images `[N, 3, R, R]` in [0, 1]."""
        blocks = self.synthesis.blocks
        x = blocks[0].const[None].repeat(len(w), 1, 1, 1).contiguous()
        image: Tensor | None = None
        index = 0
        for block in blocks:
            for layer in block.layers:
                x = self._layer(layer, x, w[:, index], noise[index])
                index += 1
            rgb = self._to_rgb(block.torgb, x, w[:, index])
            image = rgb if image is None else self._upsample(image) + rgb
        assert image is not None
        return (image + 1) / 2

    def _layer(self, layer: SynthesisLayer, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        weight = self._modulated(layer, _styles(layer.affine, w))
        demodulation = torch.rsqrt(weight.square().sum(dim=[2, 3, 4]) + 1e-8)
        weight = weight * demodulation[:, :, None, None, None]
        x = _grouped_up(x, weight) if layer.up == 2 else _grouped(x, weight, padding=1)
        if layer.up == 2:
            x = _depthwise(F.pad(x, [1, 1, 1, 1]), self.fir)
        x = x + layer.noise_strength * noise
        x = x + layer.bias[None, :, None, None]
        x = F.leaky_relu(x, 0.2)
        return x * math.sqrt(2)

    def _to_rgb(self, layer: ToRGB, x: Tensor, w: Tensor) -> Tensor:
        weight = self._modulated(layer, _styles(layer.affine, w) * layer.weight_gain)
        return _grouped(x, weight, padding=0) + layer.bias[None, :, None, None]

    def _modulated(self, layer: SynthesisLayer | ToRGB, styles: Tensor) -> Tensor:
        return self.weights[id(layer)][None] * styles[:, None, :, None, None]  # [N, O, I, k, k]

    def _upsample(self, image: Tensor) -> Tensor:
        n, c, h, w = image.shape
        inserted = image.new_zeros(n, c, h, 2, w, 2)
        inserted[:, :, :, 0, :, 0] = image
        return _depthwise(F.pad(inserted.view(n, c, 2 * h, 2 * w), [2, 1, 2, 1]), self.fir)


def _styles(affine: FullyConnected, w: Tensor) -> Tensor:
    return F.linear(w, affine.weight * affine.weight_gain, affine.bias * affine.bias_gain)


def _grouped(x: Tensor, weight: Tensor, padding: int) -> Tensor:
    n, c, h, w = x.shape
    kernels = weight.reshape(-1, c, *weight.shape[3:])
    y = F.conv2d(x.reshape(1, n * c, h, w), kernels, padding=padding, groups=n)
    return y.view(n, -1, *y.shape[2:])


def _grouped_up(x: Tensor, weight: Tensor) -> Tensor:
    n, c, h, w = x.shape
    kernels = weight.transpose(1, 2).reshape(n * c, -1, *weight.shape[3:])
    y = F.conv_transpose2d(x.reshape(1, n * c, h, w), kernels, stride=2, groups=n)
    return y.view(n, -1, *y.shape[2:])


def _depthwise(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv2d(x, kernel.expand(x.shape[1], 1, -1, -1), groups=x.shape[1])


class BaselineBicubic:
    """PULSE's downscaling: two strided depthwise convolutions of 4f taps, reflect padding."""

    def __init__(self, factor: int, device: torch.device) -> None:
        """Cubic kernel with a = -0.5 at `(i - 2f + 0.5) / f`, normalised."""
        self.factor = factor
        t = ((torch.arange(4 * factor, dtype=torch.float64) - 2 * factor + 0.5) / factor).abs()
        near = 1.5 * t**3 - 2.5 * t**2 + 1
        far = -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        kernel = torch.where(t <= 1, near, far)
        taps = (kernel / kernel.sum()).float().to(device)
        self.vertical = taps.view(1, 1, -1, 1).repeat(3, 1, 1, 1)
        self.horizontal = taps.view(1, 1, 1, -1).repeat(3, 1, 1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        """`[N, 3, H, W]` to `[N, 3, h, w]`, rows first, then columns."""
        f = self.factor
        before, after = 3 * f // 2, 3 * f - 3 * f // 2
        x = F.pad(x, [0, 0, before, after], mode="reflect")
        x = F.conv2d(x, self.vertical, stride=(f, 1), groups=3)
        x = F.pad(x, [before, after, 0, 0], mode="reflect")
        return F.conv2d(x, self.horizontal, stride=(1, f), groups=3)


def _norm(x: Tensor) -> Tensor:
    return (x.square().sum(dim=tuple(range(2, x.ndim)), keepdim=True) + 1e-9).sqrt()


def _l2(low: Tensor, target: Tensor) -> Tensor:
    return (low - target).pow(2).mean(dim=(1, 2, 3)).clamp(min=L2_EPS).sum()


def _geocross(w: Tensor) -> Tensor:
    rows, width = w.shape[1:]
    x, y = w.view(-1, 1, rows, width), w.view(-1, rows, 1, width)
    a = ((x - y).pow(2).sum(-1) + 1e-9).sqrt()
    b = ((x + y).pow(2).sum(-1) + 1e-9).sqrt()
    angle = 2 * torch.atan2(a, b)
    return ((angle.pow(2) * width).mean((1, 2)) / 8.0).sum()


def _schedule(step: int, steps: int) -> float:
    """`linear1cycledrop`: a triangle over nine tenths of the steps, then down to 1/1000."""
    cycle = 0.9 * steps
    if step < cycle:
        return (9 * (1 - abs(step / cycle - 0.5) * 2) + 1) / 10
    return 0.1 + (step - cycle) / (steps - cycle) * (0.001 - 0.1)


class BaselineSearch:
    """PULSE's loop: Adam on the rows and five noise maps, put back on their spheres every step.

    Attributes:
        latent: `[N, L, D]`, after the last finished step.
        noise: the noise maps, of which the first `TRAINED_NOISE_MAPS` move and the last is zero.
        image: the last image `[N, 3, H, W]`.
        best_image: the image with the least total loss of the batch.
    """

    def __init__(
        self,
        prior: StylePrior,
        target: Tensor,
        latent: Tensor,
        noise: Sequence[Tensor],
        steps: int = 100,
        generator: Callable[[Tensor, Sequence[Tensor]], Tensor] | None = None,
    ) -> None:
        """Start from latents `[N, L, D]` and one map `[N, 1, r, r]` per noise layer of the prior.

        The target is a low-res input `[1, 3, h, w]`. `generator` makes images in [0, 1] from styles
        and noise; without it, the prior is a StyleGAN2 and runs in the plain form.
        """
        self.generator = generator or BaselineGenerator(prior)
        self.downscale = BaselineBicubic(prior.resolution // target.shape[-1], prior.device)
        self.statistics: LatentStatistics = prior.statistics
        self.target, self.steps = target, steps
        self.latent = latent.detach().clone().requires_grad_()
        self.noise = [n.detach().clone() for n in noise]
        self.noise[-1].zero_()
        trained = [n.requires_grad_() for n in self.noise[:-1][:TRAINED_NOISE_MAPS]]
        self.variables = [self.latent, *trained]
        self.radii = [_norm(v.detach()) for v in self.variables]
        self.image = self.best_image = torch.empty(0)

    def run(self) -> Iterator[float]:
        """Yield the loss of every step after its update."""
        adam = torch.optim.Adam(self.variables, lr=LEARNING_RATE)
        rates = torch.optim.lr_scheduler.LambdaLR(adam, lambda step: _schedule(step, self.steps))
        least = math.inf
        for _ in range(self.steps):
            adam.zero_grad()
            w = F.leaky_relu(self.latent * self.statistics.std + self.statistics.mean, 0.2)
            image = self.generator(w, self.noise)
            loss = 100 * _l2(self.downscale(image), self.target) + 0.05 * _geocross(w)
            self.image, value = image.detach(), float(loss.detach())
            if value < least:
                least, self.best_image = value, self.image.clone()
            loss.backward()
            adam.step()
            with torch.no_grad():
                for variable, radius in zip(self.variables, self.radii, strict=True):
                    variable.div_(_norm(variable)).mul_(radius)
            rates.step()
            yield value
