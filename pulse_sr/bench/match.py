"""`pulse-sr bench match`: how long until all samples of an input match it.

Ours (`phased` to its target) against what PULSE's eps asks for, by a plain form of the original's
loop and by our `--strict-pulse`. All sides run in one process, one step of each in turn.

Shapes: S samples, n low-res side.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from pulse_sr.bench.baseline import BaselineSearch
from pulse_sr.bench.frame import BASELINE, Progress, Report, Row, compared, report_of, timed
from pulse_sr.bench.options import MatchBench
from pulse_sr.bench.sides import low_res_target, prepared, start_of_baseline
from pulse_sr.config import DEFAULT_STEPS, SearchConfig
from pulse_sr.errors import UsageError
from pulse_sr.images.read import LowResImage
from pulse_sr.operators.base import Operator, psnr_of
from pulse_sr.operators.building import make_operator
from pulse_sr.priors.bank import bank_of
from pulse_sr.priors.base import Prior
from pulse_sr.priors.stylegan2 import StyleGAN2Prior
from pulse_sr.search.losses import mean_square
from pulse_sr.search.methods import Settings
from pulse_sr.search.records import Observed
from pulse_sr.search.samples import search_samples

#: LR-PSNR of PULSE's eps = 2e-3.
EPS_DB = 26.99
OURS, STRICT = "phased", "strict-pulse"

#: Each `next` is one step; yields the best LR-PSNR so far of every sample.
Side = Iterator[Sequence[float]]


@dataclass(frozen=True, eq=False)
class Input:
    """An input as all sides see it, made by `bicubic`: uint8 values in [0, 1], `[1, 3, n, n]`."""

    name: str
    target: torch.Tensor


@dataclass(frozen=True)
class Matched:
    """How a side came along with one input: `reached` samples have their target."""

    seconds: float
    steps: int
    reached: int


def bench_match(
    prior: Prior,
    images: Sequence[LowResImage] = (),
    options: MatchBench | None = None,
    progress: Progress = lambda text: None,
) -> Report:
    """Measure how long the samples of an input take to their target.

    A side ends with the step in which its last sample gets there, or with its last step. The time
    of `phased` includes the choice of its starts from the seed bank, which is there already.

    Args:
        prior: a StyleGAN2 prior.
        images: square low-res inputs; none: faces that the prior draws.
        options: how; the plain loop computes in float32 whatever the precision.
        progress: gets a line of text now and then.

    Returns:
        `ratio`, `rows` with `name, ours_s, baseline_s, ratio, ratio_range, ours_reached,
        baseline_reached` (medians over the inputs; how many samples of all got to their target) and
        `inputs` with the single numbers, and `environment`.

    Raises:
        UsageError: the prior is no StyleGAN2, or an input does not suit it.
    """
    options = options or MatchBench()
    prior, samples = prepared(prior, options.precision, "bench match"), options.samples
    inputs = [_read(prior, each) for each in images] or _drawn(prior, options.repeats)
    found = []
    for number, each in enumerate([inputs[0], *inputs]):  # the first one warms up
        progress(f"input {number}/{len(inputs)}" if number else "warm-up")
        found.append(_race(prior, each, samples))
    details = {
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "resolution": prior.resolution,
        "samples": samples,
        "inputs": [f"{each.name} ({each.target.shape[-1]} px)" for each in inputs],
    }
    return report_of(match_rows(found[1:], samples), prior.device, details)


def match_rows(found: Sequence[dict[str, Matched]], samples: int) -> list[Row]:
    """Ours against each of the other sides; `found` has the sides of every input."""
    rows = []
    for other in (BASELINE, STRICT):
        name = f"{OURS} to {_target_db(OURS):g} dB, {other} to {EPS_DB:g} dB"
        pairs = [(each[OURS], each[other]) for each in found]
        seconds = [[[each[side].seconds] for each in found] for side in (OURS, other)]
        row = compared(name, *seconds)
        row["ratio"] = statistics.median(theirs.seconds / ours.seconds for ours, theirs in pairs)
        for key, side in (("ours", OURS), ("baseline", other)):
            row[f"{key}_steps"] = statistics.median(each[side].steps for each in found)
            row[f"{key}_reached"] = sum(each[side].reached for each in found)
        row["samples"] = samples * len(found)
        row["inputs"] = [
            {"ours_s": ours.seconds, "baseline_s": theirs.seconds} for ours, theirs in pairs
        ]
        rows.append(row)
    return rows


def _read(prior: StyleGAN2Prior, image: LowResImage) -> Input:
    side = image.width
    if image.height != side or prior.resolution % side or side == prior.resolution:
        raise UsageError(
            f"{image.path} is {image.width} x {image.height}: bench match takes square images whose"
            f" side divides {prior.resolution}",
            "pulse-sr degrade makes them",
        )
    pixels = torch.from_numpy(image.pixels)[None].to(prior.device)
    return Input(image.path, pixels / 255)


def _drawn(prior: StyleGAN2Prior, count: int) -> list[Input]:
    low = [low_res_target(prior, seed) for seed in range(count)]
    return [Input(f"seed {k}", (255 * y).round() / 255) for k, y in enumerate(low)]


def _race(prior: StyleGAN2Prior, given: Input, samples: int) -> dict[str, Matched]:
    """All sides on one input, one step of each in turn until all have ended."""
    operator = make_operator("bicubic", given.target.shape[-1], prior.resolution)
    running = {
        OURS: _ours(prior, given, operator, samples, OURS),
        BASELINE: _baseline(prior, given, operator, samples),
        STRICT: _ours(prior, given, operator, samples, STRICT),
    }
    found = {side: Matched(0.0, 0, 0) for side in running}
    while running:
        for side, steps in list(running.items()):
            taken, best_db = timed(prior.device, partial(next, steps, None))
            seconds = found[side].seconds + taken
            if best_db is None:
                del running[side]
                continue
            reached = sum(db >= _target_db(side) for db in best_db)
            found[side] = Matched(seconds, found[side].steps + 1, reached)
            if reached == samples:
                del running[side]
    return found


def _target_db(side: str) -> float:
    return SearchConfig().target_db if side == OURS else EPS_DB


def _ours(prior: StyleGAN2Prior, given: Input, operator: Operator, samples: int, side: str) -> Side:
    strict = side == STRICT
    method = "pulse" if strict else side
    settings = Settings(method, strict, DEFAULT_STEPS[method], _target_db(side), samples, seed=0)
    observation = Observed(
        y=given.target[0],
        operator=operator,
        side=given.target.shape[-1],
        sha256=hashlib.sha256(given.name.encode()).hexdigest(),
        indices=range(samples),
    )
    bank = None if strict else bank_of(prior)
    best = [0.0] * samples
    for tick in search_samples(prior, [observation], settings, bank):
        for each in tick.running:
            best[each.job.index] = max(best[each.job.index], each.db)
        if tick.running:  # the last record of a strict search is no step
            yield best


def _baseline(prior: StyleGAN2Prior, given: Input, operator: Operator, samples: int) -> Side:
    start = start_of_baseline(prior, samples, seed=0)
    run = BaselineSearch(prior, given.target, *start, DEFAULT_STEPS["pulse"])
    best = torch.zeros(samples, device=prior.device)
    for _ in run.run():
        best = best.maximum(psnr_of(mean_square(operator(run.image.clamp(0, 1)) - given.target)))
        yield best.tolist()
