"""From single records to the table of docs/benchmarks.md: medians, minima, shares.

A record is one (face, method): lists have one value per sample, numbers belong to the whole face.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

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
    "feature_distance_median": "SqueezeNet feature distance",
    "diversity_median": "pixel std",
    "seconds_median": "s per face",
}

NOTE = """PULSE's eps = 2e-3 is 26.99 dB. The original tests the sum of max(mse, eps) over its batch
against eps: for two samples or more that is 0 % by construction, whatever they look like."""


def batch_reaches_eps(search_db: Sequence[float], eps: float = 2e-3) -> bool:
    """The original's own test: the batch's sum of max(mse, eps) must come down to eps.

    For two samples or more the sum is at least 2 eps, so it fails by construction.
    """
    return sum(max(10 ** (-db / 10), eps) for db in search_db) <= eps * (1 + 1e-9)


def aggregate(records: Iterable[Record]) -> list[Record]:
    """One row of `COLUMNS` per method, in the order of their first record.

    Medians and minima are over all samples of all faces; `psnr_mean`, `diversity` and `seconds`
    have one value per face. A record with `error` counts as a face without a result.
    """
    by_method: dict[str, list[Record]] = {}
    for record in records:
        by_method.setdefault(record["method"], []).append(record)
    return [_row(method, rows) for method, rows in by_method.items()]


def _row(method: str, records: Sequence[Record]) -> Record:
    done = [record for record in records if "error" not in record]
    row: Record = {"method": method, "faces": len(done), "failed": len(records) - len(done)}
    if not done:
        return row
    every = {
        key: np.concatenate([np.atleast_1d(record[key]) for record in done])
        for key in done[0]
        if key not in ("face", "method", "key")
    }
    for key in ("lr_psnr_search", "hr_rms_change", "psnr", "psnr_mean", "feature_distance"):
        row[f"{key}_median"] = float(np.median(every[key]))
    for key in ("diversity", "seconds"):
        row[f"{key}_median"] = float(np.median(every[key]))
    for key in ("lr_psnr_search", "lr_psnr"):
        row[f"{key}_min"] = float(every[key].min())
    row["eps_share"] = float((every["lr_psnr_search"] >= EPS_DB).mean())
    row["batch_eps_share"] = float(np.mean([batch_reaches_eps(r["lr_psnr_search"]) for r in done]))
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
    if key.endswith("share"):
        return f"{100 * value:.1f} %"
    digits = 2 if key.startswith(("lr_psnr", "psnr", "seconds")) else 4
    return f"{value:.{digits}f}"
