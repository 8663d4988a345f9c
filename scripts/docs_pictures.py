"""The pictures of README.md and docs/how.md, from a run with its steps:

pulse-sr run examples/face_lr.png --samples 8 --save-steps -o RUN
python scripts/docs_pictures.py RUN/face_lr
"""

from __future__ import annotations

import csv
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from pulse_sr.report.canvas import FAINT, GAP, MARGIN, NOTICE, PAPER, write
from pulse_sr.report.spread import disagreement

IMAGES = Path(__file__).parents[1] / "docs" / "images"
#: Side of a picture, height of the two lines below it and of the notice, in pixels.
CELL, TEXT, FOOT = 192, 44, 22
#: The step after which the offset moves instead of the rows (`PhasedSettings.delta_start`).
ROWS_END = 20


def strip(cells: list[tuple[Image.Image, str, str]], out: Path) -> None:
    """Draws pictures beside each other, each with a title and a line below it."""
    size = (2 * MARGIN + len(cells) * (CELL + GAP) - GAP, MARGIN + CELL + TEXT + FOOT)
    canvas = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(canvas)
    for k, (picture, title, detail) in enumerate(cells):
        x, y = MARGIN + k * (CELL + GAP), MARGIN
        how = Image.Resampling.NEAREST if title == "input" else Image.Resampling.BICUBIC
        canvas.paste(picture.convert("RGB").resize((CELL, CELL), how), (x, y))
        write(draw, (x, y + CELL + 3), title, CELL, 15)
        write(draw, (x, y + CELL + 22), detail, CELL, 13, FAINT)
    write(draw, (MARGIN, size[1] - FOOT), NOTICE, size[0], 13, FAINT)
    canvas.save(out, optimize=True)


def main(result: Path) -> None:
    """Writes `readme.png`, `search.png` and `grid.png`."""
    low_res = Image.open(result / "input.png")
    samples = [Image.open(path).convert("RGB") for path in sorted(result.glob("sample_*.png"))]
    over, _ = disagreement(np.stack(samples).transpose(0, 3, 1, 2))
    strip(
        [
            (low_res, "input", f"{low_res.width} x {low_res.height} px"),
            (low_res, "bicubic", "128 x 128 px"),
            *((samples[k], f"sample {k}", "fits the input") for k in range(3)),
            (
                Image.fromarray(over.transpose(1, 2, 0)),
                "disagreement",
                f"of {len(samples)} samples",
            ),
        ],
        IMAGES / "readme.png",
    )
    with (result / "steps" / "lr_psnr.csv").open() as file:
        match = [float(row["lr_psnr"]) for row in csv.DictReader(file) if row["sample"] == "0"]
    stages = {"1  start": 0, "2  rows": ROWS_END, "3  offset": len(match) - 1}
    frames = {
        title: Image.open(result / "steps" / f"sample_00_step_{step:04}.png")
        for title, step in stages.items()
    }
    strip(
        [
            (low_res, "input", f"{low_res.width} x {low_res.height} px"),
            *(
                (frames[title], title, f"step {step}, {match[step]:.1f} dB")
                for title, step in stages.items()
            ),
            (samples[0], "5  projection", "the file"),
        ],
        IMAGES / "search.png",
    )
    shutil.copy(result / "grid.png", IMAGES / "grid.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
