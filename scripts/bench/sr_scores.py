"""PSNR of supervised networks on folders of photos, beside bicubic enlargement.

Usage: python scripts/bench/sr_scores.py FOLDER... --scale 4 [--model FILE...] [--operator matlab]
           [--limit N] [--json] [--output FILE]

The convention of the tables in papers: a photo is cut to a multiple of the scale, made small by
MATLAB's bicubic, rounded to 8 bits, enlarged, rounded again; PSNR of Y (BT.601) without a border of
as many pixels as the scale, averaged over the photos. "RGB" is over all channels and pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from pulse_sr.bench.frame import describe_machine
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_bytes, json_text
from pulse_sr.images.find import find_images
from pulse_sr.images.pixels import Pixels
from pulse_sr.images.read import read_image
from pulse_sr.metrics.psnr import luma_psnr, psnr
from pulse_sr.operators.degrading import degrade
from pulse_sr.report.table import markdown, result_document
from pulse_sr.sr.enlarging import Enlarge, bicubic, by_network
from pulse_sr.sr.files import read_model

COLUMNS = {
    "set": "{set}",
    "photos": "{photos}",
    "method": "{method}",
    "PSNR of Y, dB": "{y:.2f}",
    "RGB": "{rgb:.2f}",
}


def main() -> None:
    """Prints a table, or with --json one object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--model", nargs="*", type=Path, default=[])
    parser.add_argument("--operator", default="matlab")
    parser.add_argument("--limit", type=int, help="photos of each folder, in the order of names")
    parser.add_argument("--json", action="store_true", dest="as_json")
    parser.add_argument("--output", type=Path, help="a file of results, with a table")
    options = parser.parse_args()
    methods = {"bicubic": bicubic(options.scale)}
    for path in options.model:
        model = read_model(path)
        if model.scale != options.scale:
            parser.error(f"{path} enlarges by {model.scale}, --scale is {options.scale}")
        methods[path.stem if path.is_file() else path.name] = by_network(model)
    rows = []
    for folder in options.folders:
        photos = find_images([str(folder)])[: options.limit]
        for name, enlarge in methods.items():
            rows.append({"set": folder.name, "photos": len(photos), "method": name})
            rows[-1] |= score(photos, enlarge, options.scale, options.operator)
    document = result_document(
        "", f"python scripts/bench/sr_scores.py --scale {options.scale}", COLUMNS, rows, machine()
    )
    if options.output is not None:
        write_atomic(options.output, json_bytes(document))
    print(json_text(rows, indent=2) if options.as_json else markdown(document))


def machine() -> dict[str, Any]:
    """What it was measured on."""
    return describe_machine(torch.device("cpu"))


def score(photos: list[Path], enlarge: Enlarge, scale: int, operator: str) -> dict[str, float]:
    """Means over photos: "y" and "rgb" in dB."""
    found: dict[str, list[float]] = {"y": [], "rgb": []}
    for path in photos:
        truth = cut(read_image(path).pixels, scale)
        made = enlarge(degrade(truth, operator, scale))
        found["y"].append(luma_psnr(made, truth, scale))
        pair = (torch.from_numpy(each / 255.0) for each in (made[None], truth))
        found["rgb"].append(float(psnr(*pair)))
    return {name: round(mean(values), 4) for name, values in found.items()}


def cut(pixels: Pixels, scale: int) -> Pixels:
    """The upper left part whose sides are multiples of the scale."""
    height, width = (size // scale * scale for size in pixels.shape[-2:])
    return pixels[:, :height, :width]


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
