"""Held-back faces by every method of `compare`: nearest, bicubic, supervised, latent search.

    python scripts/bench/compare_table.py FACES -o RUN --count 100

Makes the faces small, compares them with their truths (RUN is kept and gone on with, also with a
larger count), and writes the means as docs/results/NAME.json for scripts/render_tables.py.
"""

from __future__ import annotations

from pathlib import Path
from statistics import mean, stdev
from typing import Any

import click
import torch
from search_inputs import real_faces

import pulse_sr
from pulse_sr.bench.frame import describe_machine
from pulse_sr.config import SearchConfig
from pulse_sr.files.atomic import make_folder, write_atomic
from pulse_sr.files.documents import json_bytes
from pulse_sr.images.write import write_png
from pulse_sr.operators.degrading import degrade
from pulse_sr.priors.base import Prior
from pulse_sr.report.table import Document, result_document

COLUMNS = {
    "method": "{title}",
    "PSNR, dB": "{psnr:.2f}",
    "against bicubic": "{gain:+.2f} ± {gain_error:.2f}",
    "better for": "{better:.0%}",
    "SSIM": "{ssim:.4f}",
    "feature distance": "{distance:.4f}",
    "LR-PSNR, dB": "{lr_psnr:.2f}",
}


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means over the faces of each method; the standard error of the gain over bicubic."""
    found = []
    kept = [{each["method"]: each for each in row["methods"]} for row in rows]
    for method, first in kept[0].items():
        scores = [face[method] for face in kept]
        gains = [face[method]["psnr"] - face["bicubic"]["psnr"] for face in kept]
        line = {"method": method, "title": first["title"]}
        for score in ("psnr", "ssim", "distance", "lr_psnr"):
            line[score] = mean(each[score] for each in scores)
        if method != "bicubic":
            line["gain"] = mean(gains)
            line["gain_error"] = stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
            line["better"] = mean(gain > 0 for gain in gains)
        found.append(line)
    return found


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True)
@click.option("--count", default=100, show_default=True, help="Faces, in the order of names.")
@click.option("--samples", default=8, show_default=True, help="Of the search, for each face.")
@click.option("--scale", default=8, show_default=True)
@click.option("--results", default="docs/results/compare-faces-x8.json", type=Path)
def main(folder: Path, out: Path, count: int, samples: int, scale: int, results: Path) -> None:
    """Make small, compare, write the table."""
    prior = pulse_sr.load_prior(None, "cpu")
    low, truth = out / "low", out / "truth"
    for place in (low, truth):
        make_folder(place)
    for face in real_faces(folder, count, prior.resolution):
        name = f"{Path(face.name).stem}.png"
        write_png(truth / name, face.truth)
        write_png(low / name, degrade(face.truth, "bicubic", scale))
    config = SearchConfig(samples=samples, device="cpu")
    inputs = sorted(low.iterdir())[:count]
    rows = []
    for row in pulse_sr.compare(inputs, out / "compared", config, prior, truth=truth):
        if row["status"] != "ok":
            raise SystemExit(f"{row['stem']}: {row['error']}")
        rows.append(row)
        print(f"{row['stem']}, {len(rows)} of {len(inputs)}", flush=True)
        write_atomic(results, json_bytes(document(rows, prior, scale)))


def document(rows: list[dict[str, Any]], prior: Prior, scale: int) -> Document:
    """The table of the faces that are done."""
    side, count = prior.resolution, len(rows)
    return result_document(
        f"The first {count} held-back faces, {side // scale} to {side} px",
        f"python scripts/bench/compare_table.py FACES -o RUN --count {count}",
        COLUMNS,
        summary(rows),
        describe_machine(torch.device("cpu")),
    )


if __name__ == "__main__":
    main()
