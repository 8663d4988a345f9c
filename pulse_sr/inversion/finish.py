"""From what the search found to a sample: projected, rounded to 8 bits, measured.

Shapes: H W high-res, h w low-res.
"""

from __future__ import annotations

import time

import torch

from pulse_sr.images.pixels import to_uint8
from pulse_sr.inversion.problem import Problem
from pulse_sr.inversion.result import Sample, sample_status
from pulse_sr.operators.projection import project_to_floor, project_to_noise
from pulse_sr.search.sampling import Candidate


def finish(candidate: Candidate, problem: Problem) -> tuple[Sample, float]:
    """Project a candidate, round it to 8 bits, and measure it before and after.

    All in float64 on the CPU, so that it may run in a thread beside the search.

    Args:
        candidate: what the search found; its image is `[3, H, W]` in [0, 1].
        problem: what is known of the input `[3, h, w]`, and how to project.

    Returns:
        the sample, uint8 `[3, H, W]` with its numbers, and the seconds that this took.
    """
    clock = time.perf_counter()
    operator, target = problem.operator, problem.target
    before = candidate.image.double()
    after = _projected(before, problem, target)
    rounded_before, pixels = to_uint8(before.numpy()), to_uint8(after.numpy())
    written = torch.from_numpy(pixels / 255.0)
    lr_psnr = operator.lr_psnr(written, target).item()
    sample = Sample(
        index=candidate.index,
        seed=candidate.seed,
        status=sample_status(lr_psnr, problem.ok_db),
        steps=candidate.steps,
        lr_psnr_search=operator.lr_psnr(torch.from_numpy(rounded_before / 255.0), target).item(),
        lr_psnr=lr_psnr,
        hr_rms_change=(written - before).square().mean().sqrt().item(),
        pixels=pixels,
        sigma=None if candidate.chain is None else candidate.chain.sigma,
    )
    return sample, time.perf_counter() - clock


def _projected(image: torch.Tensor, problem: Problem, target: torch.Tensor) -> torch.Tensor:
    """`[3, H, W]` as the problem asks for."""
    if problem.projection == "exact":
        return project_to_floor(problem.operator, image[None], target)[0]
    if problem.projection == "soft":
        return project_to_noise(problem.operator, image, target, problem.noise_variance)
    return image
