"""From single records to the table of docs/search.md: medians, minima, shares, kernel distance.

A record is one (face, method): lists have one value per sample, numbers belong to the whole face.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from pulse_sr.metrics.kernel import kernel_distance

Record = dict[str, Any]

#: LR-PSNR of PULSE's eps = 2e-3.
EPS_DB = 26.99

COLUMNS = {
    "method": "method",
    "faces": "faces with a result",
    "lr_psnr_search_median": "LR-PSNR by search, median dB",
    "lr_psnr_search_min": "min",
    "lr_psnr_min": "LR-PSNR as written, min dB",
    "hr_rms_change_median": "HR RMS change, median",
    "eps_share": "samples within eps by search",
    "batch_eps_share": "faces within eps by the original's batch sum",
    "psnr_median": "PSNR to truth, one sample",
    "psnr_mean_median": "of the mean",
    "kernel_distance": "SqueezeNet kernel distance x 1000",
    "kernel_distance_error": "+-",
    "feature_distance_median": "SqueezeNet feature distance",
    "diversity_median": "pixel std",
    "coverage_mean": "truth between the samples",
    "steps_median": "steps",
    "seconds_median": "s per face",
    "cpu_seconds_median": "CPU s per face",
}

NOTE = """PULSE's eps = 2e-3 is 26.99 dB. The original tests the sum of max(mse, eps) over its batch
against eps: for two samples or more that is 0 % by construction, whatever they look like.
The kernel distance is that of the written samples to pictures that were not searched, "+-" its
standard error over the faces (jackknife). "Truth between the samples" counts the values of
pixels that lie between the least and the largest sample: (S - 1) / (S + 1) for S draws from the
right distribution."""


def features_to_text(features: torch.Tensor) -> str:
    """Features `[S, F]` as text that fits into a line of JSON."""
    return base64.b64encode(features.cpu().numpy().astype(np.float16).tobytes()).decode()


def features_of(record: Record) -> torch.Tensor:
    """The features of a record, `[S, F]`."""
    values = np.frombuffer(base64.b64decode(record["features"]), np.float16)
    return torch.from_numpy(values.astype(np.float32)).view(len(record["psnr"]), -1)


def batch_reaches_eps(search_db: Sequence[float], eps: float = 2e-3) -> bool:
    """The original's own test: the batch's sum of max(mse, eps) must come down to eps.

    For two samples or more the sum is at least 2 eps, so it fails by construction.
    """
    return sum(max(10 ** (-db / 10), eps) for db in search_db) <= eps * (1 + 1e-9)


def aggregate(records: Iterable[Record], reference: torch.Tensor) -> list[Record]:
    """One row of `COLUMNS` per method, in the order of their first record.

    Medians and minima are over all samples of all faces; `psnr_mean`, `diversity`, `coverage` and
    `seconds` have one value per face. A record with `error` counts as a face without a result.

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
    for key in ("lr_psnr_search", "hr_rms_change", "psnr", "psnr_mean", "feature_distance"):
        row[f"{key}_median"] = float(np.median(_every(done, key)))
    for key in ("diversity", "seconds", "cpu_seconds", "steps"):
        if all(key in record for record in done):
            row[f"{key}_median"] = float(np.median(_every(done, key)))
    for key in ("lr_psnr_search", "lr_psnr"):
        row[f"{key}_min"] = float(_every(done, key).min())
    row["coverage_mean"] = float(_every(done, "coverage").mean())
    row["eps_share"] = float((_every(done, "lr_psnr_search") >= EPS_DB).mean())
    row["batch_eps_share"] = float(np.mean([batch_reaches_eps(r["lr_psnr_search"]) for r in done]))
    return row | _kernel_distance([features_of(record) for record in done], reference)


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
    digits = 2 if key.startswith(("lr_psnr", "psnr", "seconds", "cpu")) else 4
    return f"{value:.{digits}f}"
