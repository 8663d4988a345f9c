"""Plots of what `compare_methods.py` found, for the documents.

    python scripts/bench/method_plots.py docs/results/methods.json docs/images
    python scripts/bench/method_plots.py docs/results/groups.json docs/images

Of the former: methods-perception.png, methods-spectra.png, methods-steps.png and
methods-coverage.png, of the latter groups.png. A mean is drawn with its 95 % bootstrap interval.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from pulse_sr.files.atomic import make_folder, write_atomic
from pulse_sr.files.documents import read_json
from pulse_sr.metrics.bootstrap import LEAST_GROUP
from pulse_sr.report.evaluation_plots import new_figure, png_of

Document = dict[str, Any]

SIZE, WIDE = (8.2, 5.4), (12.5, 5.4)
#: Fewer dB than these are of the first steps.
LEAST_DB = 10


def perception(document: Document) -> bytes:
    """PSNR against SqueezeNet distance, a point a method."""
    figure, [axis] = new_figure(SIZE)
    for i, row in enumerate(document["rows"]):
        x, y = row["psnr"], row["squeezenet"]
        axis.errorbar(
            x,
            y,
            xerr=_around(x, row["psnr_interval"]),
            yerr=_around(y, row["squeezenet_interval"]),
            **{"fmt": "o", "ms": 8, "color": f"C{i}", "capsize": 3, "label": row["method"]},
        )
    axis.set_title(f"{document['title']} (best: lower right)")
    axis.set_xlabel("PSNR to the truth (dB; RGB; mean over faces of their samples' mean)")
    axis.set_ylabel("SqueezeNet feature distance to the truth (0 to 2)")
    return png_of(figure, axis)


def _around(value: float, interval: list[float]) -> list[list[float]]:
    return [[value - interval[0]], [interval[1] - value]]


def spectra(document: Document) -> bytes:
    """Mean radial spectra of all methods, as they are and less those of the references."""
    figure, [left, right] = new_figure(WIDE, 2)
    for i, (name, found) in enumerate(document["spectra"].items()):
        kept = np.array(found["frequency"]) <= 0.5
        x, ours, theirs = (np.array(found[k])[kept] for k in ("frequency", "results", "references"))
        if i == 0:
            left.plot(x, theirs, color="k", linewidth=2, label="references")
            right.axhline(0, color="k", linewidth=2, label="references")
        left.plot(x, ours, color=f"C{i}", label=name)
        right.plot(x, ours - theirs, color=f"C{i}", label=name)
    left.set_title(f"radial spectra, {document['title']}")
    left.set_ylabel("magnitude of the luma's coefficients (dB)")
    right.set_title("less the references'")
    right.set_ylabel("difference (dB)")
    for axis in (left, right):
        axis.set_xlabel("spatial frequency (cycles per px; 0.5 is Nyquist)")
        axis.set_xlim(0, 0.5)
    return png_of(figure, left, right, below=True)


def steps(document: Document) -> bytes:
    """LR-PSNR by step, a line a sample."""
    figure, [axis] = new_figure(SIZE)
    for i, (method, found) in enumerate(document["steps"].items()):
        for k, values in enumerate(found):
            label = f"{method} ({len(found)} samples)" if k == 0 else None
            axis.plot(range(len(values)), values, color=f"C{i}", alpha=0.8, label=label)
            axis.plot(len(values) - 1, values[-1], "o", color=f"C{i}", ms=5)
    axis.axhline(38, color="0.4", linestyle="--", label="target, 38 dB")
    axis.axhline(26.99, color="0.4", linestyle=":", label="PULSE's eps, 26.99 dB")
    axis.set_ylim(bottom=LEAST_DB)
    axis.set_title("LR-PSNR by step of examples/face_lr.png, before the projection")
    axis.set_xlabel("step")
    axis.set_ylabel("LR-PSNR (dB)")
    return png_of(figure, axis)


def coverage(document: Document) -> bytes:
    """Coverage against nominal level, and the ranks of the truth."""
    figure, [left, right] = new_figure(WIDE, 2)
    left.plot([0, 100], [0, 100], color="0.6", linestyle="--", label="calibrated")
    for i, (name, found) in enumerate(document["calibration"].items()):
        label = f"{name} ({found['inputs']} faces x {found['samples']})"
        levels, held = (100 * np.array(found[key]) for key in ("levels", "coverage"))
        left.plot(levels, held, "o-", color=f"C{i}", label=label)
        shares = 100 * np.array(found["ranks"])
        right.plot(range(len(shares)), shares, "o-", color=f"C{i}", label=label)
        even = 100 / len(shares)
        right.axhline(even, color=f"C{i}", linestyle="--", linewidth=1)
    left.set_title("coverage of the samples' intervals")
    left.set_xlabel("nominal level of the interval (%)")
    left.set_ylabel("truth's pixel values inside (%)")
    right.set_title("rank histogram of the truth")
    right.set_xlabel("rank: samples below the truth's pixel value")
    right.set_ylabel("share of pixel values (%)")
    right.set_ylim(bottom=0)
    return png_of(figure, left, right)


def groups(document: Document) -> bytes:
    """PSNR and SqueezeNet distance of each group with their intervals."""
    figure, axes = new_figure((12.5, 6.2), 2)
    rows = [
        (i, f"{row['group']} ({row['inputs']})", row)
        for i, (label, table) in enumerate(document["tables"].items())
        if label != "gaps"
        for row in table["rows"]
    ]
    labels = [label for label in document["tables"] if label != "gaps"]
    names = {"psnr": "PSNR to the truth (dB; more is better)"}
    names["squeezenet"] = "SqueezeNet feature distance (less is better)"
    for axis, (metric, title) in zip(axes, names.items(), strict=True):
        for place, (i, _, row) in enumerate(rows):
            few = row["inputs"] < LEAST_GROUP
            error = _around(row[metric], row.get(f"{metric}_interval", [row[metric]] * 2))
            axis.errorbar(
                row[metric],
                -place,
                xerr=error,
                **{"fmt": "o", "color": f"C{i}", "capsize": 3, "alpha": 0.35 if few else 1},
            )
        for i, label in enumerate(labels):
            axis.plot([], [], "o", color=f"C{i}", label=label)
        axis.plot([], [], "o", color="0.4", alpha=0.35, label=f"under {LEAST_GROUP} faces")
        axis.set_yticks([-place for place in range(len(rows))], [name for _, name, _ in rows])
        axis.set_xlabel(title)
    figure.suptitle(f"{document['title']}: means with 95 % bootstrap intervals")
    return png_of(figure, *axes, below=True)


def main() -> None:
    """Draws what a file has the numbers for."""
    document, out = read_json(Path(sys.argv[1])), Path(sys.argv[2])
    drawings = {
        "methods-perception": perception,
        "methods-spectra": spectra,
        "methods-steps": steps,
        "methods-coverage": coverage,
    }
    make_folder(out)
    for name, draw in ({"groups": groups} if "tables" in document else drawings).items():
        write_atomic(out / f"{name}.png", draw(document))
        print(out / f"{name}.png")


if __name__ == "__main__":
    main()
