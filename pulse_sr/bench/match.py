"""`pulse-sr bench match`: how long until all samples of an input match it.

Ours (`phased` to its target) against what PULSE's eps asks for, by a plain form of the original's
loop and by our `--strict-pulse`. All sides run in one process, one step of each in turn.

Shapes: S samples, n low-res side.
"""

from __future__ import annotations

import hashlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pulse_sr.bench.baseline import BaselineSearch
from pulse_sr.bench.environment import describe_machine
from pulse_sr.bench.options import MatchBench
from pulse_sr.bench.sides import BASELINE, low_res_target, start_of_baseline, synchronize
from pulse_sr.config import DEFAULT_STEPS, SearchConfig
from pulse_sr.devices import choose_bf16, keep_freed_memory
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

Report = dict[str, Any]
Row = dict[str, Any]
#: Each `next` is one step; yields the best LR-PSNR so far of every sample.
Side = Iterator[Sequence[float]]


@dataclass(frozen=True, eq=False)
class Input:
    """An input as all sides see it: uint8 values in [0, 1], `[1, 3, n, n]`."""

    name: str
    target: torch.Tensor
    operator: Operator

    @classmethod
    def of(cls, prior: StyleGAN2Prior, name: str, target: torch.Tensor) -> Input:
        """The input that `bicubic` makes of a face of the prior's resolution."""
        return cls(name, target, make_operator("bicubic", target.shape[-1], prior.resolution))


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
    progress: Callable[[str], None] = lambda text: None,
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
    if not isinstance(prior, StyleGAN2Prior):
        raise UsageError("bench match needs a StyleGAN2 prior", "--prior NAME|PATH")
    options = options or MatchBench()
    samples = options.samples
    keep_freed_memory()
    prior = prior.in_precision(bf16=choose_bf16(options.precision, prior.device))
    inputs = [_read(prior, each) for each in images] or _drawn(prior, options.repeats)
    found = []
    for number, each in enumerate([inputs[0], *inputs]):  # the first one warms up
        progress(f"input {number}/{len(inputs)}" if number else "warm-up")
        found.append(_race(prior, each, samples))
    rows = match_rows(found[1:], samples)
    environment = describe_machine(prior.device) | {
        "prior": prior.name,
        "prior_sha256": prior.sha256,
        "resolution": prior.resolution,
        "samples": samples,
        "inputs": [f"{each.name} ({each.target.shape[-1]} px)" for each in inputs],
    }
    return {"ratio": rows[0]["ratio"], "rows": rows, "environment": environment}


def match_rows(found: Sequence[dict[str, Matched]], samples: int) -> list[Row]:
    """Ours against each of the other sides; `found` has the sides of every input."""
    rows = []
    for other in (BASELINE, STRICT):
        ratios = [each[other].seconds / each[OURS].seconds for each in found]
        row: Row = {"name": f"{OURS} to {_target_db(OURS):g} dB, {other} to {EPS_DB:g} dB"}
        for key, side in (("ours", OURS), ("baseline", other)):
            row[f"{key}_s"] = statistics.median(each[side].seconds for each in found)
            row[f"{key}_steps"] = statistics.median(each[side].steps for each in found)
            row[f"{key}_reached"] = sum(each[side].reached for each in found)
        row["samples"] = samples * len(found)
        row["ratio"] = statistics.median(ratios)
        row["ratio_range"] = [min(ratios), max(ratios)]
        row["inputs"] = [
            {"ours_s": each[OURS].seconds, "baseline_s": each[other].seconds} for each in found
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
    return Input.of(prior, image.path, pixels / 255)


def _drawn(prior: StyleGAN2Prior, count: int) -> list[Input]:
    low = [low_res_target(prior, seed) for seed in range(count)]
    return [Input.of(prior, f"seed {k}", (255 * y).round() / 255) for k, y in enumerate(low)]


def _race(prior: StyleGAN2Prior, given: Input, samples: int) -> dict[str, Matched]:
    """All sides on one input, one step of each in turn until all have ended."""
    running = {
        OURS: _ours(prior, given, samples, OURS),
        BASELINE: _baseline(prior, given, samples),
        STRICT: _ours(prior, given, samples, STRICT),
    }
    found = {side: Matched(0.0, 0, 0) for side in running}
    while running:
        for side, steps in list(running.items()):
            synchronize(prior.device)
            clock = time.perf_counter()
            best_db = next(steps, None)
            synchronize(prior.device)
            seconds = found[side].seconds + time.perf_counter() - clock
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


def _ours(prior: StyleGAN2Prior, given: Input, samples: int, side: str) -> Side:
    strict = side == STRICT
    method = "pulse" if strict else side
    settings = Settings(method, strict, DEFAULT_STEPS[method], _target_db(side), samples, seed=0)
    sha256 = hashlib.sha256(given.name.encode()).hexdigest()
    low = given.target.shape[-1]
    observation = Observed(
        y=given.target[0],
        operator=given.operator,
        side=low,
        sha256=sha256,
        indices=range(samples),
    )
    bank = None if strict else bank_of(prior)
    best = [0.0] * samples
    for tick in search_samples(prior, [observation], settings, bank):
        for each in tick.running:
            best[each.job.index] = max(best[each.job.index], each.db)
        if tick.running:  # the last record of a strict search is no step
            yield best


def _baseline(prior: StyleGAN2Prior, given: Input, samples: int) -> Side:
    start = start_of_baseline(prior, samples, seed=0)
    run = BaselineSearch(prior, given.target, *start, DEFAULT_STEPS["pulse"])
    best = torch.zeros(samples, device=prior.device)
    for _ in run.run():
        low = given.operator(run.image.clamp(0, 1))
        best = best.maximum(psnr_of(mean_square(low - given.target)))
        yield best.tolist()
