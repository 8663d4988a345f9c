"""A deterministic stand-in for prior and search: the pseudo-inverse plus null-space noise."""

from __future__ import annotations

import functools
import hashlib
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

from pulse_sr.api import Result
from pulse_sr.errors import SetupError
from pulse_sr.images.pixels import to_uint8
from pulse_sr.inversion.observation import observe
from pulse_sr.inversion.result import Sample, sample_status

PRIOR = SimpleNamespace(
    name="fake-64",
    sha256="f" * 64,
    resolution=64,
    device=torch.device("cpu"),
    card={"architecture": "none", "licence": "MIT", "data": "none", "name": "fake-64"},
)


def search(image, prior, config, indices, progress=None):
    """Finds `len(indices)` images whose downscaling is the input, one generator per sample."""
    observation = observe(image, prior, config, indices)
    A, y = observation.operator, observation.y
    samples = []
    for done, index in enumerate(indices):
        key = f"{config.seed}/{image.sha256}/{index}".encode()
        seed = int.from_bytes(hashlib.sha256(key).digest()[:6], "big")
        noise = np.random.default_rng(seed).normal(
            0.5, 0.05, (3, prior.resolution, prior.resolution)
        )
        pixels = to_uint8(A.project(torch.from_numpy(noise), y).numpy())
        db = float(A.lr_psnr(torch.from_numpy(pixels / 255.0), y))
        samples.append(Sample(index, seed, sample_status(db), 7, 31.5, db, 0.01, pixels))
        if progress is not None:
            step = {"step": 7, "steps": 7, "best_db": db, "done": done + 1}
            progress(SimpleNamespace(**step, samples=len(indices)))
    return Result(
        observation=observation,
        prior_name=prior.name,
        prior_sha256=prior.sha256,
        resolution=prior.resolution,
        config=config,
        samples_list=tuple(samples),
        timing={"search_s": 0.0},
        torch_version=torch.__version__,
        notes=observation.notes,
    )


def one_by_one(search):
    """A stream of searches, as `inversion.stream.search_images`, that takes input after input."""

    def stream(requests, prior, config, progress=None, samples=None):
        for request in requests:
            report = None if progress is None else functools.partial(progress, request)
            more = {} if request.on_step is None else {"on_step": request.on_step}
            try:
                outcome = search(request.image, prior, config, request.indices, report, **more)
            except SetupError:
                raise
            except Exception as error:
                outcome = error
            yield request, outcome

    return stream


def make_face(path, seed=0, size=(16, 16)):
    """Writes a smooth low-contrast RGB picture of `size` (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    coarse = np.random.default_rng(seed).integers(90, 170, (4, 4, 3)).astype(np.uint8)
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
    return path
