"""The pictures of an input's folder, and the numbers about how its samples differ.

Everything here follows from the samples as written and from `result.json`, so that it can be drawn
again without a search.

Shape legend: S samples, R high-res side.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pulse_sr.errors import InputError, first_line
from pulse_sr.images.write import write_png
from pulse_sr.jobs.provenance import XMP
from pulse_sr.metrics.covering import covering_order, feature_distances
from pulse_sr.operators.spec import parse_operator
from pulse_sr.report.page_section import shown_samples
from pulse_sr.report.pictures import SampleLabel, grid
from pulse_sr.report.spread import (
    disagreement_image,
    interval_image,
    interval_of,
    mean_image,
    std_image,
)

GRID = "grid.png"
#: Pillow's words for a damaged file.
_DAMAGED = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_XMP_KEYS = ("xmp", "XML:com.adobe.xmp")
PICTURES = ("input.png", "mean.png", "std.png", "interval.png", "disagreement.png", GRID)

Document = dict[str, Any]
Pixels = NDArray[np.uint8]


def write_pictures(
    folder: Path, samples: Pixels, document: Document, chunks: Mapping[str, str]
) -> None:
    """Draws everything beside the samples [S, 3, R, R]; `input.png` is there already.

    Args:
        folder: of the input.
        samples: as written.
        document: what `result.json` will hold.
        chunks: the provenance (`provenance.text_chunks`).
    """
    write_png(folder / "mean.png", mean_image(samples), chunks, XMP)
    write_png(folder / "std.png", std_image(samples), chunks, XMP)
    write_png(folder / "interval.png", interval_image(samples), chunks, XMP)
    write_png(folder / "disagreement.png", disagreement_image(samples), chunks, XMP)
    write_grid(folder, samples, document, chunks)


def write_grid(
    folder: Path, samples: Pixels, document: Document, chunks: Mapping[str, str] | None = None
) -> None:
    """Draws the grid, in the order of `document["cluster"]` if there is one.

    Args:
        folder: of the input.
        samples: as written, [S, 3, R, R].
        document: what `result.json` holds.
        chunks: the provenance; None: that of the grid that is there.
    """
    if chunks is None:
        with Image.open(folder / GRID) as old:
            text = {str(key): value for key, value in old.info.items() if isinstance(value, str)}
        chunks = {key: value for key, value in text.items() if key not in _XMP_KEYS}
    entries = document["samples"]
    names = ("index", "seed", "lr_psnr_search", "lr_psnr", "status")
    labels = [SampleLabel(*(each[name] for name in names)) for each in entries]
    operator = parse_operator(document["operator"]["spec"]).title
    prior = document["prior"]
    about = (
        f"{operator}, {document['grid']['side']} to {prior['resolution']} px, {prior['name']}; "
        "dB: match as searched > as written"
    )
    places = [entries.index(each) for each in shown_samples(document)]
    order = places if document.get("cluster") else None
    picture = grid(read_pixels(folder / "input.png"), samples, labels, about, order)
    write_png(folder / GRID, picture, chunks, XMP)


def cluster_entry(samples: Pixels, indices: list[int]) -> Document:
    """Returns the covering order of samples [S, 3, R, R] as `result.json` holds it.

    Args:
        samples: as written.
        indices: of the samples.
    """
    found = covering_order(feature_distances(torch.from_numpy(samples / np.float32(255.0))))
    order = [indices[place] for place in found.order]
    return {
        "distance": "SqueezeNet feature distance",
        "typical": order[0],
        "order": order,
        "radii": [round(radius, 4) for radius in found.radii],
    }


def diversity_entry(samples: Pixels) -> Document:
    """Returns how much samples [S, 3, R, R] differ, pixels in [0, 1], as `result.json` holds it.

    Mean pixel standard deviation, RMS difference of the nearest pair, and of the 90 % interval the
    mean width and the share of truths that it can promise to hold at most.
    """
    x = samples.astype(np.float64) / 255.0
    pairs = [float(np.sqrt(np.mean((a - b) ** 2))) for a, b in combinations(x, 2)]
    interval = interval_of(samples)
    return {
        "pixel_std": round(float(x.std(axis=0).mean()), 6),
        "min_pair_rms": round(min(pairs), 6) if pairs else None,
        "interval_level": interval.level,
        "interval_width": round(float(interval.width.mean()), 6),
        "interval_coverage_at_most": round(interval.coverage, 6),
    }


def read_pixels(path: Path) -> Pixels:  # [3, R, R]
    """Reads a PNG that we wrote, as uint8 [3, R, R].

    Raises:
        InputError: it is damaged.
    """
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB")).transpose(2, 0, 1).copy()
    except _DAMAGED as error:
        raise InputError(
            f"{path} is damaged ({first_line(error)})", "--overwrite makes it again"
        ) from error


def is_whole(path: Path) -> bool:
    """Whether a PNG that we wrote can be read."""
    try:
        with Image.open(path) as image:
            image.verify()
    except _DAMAGED:
        return False
    return True
