"""The sides of the search benchmark: each is an iterator that does one step per `next`.

`python -m pulse_sr.bench.sides PRIOR SIDE SAMPLES STEPS DEVICE PRECISION` runs one side from start
to end in its own process (`frame.serve`).

Shapes: S samples, L style rows, D latent width, h w low-res.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from pulse_sr.bench.baseline import BaselineSearch
from pulse_sr.bench.frame import BASELINE, serve
from pulse_sr.devices import choose_bf16, keep_freed_memory
from pulse_sr.errors import UsageError
from pulse_sr.models import registry
from pulse_sr.operators.base import Operator
from pulse_sr.operators.building import make_operator
from pulse_sr.priors.base import Prior
from pulse_sr.priors.stylegan2 import StyleGAN2Prior
from pulse_sr.search.engine import Best, search, started
from pulse_sr.search.latents import diagonal_map, draw_noise, full_map
from pulse_sr.search.phased import Phased, PhasedSettings
from pulse_sr.search.pulse import Pulse

#: Our sides.
METHODS = ("pulse", "phased")


def prepared(prior: Prior, precision: str, command: str) -> StyleGAN2Prior:
    """The prior as our sides search it; freed memory is kept from here on.

    Raises:
        UsageError: it is no StyleGAN2, of which alone there is a plain form.
    """
    if not isinstance(prior, StyleGAN2Prior):
        raise UsageError(f"{command} needs a StyleGAN2 prior", "--prior NAME|PATH")
    keep_freed_memory()
    return prior.in_precision(bf16=choose_bf16(precision, prior.device))


def low_side(prior: StyleGAN2Prior) -> int:
    """Side of the low-res input: an eighth of the prior's resolution."""
    return prior.resolution // 8


def low_res_target(prior: StyleGAN2Prior, seed: int = 0) -> Tensor:
    """A sample of the prior, downscaled: `[1, 3, h, w]`."""
    return _operator(prior)(prior.sample([seed])).clamp(0, 1)


def _operator(prior: StyleGAN2Prior) -> Operator:
    return make_operator("bicubic", low_side(prior), prior.resolution)


def _generators(samples: int, seed: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(1000 * (seed + 1) + i) for i in range(samples)]


def start_of_baseline(
    prior: StyleGAN2Prior, samples: int, seed: int
) -> tuple[Tensor, list[Tensor]]:
    """Latents `[S, L, D]` and noise maps `[S, 1, r, r]`, where our `pulse` starts too."""
    generators = _generators(samples, seed)
    shape = (prior.num_ws, prior.latent_dim)
    latent = torch.stack([torch.randn(*shape, generator=g) for g in generators])
    noise = draw_noise(prior.noise_shapes, generators)
    return latent.to(prior.device), [n.to(prior.device) for n in noise]


def begin(side: str, prior: StyleGAN2Prior, samples: int, steps: int, seed: int) -> Iterator[Any]:
    """Start a side: each `next` is one step.

    Args:
        side: a method of `METHODS`, or `BASELINE`: the original's loop in float32, from the same
            start as our `pulse`.
        prior: whose `bf16` says what ours computes in.
        samples: searched at once.
        steps: of the whole run.
        seed: of its start.
    """
    target = low_res_target(prior)
    if side == BASELINE:
        return BaselineSearch(prior, target, *start_of_baseline(prior, samples, seed), steps).run()
    operator = _operator(prior)
    method: Pulse | Phased
    if side == "pulse":
        method = Pulse.with_slots(prior, diagonal_map(prior.statistics), samples, steps)
    else:
        to_style, settings = full_map(prior.statistics), PhasedSettings(starts=1)
        method = Phased(prior, to_style, operator, low_side(prior), samples, steps, settings)
    started(method, _generators(samples, seed), target)
    # No sample may freeze: both sides do all steps for all samples.
    return search(method, operator, target, Best(target_mse=0.0))


def _main(path: str, side: str, samples: str, steps: str, device: str, precision: str) -> None:
    loaded = registry.load_prior(path, torch.device(device))
    prior = prepared(loaded, precision, "bench search")

    def whole_run() -> Iterator[None]:
        for _ in begin(side, prior, int(samples), int(steps), 0):
            pass
        yield

    serve(whole_run, prior.device)


if __name__ == "__main__":
    _main(*sys.argv[1:])
