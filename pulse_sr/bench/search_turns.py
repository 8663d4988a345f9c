"""The sides of the search benchmark taking turns, within time and memory.

One step of each side in turn: whatever else the machine does falls on all of them alike. Where the
plain loop is slow it takes fewer turns, spread over the run; where its memory does not suffice for
as many samples, it searches fewer at once.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from pulse_sr.bench.sides import BASELINE, METHODS, begin, synchronize
from pulse_sr.errors import SetupError
from pulse_sr.priors.stylegan2 import StyleGAN2Prior
from pulse_sr.search.capture import WARM_UP

#: `times[side][repeat]` are the seconds of every step; without a plain loop it has no such side.
Times = dict[str, list[list[float]]]
Progress = Callable[[str], None]

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

    def is_turn(self, step: int, taken: int) -> bool:
        """Whether the plain loop, which has taken so many, takes a turn after our `step`."""
        if not self.baseline_samples or (self.is_over and taken >= _LEAST_BASELINE_STEPS):
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
        try:
            take_turns(prior, replace(turns, steps=_FIRST_STEPS, baseline_steps=2, repeats=1))
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


def take_turns(
    prior: StyleGAN2Prior, turns: Turns, progress: Progress = lambda text: None
) -> Times:
    """Run all sides, interleaved, every repeat from another start."""
    times: Times = {side: [] for side in METHODS}
    if turns.baseline_samples:
        times[BASELINE] = []
    for repeat in range(turns.repeats):
        if repeat and turns.is_over:
            break
        taken = _one_repeat(prior, turns, repeat, progress)
        for side, runs in times.items():
            runs.append(taken[side])
    return times


def _one_repeat(
    prior: StyleGAN2Prior, turns: Turns, repeat: int, progress: Progress
) -> dict[str, list[float]]:
    running = {side: begin(side, prior, turns.samples, turns.steps, repeat) for side in METHODS}
    if turns.baseline_samples:
        running[BASELINE] = begin(BASELINE, prior, turns.baseline_samples, turns.steps, repeat)
    taken: dict[str, list[float]] = {side: [] for side in running}
    for step in range(turns.steps):
        progress(f"repeat {repeat + 1}/{turns.repeats}, step {step + 1}/{turns.steps}")
        for side, run in running.items():
            if side == BASELINE and not turns.is_turn(step, len(taken[side])):
                continue
            synchronize(prior.device)
            clock = time.perf_counter()
            next(run)
            synchronize(prior.device)
            taken[side].append(time.perf_counter() - clock)
    return taken


def give_back_device_memory() -> None:
    """Leave the memory of the GPU to others: torch would keep what it once had."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
