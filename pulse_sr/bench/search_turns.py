"""The sides of the search benchmark taking turns, within time and memory.

One step of each side in turn: whatever else the machine does falls on all of them alike. Where the
plain loop is slow it takes fewer turns, spread over the run; where its memory does not suffice for
as many samples, it searches fewer at once.
"""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass, replace
from functools import partial

import torch

from pulse_sr.bench.frame import BASELINE, Progress, Runs, timed
from pulse_sr.bench.sides import METHODS, begin
from pulse_sr.errors import SetupError
from pulse_sr.priors.stylegan2 import StyleGAN2Prior
from pulse_sr.search.capture import WARM_UP

#: Steps that the plain loop does even when the time is over.
_LEAST_BASELINE_STEPS = 2
#: On a GPU ours is recorded after its warm-up, and done from the record after that.
_FIRST_STEPS = WARM_UP + 2


@dataclass(frozen=True)
class Turns:
    """How much each side does.

    Attributes:
        samples: searched at once by our sides.
        steps: of our sides in a repeat.
        baseline_samples: searched at once by the plain loop; 0: it does not run.
        baseline_steps: of the plain loop in a repeat, at most `steps`.
        repeats: runs of each side.
        until: of `time.perf_counter`: what can be spared is not begun after it.
    """

    samples: int
    steps: int
    baseline_samples: int
    baseline_steps: int
    repeats: int
    until: float = math.inf

    @property
    def is_over(self) -> bool:
        """Whether the time is."""
        return time.perf_counter() > self.until

    @property
    def amounts(self) -> dict[str, tuple[int, int]]:
        """Samples and steps of every side that runs."""
        found = {side: (self.samples, self.steps) for side in METHODS}
        if self.baseline_samples:
            found[BASELINE] = self.baseline_samples, self.baseline_steps
        return found

    def is_turn(self, step: int, taken: int) -> bool:
        """Whether the plain loop, which has taken so many, takes a turn after our `step`."""
        if self.is_over and taken >= _LEAST_BASELINE_STEPS:
            return False
        return taken < (step + 1) * self.baseline_steps // self.steps


def fit_memory(prior: StyleGAN2Prior, turns: Turns, progress: Progress) -> Turns:
    """Warm up all sides, and find out how many samples the plain loop has memory for.

    Returns:
        The turns with as many `baseline_samples`: halved until all sides fit beside each other.

    Raises:
        SetupError: our own sides do not fit.
    """
    while True:
        progress("warm-up")
        first = replace(turns, steps=_FIRST_STEPS, baseline_steps=2, repeats=1)
        try:
            take_turns(prior, first, lambda text: None)
            return turns
        except torch.OutOfMemoryError as error:
            if not turns.baseline_samples:
                raise SetupError(
                    f"out of memory with {turns.samples} samples on {prior.device}",
                    "fewer --samples",
                ) from error
        # Out here the error is gone, and with it what its frames held.
        turns = replace(turns, baseline_samples=turns.baseline_samples // 2)
        give_back_device_memory()


def take_turns(prior: StyleGAN2Prior, turns: Turns, progress: Progress) -> dict[str, Runs]:
    """Run all sides, interleaved, every repeat from another start: the seconds of their steps."""
    times: dict[str, Runs] = {side: [] for side in turns.amounts}
    for repeat in range(turns.repeats):
        if repeat and turns.is_over:
            break
        running = {
            side: begin(side, prior, samples, turns.steps, repeat)
            for side, (samples, _) in turns.amounts.items()
        }
        for runs in times.values():
            runs.append([])
        for step in range(turns.steps):
            progress(f"repeat {repeat + 1}/{turns.repeats}, step {step + 1}/{turns.steps}")
            for side, run in running.items():
                taken = times[side][-1]
                if side != BASELINE or turns.is_turn(step, len(taken)):
                    taken.append(timed(prior.device, partial(next, run))[0])
    return times


def give_back_device_memory() -> None:
    """Leave the memory of the GPU to others: torch would keep what it once had."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
