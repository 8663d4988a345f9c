"""One input through `run`, and what it wrote: read by code that is not under test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from pulse_sr.config import SearchConfig
from pulse_sr.jobs.searching import run

STEPS = 3


def search(path, prior, operator, out="out", **options):
    """One input through `run`; returns its record and its document."""
    settings = {"samples": 2, "steps": STEPS, "batch": 2, "operator": operator} | options
    [record] = run([path], out, SearchConfig(**settings), prior, align="never")
    return record, document(Path(out, record.stem))


def document(folder):
    return json.loads(Path(folder, "result.json").read_text())


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def samples(document, folder):
    return [pixels(Path(folder, each["file"])) for each in document["samples"]]


def save(path, array):
    """Writes uint8 [3, h, w] or [h, w]."""
    Image.fromarray(array.transpose(1, 2, 0) if array.ndim == 3 else array).save(path)
    return path


def psnr(a, b):
    return -10 * np.log10(np.mean((a / 255.0 - b / 255.0) ** 2))
