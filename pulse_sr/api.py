"""The Python API: everything that a command can do, a function can do.

Shapes: S samples, R the prior's resolution, h w low-res.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from pulse_sr.config import SearchConfig
from pulse_sr.errors import UsageError
from pulse_sr.images.read import LowResImage, read_image
from pulse_sr.inversion import result as inversion
from pulse_sr.inversion.stream import OnStep, Request, SearchProgress, search_images
from pulse_sr.jobs import importing
from pulse_sr.jobs.store import save_result
from pulse_sr.models import registry
from pulse_sr.priors.base import Prior


class Result(inversion.Result):
    """What a search found, and how to write it."""

    def save(self, out_dir: str | Path, *, cluster: bool = False) -> Path:
        """Writes the samples, pictures and `result.json`, as `pulse-sr run -o out_dir` does.

        Args:
            out_dir: the run folder.
            cluster: show the samples in covering order, as `--cluster` does.

        Returns:
            the folder of this input inside `out_dir`.

        Raises:
            UsageError: `out_dir` is no path, or something else than a folder is there.
            SetupError: the disk is full or the place can not be written.
        """
        return save_result(Path(out_dir), self, cluster=cluster)


def load_prior(name_or_path: str | Path | None = None, device: str = "auto") -> Prior:
    """Load a prior.

    Args:
        name_or_path: name of a bundled or imported prior, a prior file, a training run, or a
            checkpoint of another program, which is imported into the cache first; None: default.
        device: "auto", "cpu", "cuda" or "cuda:N".

    Raises:
        UsageError: no such prior.
        SetupError: no such device, or the file is damaged.
    """
    return importing.load_prior(name_or_path, device)


def list_priors() -> list[dict[str, Any]]:
    """The cards of the priors that can be had by name, the default first."""
    return [model.facts() for model in registry.list_priors()]


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
        TypeError: there is no such option.
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
    on_step: OnStep | None = None,
) -> Result:
    """Search the samples `indices` of one input, project them, measure them.

    Args:
        image: the input as read.
        prior: the generator.
        config: the settings; `samples` is not used, `indices` says which samples.
        indices: which samples, from 0.
        progress: called after every step.
        on_step: called with every step of every sample (`inversion.stream.OnStep`).

    Raises:
        InputError: the input does not fit the prior.
        UsageError: operator and projection do not go together.
    """
    requests = [Request(image, indices, on_step=on_step)]
    report = None if progress is None else lambda _, step: progress(step)
    [(_, outcome)] = search_images(requests, prior, config, report, samples=len(indices))
    if isinstance(outcome, Exception):
        raise outcome
    return Result(**{each.name: getattr(outcome, each.name) for each in fields(outcome)})


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
    sha256 = hashlib.sha256(source.tobytes()).hexdigest()
    return LowResImage(
        pixels=np.ascontiguousarray(source),
        path=f"array-{sha256[:8]}",  # another array that is saved beside it needs another folder
        sha256=sha256,
        width=source.shape[2],
        height=source.shape[1],
        mode="RGB",
        is_jpeg=False,
        jpeg_noise=0.0,
        notes=(),
    )
