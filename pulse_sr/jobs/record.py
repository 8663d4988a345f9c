"""What `result.json` holds.

Shape legend: S samples, R high-res side.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Required, TypedDict

import torch

from pulse_sr import __version__
from pulse_sr.files.documents import Amount, Count, FileName, Place, Side, check_shape, read_json
from pulse_sr.images.read import LowResImage
from pulse_sr.inversion.result import Result
from pulse_sr.jobs import stems
from pulse_sr.jobs.diagnosis import cpu_model
from pulse_sr.jobs.drawing import Document, Pixels, diversity_entry
from pulse_sr.jobs.manifest import RECORD, Status

SCHEMA = 1


class InputShape(stems.InputShape, total=False):
    """The input."""

    notes: list[str]


class RecordShape(TypedDict, total=False):
    """What every `result.json` has, of a failure too."""

    status: Required[Status]
    fingerprint: Required[str]
    input: Required[InputShape]
    face: stems.FaceShape
    error: str
    hint: str


class SampleShape(TypedDict, total=False):
    """A sample."""

    file: Required[FileName]
    index: Required[Count]
    seed: Required[int]
    steps: Required[Count]
    status: Required[Literal["ok", "below_target"]]
    lr_psnr_search: Required[float]
    lr_psnr: Required[float]
    hr_rms_change: Required[float]
    sigma: float
    frames: Count


class CandidateShape(TypedDict):
    """An operator that `--operator auto` looked at."""

    spec: str
    score: float


class MaskShape(TypedDict):
    """The file of a mask."""

    sha256: str


class OperatorShape(TypedDict, total=False):
    """The operator."""

    spec: Required[str]
    scale: Required[Place]
    candidates: list[CandidateShape]
    mask: MaskShape


class PriorShape(TypedDict, total=False):
    """The prior."""

    name: Required[str]
    sha256: Required[str]
    resolution: Required[Side]
    source: str | None


class GridShape(TypedDict):
    """Where the picture lies on the low-res grid."""

    side: Side
    rows: tuple[Count, Count]
    columns: tuple[Count, Count]


class DiversityShape(TypedDict, total=False):
    """How much the samples differ."""

    pixel_std: Required[Amount]
    min_pair_rms: Required[Amount | None]
    interval_level: Amount
    interval_width: Amount
    interval_coverage_at_most: Amount


class ClusterShape(TypedDict):
    """The covering order."""

    distance: str
    typical: Count
    order: list[Count]
    radii: list[Amount]


class QuantitiesShape(TypedDict):
    """What a sampler's chains say of the quantities that are followed."""

    residual: float | None
    coordinates: list[float | None]


class DiagnosticsShape(TypedDict):
    """What a sampler's chains say of themselves."""

    samples: list[Count]
    r_hat: QuantitiesShape | None
    ess: QuantitiesShape | None


class SelectionShape(TypedDict, total=False):
    """Which faces of photos the run took."""

    upscale: Place
    faces: list[Place]
    min_score: Amount
    min_size: Amount


class ResultShape(RecordShape, total=False):
    """What is read back of the `result.json` of an input that has samples."""

    samples: Required[list[SampleShape]]
    operator: Required[OperatorShape]
    prior: Required[PriorShape]
    options: Required[dict[str, Any]]
    config: Required[dict[str, Any]]
    diversity: Required[DiversityShape]
    grid: Required[GridShape]
    timing: Required[dict[str, Amount]]
    device: Required[str]
    torch: Required[str]
    cluster: ClusterShape
    diagnostics: DiagnosticsShape
    selection: SelectionShape
    align: Literal["auto", "always", "never"]


def read_record(folder: Path) -> Document | None:
    """Returns the `result.json` of a folder, or None if it is missing or damaged."""
    document: Document | None = read_json(folder / RECORD, RecordShape, _check)
    return document


def sample_name(index: int) -> str:
    """Returns the file name of a sample."""
    return f"sample_{index:02d}.png"


def _check(document: Document) -> None:
    """Raises ValueError for a record whose parts do not fit together."""
    if document["status"] == "failed":
        return
    check_shape(document, ResultShape)
    samples, found = document["samples"], document.get("diagnostics")
    indices = [each["index"] for each in samples]
    if not samples or sorted(set(indices)) != indices:
        raise ValueError("samples are missing or named twice")
    if any(each["file"] != sample_name(each["index"]) for each in samples):
        raise ValueError("a sample has the name of another file")
    if sorted(document.get("cluster", {}).get("order", indices)) != indices:
        raise ValueError("the order is one of other samples")
    if found is not None and (found["r_hat"] is None) != (found["ess"] is None):
        raise ValueError("the diagnostics are incomplete")
    if found is not None and not all("sigma" in each for each in samples):
        raise ValueError("the diagnostics are of other samples")


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
        "grid": {
            "side": observation.side,
            "rows": list(observation.rows),
            "columns": list(observation.columns),
        },
        "fingerprint": fingerprint,
        "config": asdict(result.config),
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
