"""From what the search found to a sample: projected, rounded to 8 bits, measured.

Shapes: H W high-res, h w low-res.
"""

from __future__ import annotations

import time

import torch

from pulse_sr.images.pixels import to_uint8
from pulse_sr.inversion.observation import Observation
from pulse_sr.inversion.result import Sample, sample_status
from pulse_sr.operators.projection import project_to_noise, project_to_rounding_limit
from pulse_sr.operators.separable import luma_of
from pulse_sr.search.records import Found


def finish(found: Found, observation: Observation) -> tuple[Sample, float]:
    """Project what was found, round it to 8 bits, and measure it before and after.

    All in float64 on the CPU, so that it may run in a thread beside the search.

    Args:
        found: what left a slot, with an image.
        observation: what is known of its input, and how to project.

    Returns:
        the sample, uint8 `[3, H, W]` with its numbers, and the seconds that this took.
    """
    clock = time.perf_counter()
    assert found.image is not None  # the caller leaves out the others
    operator, y = observation.operator, observation.y
    before = found.image.double()
    if observation.grey:
        before = luma_of(before).expand(3, -1, -1)
    after = projected(before, observation)
    rounded_before, pixels = to_uint8(before.numpy()), to_uint8(after.numpy())
    written = torch.from_numpy(pixels / 255.0)
    lr_psnr = operator.lr_psnr(written, y).item()
    sample = Sample(
        index=found.job.index,
        seed=found.job.seed,
        status=sample_status(lr_psnr, observation.ok_db),
        steps=found.steps,
        lr_psnr_search=operator.lr_psnr(torch.from_numpy(rounded_before / 255.0), y).item(),
        lr_psnr=lr_psnr,
        hr_rms_change=(written - before).square().mean().sqrt().item(),
        pixels=pixels,
        sigma=None if found.chain is None else found.chain.sigma,
    )
    return sample, time.perf_counter() - clock


def projected(image: torch.Tensor, observation: Observation) -> torch.Tensor:
    """An image `[3, H, W]` in [0, 1], float64, projected as the samples of an observation are."""
    operator, y = observation.operator, observation.y
    if observation.projection == "exact":
        return project_to_rounding_limit(operator, image[None], y)[0]
    if observation.projection == "soft":
        return project_to_noise(operator, image, y, observation.noise_variance)
    return image
