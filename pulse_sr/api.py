"""The Python API: everything that a command can do, a function can do.

Shapes: S samples, R the prior's resolution, h w low-res.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pulse_sr.config import SearchConfig
from pulse_sr.devices import choose_bf16, choose_device, keep_freed_memory
from pulse_sr.errors import UsageError
from pulse_sr.fitting import FittedInput, fit_to_prior
from pulse_sr.images import LowResImage, read_image, to_uint8
from pulse_sr.operators import Operator, make_operator, project_to_floor
from pulse_sr.priors import registry
from pulse_sr.priors.base import Prior
from pulse_sr.result import Result, Sample, sample_status
from pulse_sr.search.sampling import Candidate, SearchProgress, Settings, find_candidates
from stylegan_ops import library

#: Variance of what a search leaves to repaint in the high-res image (RMS 0.1), for soft projection.
SIGNAL_VARIANCE = 0.01
#: Variance of the rounding of the input to 8 bits.
ROUNDING_VARIANCE = 1 / (12 * 255**2)

list_priors = registry.list_priors


def load_prior(name_or_path: str | Path | None = None, device: str = "auto") -> Prior:
    """Load a prior.

    Args:
        name_or_path: name of a bundled prior, a prior file or a training run; None: the default.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        UsageError: no such prior.
        SetupError: no such device, or the file is damaged.
    """
    return registry.load(name_or_path, choose_device(device))


def super_resolve(
    source: str | Path | LowResImage | np.ndarray, prior: Prior | None = None, **options: Any
) -> Result:
    """Find several high-resolution faces whose downscaling matches a low-resolution one.

    Args:
        source: a file, a `LowResImage`, or uint8 RGB pixels `[3, h, w]`.
        prior: from `load_prior`; None: the bundled one.
        **options: fields of `SearchConfig`: samples, seed, method, steps, operator, ...

    Returns:
        The samples with their numbers; `result.save("out/")` writes what the command writes.

    Raises:
        InputError: the input can not be used.
        UsageError: an option is wrong.
        SetupError: no such device, or the prior is damaged.
    """
    config = SearchConfig(**options)
    if prior is None:
        prior = load_prior(device=config.device)
    image = _as_image(source)
    return search_image(image, prior, config, range(config.samples))


def search_image(
    image: LowResImage,
    prior: Prior,
    config: SearchConfig,
    indices: Sequence[int],
    progress: Callable[[SearchProgress], None] | None = None,
) -> Result:
    """Search the samples `indices` of one input, project them, measure them.

    Args:
        image: the input as read.
        prior: the generator.
        config: the settings; `samples` is not used, `indices` says which samples.
        indices: which samples, from 0.
        progress: called after every step.

    Raises:
        InputError: the input does not fit the prior.
        UsageError: operator and projection do not go together.
    """
    keep_freed_memory()
    started = time.perf_counter()
    fitted = fit_to_prior(image, prior.resolution, config.fit, config.scale)
    operator = make_operator(config.operator, fitted.side, prior.resolution)
    operator = operator.observed(fitted.rows, fitted.columns)
    target = torch.from_numpy(fitted.pixels / 255.0)
    prior.bf16 = choose_bf16(config.precision, prior.device)
    settings = Settings(
        method=config.method,
        strict=config.strict_pulse,
        steps=config.total_steps,
        target_db=config.target_db,
        slots=config.slots,
        seed=config.seed,
    )
    candidates = find_candidates(
        prior, operator, target, fitted.side, image.sha256, indices, settings, progress
    )
    searched = time.perf_counter()
    projection = config.projection(is_jpeg=image.is_jpeg)
    noise = max(image.jpeg_noise**2, ROUNDING_VARIANCE)
    samples = tuple(_finish(c, operator, target, projection, noise) for c in candidates)
    timing = {"search_s": searched - started, "project_s": time.perf_counter() - searched}
    return _result(image, fitted, prior, config, samples, timing)


def _finish(
    candidate: Candidate, operator: Operator, target: torch.Tensor, projection: str, noise: float
) -> Sample:
    """Project a candidate, round it to 8 bits, and measure it before and after."""
    before = candidate.image.double()
    if projection == "exact":
        after = project_to_floor(operator, before[None], target)[0]
    elif projection == "soft":
        after = operator.project_soft(before, target, noise / SIGNAL_VARIANCE)
    else:
        after = before
    rounded_before, pixels = to_uint8(before.numpy()), to_uint8(after.numpy())
    written = torch.from_numpy(pixels / 255.0)
    lr_psnr = operator.lr_psnr(written, target).item()
    return Sample(
        index=candidate.index,
        seed=candidate.seed,
        status=sample_status(lr_psnr),
        steps=candidate.steps,
        lr_psnr_search=operator.lr_psnr(torch.from_numpy(rounded_before / 255.0), target).item(),
        lr_psnr=lr_psnr,
        hr_rms_change=(written - before).square().mean().sqrt().item(),
        pixels=pixels,
    )


def _result(
    image: LowResImage,
    fitted: FittedInput,
    prior: Prior,
    config: SearchConfig,
    samples: tuple[Sample, ...],
    timing: dict[str, float],
) -> Result:
    return Result(
        image=image,
        low_res=fitted.pixels,
        side=fitted.side,
        rows=fitted.rows,
        columns=fitted.columns,
        operator_spec=config.operator,
        scale=prior.resolution // fitted.side,
        prior_name=prior.name,
        prior_sha256=prior.sha256,
        resolution=prior.resolution,
        config=config,
        samples_list=samples,
        timing=timing,
        device=str(prior.device),
        torch_version=torch.__version__,
        ops=library.used_by_generators(prior.device.type),
        notes=fitted.notes,
    )


def _as_image(source: str | Path | LowResImage | np.ndarray) -> LowResImage:
    if isinstance(source, LowResImage):
        return source
    if not isinstance(source, np.ndarray):
        return read_image(source)
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[0] != 3:
        raise UsageError(
            f"pixels are {source.dtype} {list(source.shape)}, expected uint8 [3, h, w]",
            "give RGB pixels, channels first",
        )
    return LowResImage(
        pixels=np.ascontiguousarray(source),
        path="array",
        sha256=hashlib.sha256(source.tobytes()).hexdigest(),
        width=source.shape[2],
        height=source.shape[1],
        mode="RGB",
        is_jpeg=False,
        jpeg_noise=0.0,
        notes=(),
    )
