"""What `evaluate_search.py` measures of the samples of a face, and the table of docs/search.md.

A record is one (face, method): lists have one value per sample, numbers belong to the whole face.
The table has medians, minima, shares and the kernel distance over all faces.

Shapes: S samples, R the prior's resolution.
"""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from search_inputs import Pixels, enlarge, to_tensor

from pulse_sr.bench.match import EPS_DB
from pulse_sr.metrics.diversity import distance_maps, diversity_score
from pulse_sr.metrics.kernel import kernel_distance
from pulse_sr.metrics.niqe import BLOCK, niqe_features, niqe_of_set
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import feature_distance, pooled_features
from pulse_sr.operators.building import make_operator

Record = dict[str, Any]

#: LR-PSNR of the eps = 1e-3 of PULSE's paper; its code has 2e-3.
PAPER_EPS_DB = 30.00

COLUMNS = {
    "method": "method",
    "faces": "faces with a result",
    "lr_psnr_search_median": "LR-PSNR by search, median dB",
    "lr_psnr_search_min": "min",
    "lr_psnr_min": "LR-PSNR as written, min dB",
    "hr_rms_change_median": "HR RMS change, median",
    "eps_share": "samples within eps = 2e-3 by search",
    "paper_eps_share": "within 1e-3",
    "face_eps_share": "faces with all samples within 2e-3",
    "batch_eps_share": "faces within eps by the original's batch sum",
    "psnr_median": "PSNR to truth, one sample",
    "psnr_mean_median": "of the mean",
    "kernel_distance": "SqueezeNet kernel distance x 1000",
    "kernel_distance_error": "+-",
    "niqe": "NIQE of the set",
    "feature_distance_median": "SqueezeNet feature distance",
    "diversity_median": "pixel std",
    "ntire_diversity_median": "NTIRE diversity, %",
    "coverage_mean": "truth between the samples",
    "steps_median": "steps",
    "seconds_median": "s per face",
    "cpu_seconds_median": "CPU s per face",
}

#: Values of a record of which the table has the median, where all records have them.
MEDIANS = (
    *("lr_psnr_search", "hr_rms_change", "psnr", "psnr_mean", "feature_distance"),
    *("diversity", "ntire_diversity", "seconds", "cpu_seconds", "steps"),
)

NOTE = """PULSE's eps = 2e-3 is 26.99 dB, the 1e-3 of its paper 30.00 dB. A face that has
no result has not all samples within eps. The original tests the sum of max(mse, eps) over its batch
against eps: for two samples or more that is 0 % by construction, whatever they look like.
The kernel distance is that of the written samples to pictures that were not searched, "+-" its
standard error over the faces (jackknife). "Truth between the samples" counts the values of
pixels that lie between the least and the largest sample: (S - 1) / (S + 1) for S draws from the
right distribution. NIQE is one distance of the top left 96 px of all written samples together, no
mean over images: compare it with that of "truth", the faces themselves, and with sets of the same
size, since small ones come out too large. The NTIRE diversity takes the SqueezeNet feature distance
instead of LPIPS."""


#: Methods of which every face has one record, without a search.
UNSEARCHED = ("truth", "bicubic")


def features_to_text(features: torch.Tensor, kind: DTypeLike = np.float16) -> str:
    """Features `[S, F]` as text that fits into a line of JSON."""
    file = io.BytesIO()
    np.save(file, features.cpu().numpy().astype(kind), allow_pickle=False)
    return base64.b64encode(file.getvalue()).decode()


def features_of(text: str) -> torch.Tensor:
    """The features of `features_to_text`, `[S, F]` float32."""
    values = np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False)
    return torch.from_numpy(values.astype(np.float32))


def measure(samples: torch.Tensor, truth: torch.Tensor) -> Record:
    """Compare samples [S, 3, R, R] with the truth [1, 3, R, R], and with each other."""
    low, high = samples.amin(dim=0), samples.amax(dim=0)
    with torch.no_grad():
        distances = feature_distance(samples, truth)
    record = {
        "psnr": psnr(samples, truth).tolist(),
        "psnr_mean": psnr(samples.mean(dim=0, keepdim=True), truth).item(),
        "feature_distance": distances.tolist(),
        "diversity": samples.std(dim=0, correction=0).mean().item(),
        "coverage": ((truth[0] >= low) & (truth[0] <= high)).float().mean().item(),
    }
    if len(samples) > 1:
        record["ntire_diversity"] = diversity_score(distance_maps(samples, truth[0]))
    return record | measure_realism(samples)


def measure_realism(images: torch.Tensor) -> Record:
    """Features [S, F] of images [S, 3, R, R], for distances that are taken over a whole set."""
    record = {"features": features_to_text(pooled_features(images))}
    if images.shape[-1] >= BLOCK:
        # Of 10 faces float16 moves the NIQE by 4e-3, float32 by 3e-7.
        record["niqe_features"] = features_to_text(niqe_features(images), np.float32)
    return record


def evaluate_unsearched(method: str, low: Pixels, truth: Pixels, spec: str) -> Record:
    """The record of one of `UNSEARCHED`; of the truth, only how real it looks by these measures."""
    if method == "truth":
        return measure_realism(to_tensor(truth))
    return evaluate_bicubic(low, truth, spec)


def evaluate_bicubic(low: Pixels, truth: Pixels, spec: str) -> Record:
    """Bicubic upscaling as one more method, with one sample."""
    started = time.perf_counter()
    image = to_tensor(enlarge(low, truth.shape[-1]))
    seconds = time.perf_counter() - started
    operator = make_operator(spec, low.shape[-1], truth.shape[-1])
    db = operator.lr_psnr(image.double(), to_tensor(low).double()).tolist()
    own = {"lr_psnr_search": db, "lr_psnr": db, "hr_rms_change": [0.0], "seconds": seconds}
    return own | measure(image, to_tensor(truth))


def batch_reaches_eps(search_db: Sequence[float], eps: float = 2e-3) -> bool:
    """The original's own test: the batch's sum of max(mse, eps) must come down to eps.

    For two samples or more the sum is at least 2 eps, so it fails by construction.
    """
    return sum(max(10 ** (-db / 10), eps) for db in search_db) <= eps * (1 + 1e-9)


def aggregate(records: Iterable[Record], reference: torch.Tensor) -> list[Record]:
    """One row of `COLUMNS` per method, in the order of their first record.

    Medians and minima are over all samples of all faces; `psnr_mean`, `diversity`, `coverage` and
    `seconds` have one value per face. A record with `error` counts as a face without a result; one
    without `lr_psnr` is of images that nobody searched, so only their realism is told.

    Args:
        records: what `evaluate_search.py` found.
        reference: features that the samples are compared with, `[N, F]`.
    """
    by_method: dict[str, list[Record]] = {}
    for record in records:
        by_method.setdefault(record["method"], []).append(record)
    return [_row(method, rows, reference) for method, rows in by_method.items()]


def _row(method: str, records: Sequence[Record], reference: torch.Tensor) -> Record:
    done = [record for record in records if "error" not in record]
    row: Record = {"method": method, "faces": len(done), "failed": len(records) - len(done)}
    if not done:
        return row
    for key in MEDIANS:
        if all(key in record for record in done):
            row[f"{key}_median"] = float(np.median(_every(done, key)))
    if all("lr_psnr" in record for record in done):
        row |= _fidelity(done, len(records))
    return row | _realism(done, reference)


def _fidelity(done: Sequence[Record], faces: int) -> Record:
    """How well the samples explain the input; `faces` counts those without a result too."""
    search_db = _every(done, "lr_psnr_search")
    all_reach = [min(record["lr_psnr_search"]) >= EPS_DB for record in done]
    return {
        "lr_psnr_search_min": float(search_db.min()),
        "lr_psnr_min": float(_every(done, "lr_psnr").min()),
        "coverage_mean": float(_every(done, "coverage").mean()),
        "eps_share": float((search_db >= EPS_DB).mean()),
        "paper_eps_share": float((search_db >= PAPER_EPS_DB).mean()),
        "face_eps_share": sum(all_reach) / faces,
        "batch_eps_share": float(np.mean([batch_reaches_eps(r["lr_psnr_search"]) for r in done])),
    }


def _realism(done: Sequence[Record], reference: torch.Tensor) -> Record:
    """How much the samples of all faces together look like photos."""
    row = _kernel_distance([features_of(record["features"]) for record in done], reference)
    if all("niqe_features" in record for record in done):
        blocks = torch.cat([features_of(record["niqe_features"]) for record in done])
        if len(blocks) > 1:
            row["niqe"] = niqe_of_set(blocks)
    return row


def _every(records: Sequence[Record], key: str) -> np.ndarray:
    return np.concatenate([np.atleast_1d(record[key]) for record in records])


def _kernel_distance(features: Sequence[torch.Tensor], reference: torch.Tensor) -> Record:
    """Times 1000, with the jackknife's standard error over the faces."""
    every = torch.cat(list(features))
    row = {"kernel_distance": 1000 * kernel_distance(every, reference)} if len(every) > 1 else {}
    count = len(features)
    if count > 2:
        left_out = [
            1000 * kernel_distance(torch.cat([*features[:i], *features[i + 1 :]]), reference)
            for i in range(count)
        ]
        row["kernel_distance_error"] = float(np.std(left_out) * (count - 1) ** 0.5)
    return row


def markdown(rows: Sequence[Record]) -> str:
    """The rows as a Markdown table."""
    lines = [list(COLUMNS.values()), ["---"] * len(COLUMNS)]
    lines += [[_cell(key, row) for key in COLUMNS] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(key: str, row: Record) -> str:
    value = row.get(key)
    if key == "faces":
        return f"{value} of {value + row['failed']}"
    if value is None or isinstance(value, str):
        return value or ""
    if key.endswith("share") or key == "coverage_mean":
        return f"{100 * value:.1f} %"
    if key.startswith(("kernel", "steps")):
        return f"{value:.1f}" if key.startswith("kernel") else f"{value:.0f}"
    short = ("lr_psnr", "psnr", "niqe", "ntire", "seconds", "cpu")
    digits = 2 if key.startswith(short) else 4
    return f"{value:.{digits}f}"
