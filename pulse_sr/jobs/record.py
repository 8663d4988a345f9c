"""What `result.json` holds.

Shape legend: S samples, R high-res side.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch

from pulse_sr import __version__
from pulse_sr.images.read import LowResImage
from pulse_sr.inversion.observation import Observation
from pulse_sr.inversion.result import Result
from pulse_sr.jobs.diagnosis import cpu_model
from pulse_sr.jobs.drawing import Document, Pixels, diversity_entry

SCHEMA = 1


def make_document(
    result: Result,
    samples: list[Document],
    pixels: Pixels,
    fingerprint: str,
    prior_source: str | None,
) -> Document:
    """Returns what `result.json` holds, but for what only a run knows (face, order, seconds).

    Args:
        result: the samples that were searched now, and everything they share with earlier ones.
        samples: entries of all samples of the folder, measured.
        pixels: of all samples as written, uint8 [S, 3, R, R].
        fingerprint: of input, prior and settings (`task.fingerprint`).
        prior_source: the prior as the caller named it; None: the default one.
    """
    fine = all(each["status"] == "ok" for each in samples)
    observation, options = result.observation, result.config.pixel_options()
    options["project"] = observation.projection
    return {
        "schema": SCHEMA,
        "version": __version__,
        "status": "ok" if fine else "below_target",
        "ok_db": round(observation.ok_db, 2),
        "input": input_entry(observation.image, result.notes),
        "operator": {
            "spec": observation.operator.spec,
            "scale": result.scale,
            **observation.facts,
        },
        "prior": {
            "name": result.prior_name,
            "sha256": result.prior_sha256,
            "resolution": result.resolution,
            "licence": result.prior_licence,
            "source": prior_source,
        },
        "method": result.config.method,
        "seed": result.config.seed,
        "options": options,
        "samples": samples,
        "diversity": diversity_entry(pixels),
        **({} if result.diagnostics is None else {"diagnostics": result.diagnostics}),
        "device": result.device,
        "torch": result.torch_version,
        "arithmetic": arithmetic(),
        "ops": result.ops,
        "slots": result.slots,
        "grid": grid_entry(observation),
        "fingerprint": fingerprint,
        "config": asdict(result.config),
    }


def grid_entry(observation: Observation) -> dict[str, Any]:
    """Where the picture lies on the low-res grid; the rest of it is padding, not observed."""
    return {
        "side": observation.side,
        "rows": list(observation.rows),
        "columns": list(observation.columns),
    }


def arithmetic() -> dict[str, Any]:
    """What the last bits of a result depend on beside torch's version, its ops and the slots.

    Returns:
        `cpu`: the model, since MKL takes other kernels for other vendors; `capability`: the
        instructions that torch's own kernels use; `blas`: name and version; `threads`.
    """
    return {**_machine(), "threads": torch.get_num_threads()}


@functools.cache
def _machine() -> dict[str, str]:
    """The part of it that stays as it is: read once, not for every input."""
    built = torch.__config__.show()
    library = re.search(r"Math Kernel Library Version (\S+)", built)
    name = re.search(r"BLAS_INFO=(\w+)", built)
    return {
        "cpu": cpu_model(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "blas": f"MKL {library[1]}" if library else name[1] if name else "unknown",
    }


def input_entry(image: LowResImage, notes: Sequence[str] = ()) -> Document:
    """Returns the input as `result.json` names it.

    Args:
        image: as read from its file.
        notes: what was changed on reading and fitting it; none: what was changed on reading.
    """
    image = image.source
    return {
        "path": str(image.path),
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
        "mode": image.mode,
        "notes": list(notes or image.notes),
    }


def timing_entry(result: Result, load_s: float, write_s: float) -> dict[str, float]:
    """Returns the seconds of reading, of all parts of the search, and of writing."""
    timing = {"load_s": load_s, "search_s": 0.0, **result.timing, "write_s": write_s}
    return {name: round(seconds, 3) for name, seconds in timing.items()}
