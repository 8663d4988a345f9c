"""Low-res patches from high-res ones, by the operators that the search inverts.

Shapes: N patches of the whole batch, n of this process, P side of a patch, s scale, m margin in
low-res pixels; S = P + 2 m s what is cut from a photo.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pulse_sr.data.order import rng_of
from pulse_sr.operators.building import Jpeg, Noise, build_steps
from pulse_sr.operators.jpeg import jpeg_round_trip
from pulse_sr.operators.spec import parse_operator
from pulse_sr.training.sr.config import SrConfig


class Pairs:
    """Turns patches over and makes what the network sees and what it should give."""

    def __init__(self, config: SrConfig) -> None:
        """Builds the matrices of the operator.

        Raises:
            UsageError: the operator does not lead to this size.
        """
        self._config = config
        low = config.side // config.scale
        spec = parse_operator(config.operator)
        self._steps, _ = build_steps(spec, (low, low), (config.side, config.side))
        self._low = low

    def __call__(self, patches: Tensor, rows: Tensor, shown: int) -> tuple[Tensor, Tensor]:
        """What to learn from.

        Args:
            patches: uint8 `[n, 3, S, S]`.
            rows: their places in the whole batch.
            shown: patches shown before; seeds the draws.

        Returns:
            low-res `[n, 3, P / s, P / s]`, rounded to 8 bits as files are, and high-res
            `[n, 3, P, P]`, both float32 in [0, 1], channels last.
        """
        config = self._config
        high = self._turned(patches, rows, shown).float().div_(255.0)
        low = self._degraded(high, rows, shown).clamp(0.0, 1.0).mul(255.0).round().div(255.0)
        m, cut = config.margin, config.margin * config.scale
        low, high = (
            each[..., b : each.shape[-2] - b, b : each.shape[-1] - b]
            for each, b in ((low, m), (high, cut))
        )
        layout = torch.channels_last
        return low.contiguous(memory_format=layout), high.contiguous(memory_format=layout)

    def _turned(self, patches: Tensor, rows: Tensor, shown: int) -> Tensor:
        """Each patch in one of the positions that `flips` allows."""
        config = self._config
        if config.flips == "off":
            return patches
        rng = rng_of(config.seed, "flips", shown)
        drawn = torch.rand(config.batch, 3, generator=rng)[rows.cpu()] < 0.5
        drawn = drawn.to(patches.device)[..., None, None, None]  # [n, 3, 1, 1, 1]
        patches = torch.where(drawn[:, 0], patches.flip(3), patches)
        if config.flips == "all":
            patches = torch.where(drawn[:, 1], patches.flip(2), patches)
            patches = torch.where(drawn[:, 2], patches.transpose(2, 3), patches)
        return patches

    def _degraded(self, x: Tensor, rows: Tensor, shown: int) -> Tensor:
        """All stages in turn; noise is drawn for the whole batch."""
        config = self._config
        for number, step in enumerate(self._steps):
            if isinstance(step, Jpeg):
                x = jpeg_round_trip(x, step.quality)
            elif isinstance(step, Noise):
                rng = rng_of(config.seed, "noise", number, shown)
                noise = torch.randn(config.batch, *x.shape[1:], generator=rng)[rows.cpu()]
                x = x + step.std * noise.to(x.device)
            else:
                x = step(x)
        return x.expand(-1, 3, -1, -1)
