"""What `evaluate_search.py` measures of the samples of a face, and the columns of its table.

A record is one (face, method): lists have one value per sample, numbers belong to the whole face,
tensors are features. The table has medians, minima, shares and the kernel distance over all faces.

Shapes: S samples, R the prior's resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from scipy.ndimage import laplace
from search_inputs import Pixels, enlarge, to_tensor

from pulse_sr.bench.match import EPS_DB
from pulse_sr.metrics.diversity import distance_maps, diversity_score
from pulse_sr.metrics.kernel import kernel_distance
from pulse_sr.metrics.niqe import BLOCK, niqe_features, niqe_of_set
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import feature_distance, pooled_features
from pulse_sr.operators.base import Operator

Record = dict[str, Any]

#: LR-PSNR of the eps = 1e-3 of PULSE's paper; its code has 2e-3.
PAPER_EPS_DB = 30.00

#: Of the values of every sample, or face, a row has the median.
_MEDIANS = (
    "lr_psnr_search",
    "hr_rms_change",
    "psnr",
    "psnr_mean",
    "feature_distance",
    "laplacian",
    "ntire_diversity",
    "diversity",
    "steps",
    "cpu_seconds",
)
COLUMNS = {
    "method": "{method}",
    "faces": "{faces}",
    "without a result": "{failed}",
    "LR-PSNR by search, median dB": "{lr_psnr_search_median:.2f}",
    "min": "{lr_psnr_search_min:.2f}",
    "LR-PSNR as written, min dB": "{lr_psnr_min:.2f}",
    "HR RMS change, median": "{hr_rms_change_median:.4f}",
    "samples within eps = 2e-3 by search": "{eps_share:.1%}",
    "within 1e-3": "{paper_eps_share:.1%}",
    "PSNR to truth, one sample": "{psnr_median:.2f}",
    "of the mean": "{psnr_mean_median:.2f}",
    "SqueezeNet feature distance": "{feature_distance_median:.3f}",
    "variance of the Laplacian / the truth's": "{laplacian_median:.2f}",
    "SqueezeNet kernel distance x 1000": "{kernel_distance:.1f}",
    "+-": "{kernel_distance_error:.1f}",
    "NIQE of the set": "{niqe:.2f}",
    "NTIRE diversity, %": "{ntire_diversity_median:.2f}",
    "pixel std": "{diversity_median:.4f}",
    "truth between the samples": "{coverage_mean:.1%}",
    "steps": "{steps_median:.0f}",
    "CPU s per face": "{cpu_seconds_median:.2f}",
}

NOTE = """PULSE's eps = 2e-3 is 26.99 dB, the 1e-3 of its paper 30.00 dB. The kernel distance is
that of the written samples to pictures that were not searched, "+-" its standard error over the
faces (jackknife). "Truth between the samples" counts the values of pixels that lie between the
least and the largest sample: (S - 1) / (S + 1) for S draws from the right distribution. NIQE is
one distance of the top left 96 px of all written samples together, no mean over images: compare it
with that of "truth", the faces themselves, and with sets of the same size, since small ones come
out too large. The NTIRE diversity takes the SqueezeNet feature distance instead of LPIPS."""


def measure(samples: torch.Tensor, truth: torch.Tensor) -> Record:
    """Compare samples [S, 3, R, R] with the truth [1, 3, R, R], and with each other."""
    low, high = samples.amin(dim=0), samples.amax(dim=0)
    detail = _laplacian(truth[0])
    with torch.no_grad():
        distances = feature_distance(samples, truth)
    record = {
        "psnr": psnr(samples, truth).tolist(),
        "psnr_mean": psnr(samples.mean(dim=0, keepdim=True), truth).item(),
        "feature_distance": distances.tolist(),
        "laplacian": [_laplacian(each) / detail for each in samples],
        "diversity": samples.std(dim=0, correction=0).mean().item(),
        "coverage": ((truth[0] >= low) & (truth[0] <= high)).float().mean().item(),
    }
    if len(samples) > 1:
        record["ntire_diversity"] = diversity_score(distance_maps(samples, truth[0]))
    return record | measure_realism(samples)


def _laplacian(image: torch.Tensor) -> float:
    """The variance of the Laplacian of the grey picture, which fine detail makes large."""
    return float(laplace(image.mean(dim=0).double().numpy()).var())


def measure_realism(images: torch.Tensor) -> Record:
    """Features [S, F] of images [S, 3, R, R], for distances that are taken over a whole set."""
    record = {"features": pooled_features(images).cpu()}
    if images.shape[-1] >= BLOCK:
        record["niqe_features"] = niqe_features(images).cpu()
    return record


def evaluate_bicubic(low: Pixels, truth: Pixels, operator: Operator) -> Record:
    """Bicubic upscaling as one more method, with one sample."""
    image = to_tensor(enlarge(low, truth.shape[-1]))
    db = operator.lr_psnr(image.double(), to_tensor(low).double()).tolist()
    own = {"lr_psnr_search": db, "lr_psnr": db, "hr_rms_change": [0.0]}
    return own | measure(image, to_tensor(truth))


def aggregate(records: Iterable[Record], reference: torch.Tensor) -> list[Record]:
    """One row of the table per method, in the order of their first record.

    Medians and minima are over all samples of all faces; `psnr_mean`, `diversity`, `coverage` and
    `cpu_seconds` have one value per face. A record with `error` counts as a face without a result;
    one without `lr_psnr` is of images that nobody searched, so only their realism is told.

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
    for key in _MEDIANS:
        if all(key in record for record in done):
            row[f"{key}_median"] = float(np.median(_every(done, key)))
    if all("lr_psnr" in record for record in done):
        search_db = _every(done, "lr_psnr_search")
        row |= {
            "lr_psnr_search_min": float(search_db.min()),
            "lr_psnr_min": float(_every(done, "lr_psnr").min()),
            "coverage_mean": float(_every(done, "coverage").mean()),
            "eps_share": float((search_db >= EPS_DB).mean()),
            "paper_eps_share": float((search_db >= PAPER_EPS_DB).mean()),
        }
    return row | _realism(done, reference)


def _realism(done: Sequence[Record], reference: torch.Tensor) -> Record:
    """How much the samples of all faces together look like photos."""
    row = _kernel_distance([record["features"] for record in done], reference)
    if all("niqe_features" in record for record in done):
        blocks = torch.cat([record["niqe_features"] for record in done])
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
