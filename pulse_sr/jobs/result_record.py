"""What is read back of `result.json`, the record of an input of `run`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Required, TypedDict

from pulse_sr.files.documents import Amount, Count, FileName, Place, Side, check_shape, read_json
from pulse_sr.jobs import stems
from pulse_sr.jobs.manifest import RECORD, Status


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
    licence: str
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


def read_record(folder: Path) -> dict[str, Any] | None:
    """Returns the `result.json` of a folder, or None if it is missing or damaged."""
    document: dict[str, Any] | None = read_json(folder / RECORD, RecordShape, _check)
    return document


def sample_name(index: int) -> str:
    """Returns the file name of a sample."""
    return f"sample_{index:02d}.png"


def _check(document: dict[str, Any]) -> None:
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
