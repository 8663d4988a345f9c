"""The sides of the search benchmark: each is an iterator that does one step per `next`.

`python -m pulse_sr.bench.sides PRIOR SIDE SAMPLES STEPS DEVICE PRECISION` runs one side in its own
process and prints its time and memory as JSON: the peaks of two sides in one process can not be
told apart.

Shapes: S samples, L style rows, D latent width, h w low-res.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pulse_sr.bench.baseline import BaselineSearch
from pulse_sr.bench.step_work import Moved
from pulse_sr.devices import choose_bf16, keep_freed_memory
from pulse_sr.files.documents import json_text
from pulse_sr.models import registry
from pulse_sr.operators.base import Operator
from pulse_sr.operators.building import make_operator
from pulse_sr.priors.stylegan2 import StyleGAN2Prior
from pulse_sr.search.engine import Best, Method, search
from pulse_sr.search.latents import diagonal_map, draw_noise, full_map
from pulse_sr.search.lbfgs import PAIRS
from pulse_sr.search.phased import Phased, PhasedSettings
from pulse_sr.search.pulse import Pulse

#: The name of the side that is not ours.
BASELINE = "baseline"


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


def pulse_method(prior: StyleGAN2Prior, samples: int, steps: int, seed: int) -> Pulse:
    """PULSE's method, started."""
    generators = _generators(samples, seed)
    return Pulse.from_generators(prior, diagonal_map(prior.statistics), generators, steps)


def phased_method(prior: StyleGAN2Prior, samples: int, steps: int, seed: int) -> Phased:
    """Our default method, started."""
    generators, side = _generators(samples, seed), low_side(prior)
    return Phased.from_generators(
        prior,
        full_map(prior.statistics),
        generators,
        _operator(prior),
        low_res_target(prior),
        side,
        steps,
        PhasedSettings(starts=1),
    )


METHODS: dict[str, Callable[[StyleGAN2Prior, int, int, int], Pulse | Phased]] = {
    "pulse": pulse_method,
    "phased": phased_method,
}


def ours(prior: StyleGAN2Prior, method: Method) -> Iterator[Any]:
    """Our loop with a method that has been started."""
    # No sample may freeze: both sides do all steps for all samples.
    return search(method, _operator(prior), low_res_target(prior), Best(target_mse=0.0))


def what_moves(method: Pulse | Phased) -> Moved:
    """What the arithmetic of a step of this method depends on."""
    samples, maps = len(method.latent), len(method.trained)
    if isinstance(method, Phased):
        return Moved(samples, maps, method.side, full_covariance=True, pairs=PAIRS, whitened=True)
    return Moved(samples, maps)


def start_of_baseline(
    prior: StyleGAN2Prior, samples: int, seed: int
) -> tuple[Tensor, list[Tensor]]:
    """Latents `[S, L, D]` and noise maps `[S, 1, r, r]`, where our `pulse` starts too."""
    generators = _generators(samples, seed)
    shape = (prior.num_ws, prior.latent_dim)
    latent = torch.stack([torch.randn(*shape, generator=g) for g in generators])
    noise = draw_noise(prior.noise_shapes, generators)
    return latent.to(prior.device), [n.to(prior.device) for n in noise]


def baseline(prior: StyleGAN2Prior, samples: int, steps: int, seed: int) -> Iterator[Any]:
    """The original's loop in float32, from the same start as our `pulse`."""
    start = start_of_baseline(prior, samples, seed)
    return BaselineSearch(prior, low_res_target(prior), *start, steps).run()


def begin(side: str, prior: StyleGAN2Prior, samples: int, steps: int, seed: int) -> Iterator[Any]:
    """Start a side: each `next` is one step.

    Args:
        side: a method of `METHODS`, or `BASELINE`.
        prior: whose `bf16` says what ours computes in.
        samples: searched at once.
        steps: of the whole run.
        seed: of its start.
    """
    if side == BASELINE:
        return baseline(prior, samples, steps, seed)
    return ours(prior, METHODS[side](prior, samples, steps, seed))


def synchronize(device: torch.device) -> None:
    """Wait for the device, so that a clock can be read."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory_mb(device: torch.device) -> float:
    """Most memory this process has held: of the GPU on CUDA, else its resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    # The resource module's maximum survives exec, so it would show the parent's.
    status = Path("/proc/self/status")
    if status.exists():
        return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_alone(prior: StyleGAN2Prior, side: str, samples: int, steps: int) -> dict[str, float]:
    """Run one side from start to end.

    Returns:
        `seconds` (wall), `user_s`, `system_s`, `peak_mb` of the process, and `added_mb`: how much
        the search added to what was resident before it.
    """
    keep_freed_memory()
    before = peak_memory_mb(prior.device)
    steps_to_do = begin(side, prior, samples, steps, 0)
    clock, cpu = time.perf_counter(), os.times()
    for _ in steps_to_do:
        pass
    synchronize(prior.device)
    seconds, after = time.perf_counter() - clock, os.times()
    peak = peak_memory_mb(prior.device)
    return {
        "seconds": seconds,
        "user_s": after.user - cpu.user,
        "system_s": after.system - cpu.system,
        "peak_mb": peak,
        "added_mb": peak - before,
    }


def _main(path: str, side: str, samples: str, steps: str, device: str, precision: str) -> None:
    prior = registry.load_prior(path, torch.device(device))
    assert isinstance(prior, StyleGAN2Prior)  # the parent process wrote it
    prior = prior.in_precision(bf16=choose_bf16(precision, prior.device))
    sys.stdout.write(json_text(measure_alone(prior, side, int(samples), int(steps))))


if __name__ == "__main__":
    _main(*sys.argv[1:])
