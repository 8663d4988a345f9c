"""Search real held-back faces and print the table of docs/benchmarks.md.

    python scripts/bench/evaluate_search.py FACES -o out.json --count 100

Every face is reduced to the prior's resolution (Lanczos), degraded to an 8-bit LR image, and
searched with each method. One JSON line per (face, method) goes to out.jsonl as soon as it is done;
the same command goes on where it was stopped. Faces are named by file name only; no picture is ever
written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from search_table import NOTE, Record, aggregate, markdown

from pulse_sr.api import load_prior, search_image
from pulse_sr.atomic import write_text_atomic
from pulse_sr.config import SearchConfig
from pulse_sr.errors import PulseError
from pulse_sr.images import LowResImage, read_image
from pulse_sr.metrics.psnr import psnr
from pulse_sr.metrics.squeezenet import feature_distance
from pulse_sr.operators import degrade, make_operator
from pulse_sr.priors.base import Prior

OPERATOR = "bicubic"
METHODS = ("phased", "pulse", "strict-pulse")

Pixels = NDArray[np.uint8]


def read_truth(path: Path, resolution: int) -> Pixels:
    """The face at the prior's resolution: uint8 [3, R, R], reduced by Pillow's Lanczos."""
    pixels = read_image(path).pixels
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    if image.size != (resolution, resolution):
        image = image.resize((resolution, resolution), Image.Resampling.LANCZOS)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def as_input(name: str, pixels: Pixels) -> LowResImage:
    """An LR image as if it had been read from a clean PNG file."""
    height, width = pixels.shape[1:]
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    return LowResImage(pixels, name, digest, width, height, "RGB", False, 0.0, ())


def enlarge(pixels: Pixels, resolution: int) -> Pixels:
    """Pillow's bicubic upscaling."""
    image = Image.fromarray(pixels.transpose(1, 2, 0))
    image = image.resize((resolution, resolution), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image).transpose(2, 0, 1))


def measure(samples: torch.Tensor, truth: torch.Tensor) -> Record:
    """Distances of samples [S, 3, R, R] to the truth [1, 3, R, R], and their diversity."""
    with torch.no_grad():
        distances = feature_distance(samples, truth)
    return {
        "psnr": psnr(samples, truth).tolist(),
        "psnr_mean": psnr(samples.mean(dim=0, keepdim=True), truth).item(),
        "feature_distance": distances.tolist(),
        "diversity": samples.std(dim=0, correction=0).mean().item(),
    }


def evaluate_bicubic(low: Pixels, truth: Pixels) -> Record:
    """Bicubic upscaling as one more method, with one sample."""
    started = time.perf_counter()
    image = to_tensor(enlarge(low, truth.shape[-1]))
    seconds = time.perf_counter() - started
    operator = make_operator(OPERATOR, low.shape[-1], truth.shape[-1])
    db = operator.lr_psnr(image.double(), to_tensor(low).double()).tolist()
    own = {"lr_psnr_search": db, "lr_psnr": db, "hr_rms_change": [0.0], "seconds": seconds}
    return own | measure(image, to_tensor(truth))


def evaluate_search(
    image: LowResImage, truth: Pixels, prior: Prior, method: str, options: argparse.Namespace
) -> Record:
    """Search one face with one method."""
    config = SearchConfig(
        samples=options.samples,
        batch=options.samples,
        seed=options.seed,
        method=method.removeprefix("strict-"),
        strict_pulse=method == "strict-pulse",
        steps=options.steps,
        operator=OPERATOR,
        device=options.device,
    )
    started = time.perf_counter()
    result = search_image(image, prior, config, range(options.samples))
    seconds = time.perf_counter() - started
    found = result.samples_list
    own = {
        key: [getattr(sample, key) for sample in found]
        for key in ("lr_psnr_search", "lr_psnr", "hr_rms_change", "steps")
    }
    return own | {"seconds": seconds} | measure(result.samples, to_tensor(truth))


def to_tensor(pixels: Pixels) -> torch.Tensor:
    """uint8 [3, h, w] to float32 [1, 3, h, w] in [0, 1]."""
    return torch.from_numpy(pixels).float()[None] / 255.0


def run_key(prior: Prior, options: argparse.Namespace) -> str:
    """What a finished record depends on beside face and method."""
    parts = (prior.sha256, options.scale, options.samples, options.steps, options.seed)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def read_records(path: Path, key: str) -> list[Record]:
    """The finished records of this run; a line that a crash cut short is left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if record["key"] == key:
            records.append(record)
    return records


def missing(
    faces: Sequence[Path], prior: Prior, options: argparse.Namespace, done: set[tuple[str, str]]
) -> Iterator[Record]:
    """Evaluates what is not done yet; yields one record per (face, method)."""
    for path in faces:
        methods = [m for m in ("bicubic", *options.methods) if (path.name, m) not in done]
        if not methods:
            continue
        truth = read_truth(path, prior.resolution)
        low = degrade(truth, OPERATOR, options.scale)
        for method in methods:
            record: Record = {"face": path.name, "method": method}
            try:
                if method == "bicubic":
                    record |= evaluate_bicubic(low, truth)
                else:
                    image = as_input(path.name, low)
                    record |= evaluate_search(image, truth, prior, method, options)
            except (PulseError, RuntimeError, ValueError) as error:
                record["error"] = f"{type(error).__name__}: {error}"
            yield record


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of HR faces")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, help="out.json; out.jsonl beside it"
    )
    parser.add_argument("--count", type=int, default=100, help="how many faces, in name order")
    parser.add_argument("--scale", type=int, default=8)
    parser.add_argument("--samples", type=int, default=2)
    parser.add_argument("--methods", default=",".join(METHODS), help="separated by commas")
    parser.add_argument("--prior", help="name or path; default: the bundled one")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args(arguments)
    options.methods = options.methods.split(",")
    unknown = sorted(set(options.methods) - set(METHODS))
    if unknown:
        parser.error(f"--methods: unknown {', '.join(unknown)}; known: {', '.join(METHODS)}")
    return options


def find_faces(folder: Path, count: int) -> list[Path]:
    """The first `count` pictures of a folder, by name."""
    kinds = {".jpg", ".jpeg", ".png"}
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in kinds)[:count]


def main(arguments: Sequence[str] | None = None) -> None:
    """Evaluate, write, print."""
    options = parse(arguments)
    prior = load_prior(options.prior, options.device)
    faces, key = find_faces(options.folder, options.count), run_key(prior, options)
    lines = options.out.with_suffix(".jsonl")
    wanted = {(path.name, method) for path in faces for method in ("bicubic", *options.methods)}
    records = [r for r in read_records(lines, key) if (r["face"], r["method"]) in wanted]
    done = {(r["face"], r["method"]) for r in records}
    with lines.open("a", encoding="utf-8") as file:
        file.write("\n")  # ends a line that a crash cut short
        for record in missing(faces, prior, options, done):
            records.append(record | {"key": key})
            file.write(json.dumps(records[-1]) + "\n")
            file.flush()
            print(
                f"{len(records)}/{len(wanted)} {record['face']} {record['method']}", file=sys.stderr
            )
    rows = aggregate(records)
    settings = {"prior": prior.name, "prior_sha256": prior.sha256, "resolution": prior.resolution}
    settings |= {k: getattr(options, k) for k in ("scale", "samples", "steps", "seed")}
    write_text_atomic(
        options.out, json.dumps({"settings": settings, "rows": rows}, indent=2) + "\n"
    )
    print(f"{markdown(rows)}\n\n{NOTE}")


if __name__ == "__main__":
    main()
