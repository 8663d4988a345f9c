"""How often the interval of a few samples holds the true pixel, for faces that the prior drew.

    python scripts/bench/coverage.py -o coverage.json --first 2 --count 3 --samples 8 --side 16
    python scripts/bench/coverage.py -o rows.json --method langevin --set ws_correlation=0.8

Truth, prior and operator are known: y = uint8(A G(z)). Two intervals are measured over all pixel
values of the written samples (8 bits, after the projection) and of the searched ones:

* *90 %*: mean +- t s sqrt(1 + 1 / S), t the 95 % point of Student's t with S - 1 degrees of
  freedom: the prediction interval of one more draw of a normal distribution, for any S >= 2.
* *range*: from the least to the greatest sample. One more draw of whatever distribution lies in it
  in (S - 1) / (S + 1) of all cases; from 19 samples on that is 90 %.

`--truth model` draws the faces from the model that `langevin` assumes (rows with a correlation, in
the Gaussian style space) instead of the generator's own samples: an exact sampler of that model
would be exactly right there, so what is missing is the sampler's, and the rest the model's.

A pixel of the truth stands for its rounding cell of half a grey level to either side. Faces 0 and 1
chose most constants of `langevin`, faces 2 to 7 have been used to compare the others
(docs/langevin.md); `--first 8` leaves them all out.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import scipy.stats
import torch
from search_inputs import Face, drawn_faces, observed, sha256_of, to_tensor

from pulse_sr.api import load_prior
from pulse_sr.config import DEFAULT_STEPS
from pulse_sr.devices import keep_freed_memory
from pulse_sr.files.atomic import write_atomic
from pulse_sr.files.documents import json_bytes, json_text
from pulse_sr.images.pixels import to_uint8
from pulse_sr.metrics.psnr import psnr
from pulse_sr.operators.base import Operator
from pulse_sr.operators.building import make_operator
from pulse_sr.operators.degrading import degrade
from pulse_sr.operators.projection import project_to_rounding_limit
from pulse_sr.priors.bank import draw_bank
from pulse_sr.priors.base import Prior, SeedBank
from pulse_sr.search.curvature import ws_root
from pulse_sr.search.diagnostics import describe_chains
from pulse_sr.search.engine import Last, search, started
from pulse_sr.search.langevin import Langevin, LangevinSettings
from pulse_sr.search.latents import draw_noise, full_map
from pulse_sr.search.methods import METHODS, Settings
from pulse_sr.search.samples import find_samples, sample_seed

HALF_LEVEL = 0.5 / 255
MODEL_SEED = 50_000_000
TARGET_DB = 38.0


def coverage(samples: torch.Tensor, truth: torch.Tensor) -> dict[str, float]:
    """Shares of the pixel values of the truth `[3, R, R]` that two intervals hold.

    Args:
        samples: `[S, 3, R, R]`, S at least 2, in [0, 1].
        truth: in [0, 1].
    """
    count = len(samples)
    mean, deviation = samples.mean(dim=0), samples.std(dim=0)
    factor = scipy.stats.t.ppf(0.95, count - 1) * math.sqrt(1 + 1 / count)
    low, high = samples.amin(dim=0) - HALF_LEVEL, samples.amax(dim=0) + HALF_LEVEL
    inside = (truth - mean).abs() <= factor * deviation + HALF_LEVEL
    return {
        "interval_90": inside.double().mean().item(),
        "range": ((truth >= low) & (truth <= high)).double().mean().item(),
        "range_promised": (count - 1) / (count + 1),
        "psnr": psnr(samples, truth[None]).mean().item(),
        "psnr_mean": psnr(mean[None], truth[None]).item(),
        "pixel_std": deviation.mean().item(),
    }


def model_faces(prior: Prior, correlation: float, count: int) -> Iterator[Face]:
    """Faces drawn from the model of `langevin`."""
    root, to_style = ws_root(prior.num_ws, correlation), full_map(prior.statistics)
    for seed in range(MODEL_SEED, MODEL_SEED + count):
        rng = torch.Generator().manual_seed(seed)
        rows = root @ torch.randn(root.shape[1], prior.latent_dim, generator=rng)
        noise = draw_noise(prior.noise_shapes, [rng])
        with torch.no_grad():
            image = prior.synthesize(to_style(rows[None]), noise)[0]
        yield Face(f"model {seed}", to_uint8(image.double().clamp(0, 1).numpy()))


def sample_langevin(
    prior: Prior, operator: Operator, low: Any, method: Langevin, options: argparse.Namespace
) -> tuple[torch.Tensor, dict[str, Any]]:
    """The last iterates of S chains, and what their diagnostics say."""
    target, best = operator.observe(to_tensor(low)), Last()
    seeds = [sample_seed(options.seed, sha256_of(low), k) for k in range(options.samples)]
    started(method, [torch.Generator().manual_seed(seed) for seed in seeds], target)
    for _ in search(method, operator, target, best):
        pass
    traces = torch.stack([method.chain(slot).trace for slot in range(options.samples)])
    return best.images, describe_chains(traces) | {"sigmas": method.sigmas.tolist()}


def sample_search(
    prior: Prior, operator: Operator, low: Any, bank: SeedBank, options: argparse.Namespace
) -> tuple[torch.Tensor, dict[str, Any]]:
    """What a method of the search finds, before the projection."""
    settings = Settings(
        method=options.method,
        strict=False,
        steps=options.steps or DEFAULT_STEPS[options.method],
        target_db=TARGET_DB,
        slots=options.samples,
        seed=options.seed,
    )
    found = find_samples(prior, observed(low, operator, options.samples), settings, bank)
    return torch.stack([each.image for each in found]), {}


def evaluate(
    face: Face, prior: Prior, operator: Operator, shared: Any, options: argparse.Namespace
) -> dict[str, Any]:
    """One face: samples before and after the projection against the truth."""
    low = degrade(face.truth, options.operator, prior.resolution // options.side)
    sample = sample_langevin if options.method == "langevin" else sample_search
    started = time.process_time()
    images, facts = sample(prior, operator, low, shared, options)
    seconds = time.process_time() - started
    target, truth = to_tensor(low)[0].double(), to_tensor(face.truth)[0].double()
    images = images.double()
    written = project_to_rounding_limit(operator, images, target)
    rounded = (images * 255).round() / 255
    return {
        "face": face.name,
        "searched": coverage(rounded, truth),
        "written": coverage(written, truth),
        "lr_psnr_search": operator.lr_psnr(rounded, target).tolist(),
        "cpu_seconds": seconds,
    } | facts


def summary(records: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means over the faces; the deviation of the coverage over the faces."""
    covered = [r["written"]["interval_90"] for r in records]
    found = {f"{key}": statistics.fmean(r["written"][key] for r in records)
             for key in records[0]["written"]}  # fmt: skip
    found["interval_90_searched"] = statistics.fmean(r["searched"]["interval_90"] for r in records)
    found["interval_90_deviation"] = statistics.stdev(covered) if len(covered) > 1 else math.nan
    found["lr_psnr_search"] = statistics.median(db for r in records for db in r["lr_psnr_search"])
    found["cpu_seconds"] = statistics.fmean(r["cpu_seconds"] for r in records)
    return found


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--method", default="langevin", choices=tuple(METHODS))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--count", type=int, default=4, help="how many faces")
    parser.add_argument("--first", type=int, default=0, help="leave out so many faces")
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--side", type=int, default=16, help="of the low-res input")
    parser.add_argument("--operator", default="bicubic")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--truth", default="prior", choices=("prior", "model"))
    parser.add_argument("--prior", help="name or path; default: the bundled one")
    options = parser.parse_args(arguments)
    try:
        changes = {key: float(value) for key, value in (s.split("=") for s in options.set)}
        if "probes" in changes:
            changes["probes"] = int(changes["probes"])
        options.langevin = LangevinSettings(**changes)
    except (TypeError, ValueError) as error:
        known = ", ".join(each.name for each in dataclasses.fields(LangevinSettings))
        parser.error(f"--set KEY=VALUE: {error}; known: {known}")
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, write, print."""
    options = parse(arguments)
    keep_freed_memory()
    prior = load_prior(options.prior, "cpu")
    operator = make_operator(options.operator, options.side, prior.resolution)
    shared: Any
    if options.method == "langevin":
        to_style, steps = full_map(prior.statistics), options.steps or DEFAULT_STEPS["langevin"]
        shared = Langevin.with_slots(
            prior, to_style, operator, options.side, options.samples, steps, options.langevin
        )
    else:
        shared = draw_bank(prior)
    records = []
    wanted = options.first + options.count
    if options.truth == "model":
        faces = model_faces(prior, options.langevin.ws_correlation, wanted)
    else:
        faces = drawn_faces(prior, wanted)
    for face in islice(faces, options.first, None):
        records.append(evaluate(face, prior, operator, shared, options))
        print(json_text(records[-1]), file=sys.stderr)
    settings = {k: str(v) for k, v in vars(options).items()} | {"prior_sha256": prior.sha256}
    document = {"settings": settings, "summary": summary(records), "faces": records}
    write_atomic(options.out, json_bytes(document))
    print(json_text(document["summary"], indent=2))


if __name__ == "__main__":
    main()
