"""The picture of `compare`: one input by every method, with what each is measured by.

Shape legend: R high-res side. Nothing is read or written here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pulse_sr.images.pixels import Pixels
from pulse_sr.report.canvas import resize_to_cell, to_array
from pulse_sr.report.pictures import Cell, draw_cells


def comparison(
    pictures: Sequence[Pixels],
    methods: Sequence[Mapping[str, Any]],
    about: str,
    truth: Pixels | None = None,
) -> Pixels:
    """Draws the methods in one labelled picture, the truth last.

    Args:
        pictures: uint8 [3, R, R] of each method.
        methods: "title", "lr_psnr" and, with a truth, "psnr", "ssim" and "distance" of each.
        about: the heading.
        truth: uint8 [3, R, R]; None: not known.

    Returns:
        uint8 [3, H, W].
    """
    cells = [_cell(*each) for each in zip(pictures, methods, strict=True)]
    if truth is not None:
        cells.append(Cell(resize_to_cell(truth), "truth", ""))
    return to_array(draw_cells(cells, about))


def _cell(pixels: Pixels, method: Mapping[str, Any]) -> Cell:
    match, scores = f"LR {method['lr_psnr']:.1f} dB", ""
    if "psnr" in method:
        match += f", PSNR {method['psnr']:.2f} dB"
        scores = f"distance {method['distance']:.3f}"
        scores += "" if method["ssim"] is None else f", SSIM {method['ssim']:.3f}"
    return Cell(resize_to_cell(pixels), method["title"], match, role=scores)
