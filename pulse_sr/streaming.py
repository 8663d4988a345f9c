"""Many inputs through one stream of searches: each one posed, searched, projected, measured.

Inputs are taken when a slot is free, and given back as soon as their last sample is done: memory
does not grow with their number.

Shapes: H W high-res, h w low-res.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pulse_sr.config import SearchConfig
from pulse_sr.devices import choose_bf16, give_back_freed_memory, keep_freed_memory
from pulse_sr.errors import SetupError
from pulse_sr.images import LowResImage, to_uint8
from pulse_sr.operators import project_to_floor, project_to_noise
from pulse_sr.priors.bank import bank_of
from pulse_sr.priors.base import Prior
from pulse_sr.problem import Problem, pose_problem
from pulse_sr.result import Result, Sample, sample_status
from pulse_sr.search.capacity import automatic_slots
from pulse_sr.search.diagnostics import describe_chains
from pulse_sr.search.goals import Goal, search_goals
from pulse_sr.search.methods import Settings, uses_bank
from pulse_sr.search.sampling import (
    Candidate,
    OnStep,
    SearchProgress,
    candidate_of,
    check_found,
    progress_of,
    tell_steps,
)
from pulse_sr.search.stream import Found, Tick
from stylegan_ops import library


@dataclass(frozen=True, eq=False)
class Request:
    """An input to search.

    Attributes:
        image: the input as read.
        indices: which samples, from 0.
        tag: whatever the caller knows it by.
        on_step: called with every step of every sample.
    """

    image: LowResImage
    indices: Sequence[int]
    tag: Any = None
    on_step: OnStep | None = None


#: After so many inputs, freed memory goes back: its gaps would add up (docs/search.md).
_TRIM_EVERY = 8

#: An input and what became of it.
Outcome = tuple[Request, Result | Exception]


def search_images(
    requests: Iterable[Request],
    prior: Prior,
    config: SearchConfig,
    progress: Callable[[Request, SearchProgress], None] | None = None,
    samples: int | None = None,
) -> Iterator[Outcome]:
    """Search inputs, project and measure their samples.

    A sample is the same, to the bit on a CPU, whatever else is searched with it.

    Args:
        requests: taken one by one, when a slot asks for more.
        prior: the generator.
        config: the settings; the indices of the requests stand for its `samples`.
        progress: called after every step, for the input that has waited longest.
        samples: how many are asked for in all, for the choice of slots; None: many.

    Yields:
        each input when its last sample is done, with its result or with the error that stopped it:
        one bad input does not stop the others.

    Raises:
        SetupError: the device can not be used, or its memory does not suffice.
    """
    keep_freed_memory()
    prior.bf16 = choose_bf16(config.precision, prior.device)
    settings = Settings(
        method=config.method,
        strict=config.strict_pulse,
        steps=config.total_steps,
        target_db=config.target_db,
        slots=automatic_slots(prior, samples) if config.batch is None else config.batch,
        seed=config.seed,
    )
    bank = bank_of(prior) if uses_bank(settings.method) else None
    inputs = _Inputs(requests, prior, config)
    goals = inputs.goals()
    while not inputs.exhausted:
        try:
            clock = time.perf_counter()
            for tick in search_goals(prior, goals, settings, bank):
                inputs.take(tick, time.perf_counter() - clock)
                if progress is not None:
                    inputs.show(tick, progress)
                yield from inputs.finished()
                clock = time.perf_counter()
        except SetupError:
            raise
        except Exception as error:
            if not inputs.open:
                raise
            inputs.give_up(error)
        yield from inputs.finished()


class _Open:
    """An input that is being searched."""

    def __init__(self, request: Request, problem: Problem, prepare_s: float) -> None:
        self.request, self.problem = request, problem
        self.samples: dict[int, Sample] = {}
        self.traces: dict[int, torch.Tensor] = {}
        self.lost: list[Found] = []
        self.notes: list[str] = []
        self.slots = 0
        self.timing = {"prepare_s": prepare_s, "search_s": 0.0, "project_s": 0.0}
        fitted = problem.fitted
        self.goal = Goal(
            problem.operator,
            problem.target,
            fitted.side,
            request.image.sha256,
            request.indices,
            group=(problem.spec, fitted.side, fitted.rows, fitted.columns),
            target_db=problem.target_db,
            tag=self,
        )

    def take(self, found: Found) -> None:
        """Keep a sample that is done, projected and measured."""
        clock = time.perf_counter()
        candidate = candidate_of(found)
        if candidate is None:
            self.lost.append(found)
        else:
            self.samples[candidate.index] = finish(candidate, self.problem)
            if candidate.chain is not None:
                self.traces[candidate.index] = candidate.chain.trace
        if found.restarts:
            times = "once" if found.restarts == 1 else f"{found.restarts} times"
            index = found.tag.index
            self.notes.append(f"sample {index} was started again {times}: its loss was not finite")
        self.timing["project_s"] += time.perf_counter() - clock

    @property
    def done(self) -> int:
        """How many samples have left their slots."""
        return len(self.samples) + len(self.lost)

    def outcome(self, prior: Prior, config: SearchConfig) -> Result | Exception:
        """The result, or what is wrong with it."""
        try:
            check_found(self.lost)
            return self._result(prior, config)
        except Exception as error:
            return error

    def _result(self, prior: Prior, config: SearchConfig) -> Result:
        problem, fitted = self.problem, self.problem.fitted
        return Result(
            image=self.request.image,
            low_res=problem.pixels,
            side=fitted.side,
            rows=fitted.rows,
            columns=fitted.columns,
            operator_spec=problem.spec,
            operator_facts=problem.facts,
            projection=problem.projection,
            ok_db=problem.ok_db,
            scale=prior.resolution // fitted.side,
            prior_name=prior.name,
            prior_sha256=prior.sha256,
            resolution=prior.resolution,
            config=config,
            samples_list=tuple(self.samples[index] for index in self.request.indices),
            timing=self.timing,
            device=str(prior.device),
            torch_version=torch.__version__,
            ops=library.used_by_generators(prior.device.type),
            notes=(*problem.notes, *self.notes),
            slots=self.slots,
            diagnostics=self._diagnostics(),
        )

    def _diagnostics(self) -> dict[str, Any] | None:
        """Whether the chains of a sampler have mixed; None for the other methods."""
        if not self.traces:
            return None
        traces = [self.traces[index] for index in sorted(self.traces)]
        return {"samples": sorted(self.traces)} | describe_chains(torch.stack(traces))


class _Inputs:
    """The inputs of a stream: those that are open, and those that are done."""

    def __init__(self, requests: Iterable[Request], prior: Prior, config: SearchConfig) -> None:
        self.requests, self.prior, self.config = requests, prior, config
        self.open: list[_Open] = []
        self.outcomes: deque[Outcome] = deque()
        self.exhausted, self.ended = False, 0
        self.aside = 0.0

    def goals(self) -> Iterator[Goal]:
        """Pose the inputs, one when it is asked for."""
        try:
            yield from self._posed()
        finally:  # also where the requests end in an error: nothing more will come
            self.exhausted = True

    def _posed(self) -> Iterator[Goal]:
        clock = time.perf_counter()
        for request in self.requests:
            started = time.perf_counter()
            try:
                problem = pose_problem(request.image, self.prior, self.config)
                entry = _Open(request, problem, time.perf_counter() - started)
            except SetupError:
                raise
            except Exception as error:
                self.outcomes.append((request, error))
                continue
            self.open.append(entry)
            self.aside += time.perf_counter() - clock
            yield entry.goal
            clock = time.perf_counter()

    def take(self, tick: Tick, seconds: float) -> None:
        """Share the time of a step among the samples that were in it; keep those that are done."""
        share = max(0.0, seconds - self.aside) / max(1, len(tick.running))
        self.aside = 0.0
        for running in tick.running:
            entry = running.tag.goal.tag
            entry.timing["search_s"] += share
            if entry.request.on_step is not None:
                tell_steps([running], entry.request.on_step)
        for found in tick.found:
            entry = found.tag.goal.tag
            entry.slots = tick.slots
            entry.take(found)

    def show(self, tick: Tick, progress: Callable[[Request, SearchProgress], None]) -> None:
        """Report the input that has waited longest."""
        if self.open:
            first = self.open[0]
            steps = self.config.total_steps
            progress(first.request, progress_of(first.goal, tick.running, steps, first.done))

    def give_up(self, error: Exception) -> None:
        """End all open inputs with the error that ended their search."""
        self.outcomes.extend((entry.request, error) for entry in self.open)
        self.open.clear()

    def finished(self) -> Iterator[Outcome]:
        """Hand out what is done."""
        for entry in [each for each in self.open if each.done == len(each.request.indices)]:
            self.open.remove(entry)
            self.outcomes.append((entry.request, entry.outcome(self.prior, self.config)))
            self.ended += 1
            if self.ended % _TRIM_EVERY == 0:
                give_back_freed_memory()
            del entry.goal  # a cycle would keep the samples until the garbage is looked through
        while self.outcomes:
            yield self.outcomes.popleft()


def finish(candidate: Candidate, problem: Problem) -> Sample:
    """Project a candidate, round it to 8 bits, and measure it before and after."""
    operator, target = problem.operator, problem.target
    before = candidate.image.double()
    if problem.projection == "exact":
        after = project_to_floor(operator, before[None], target)[0]
    elif problem.projection == "soft":
        after = project_to_noise(operator, before, target, problem.noise_variance)
    else:
        after = before
    rounded_before, pixels = to_uint8(before.numpy()), to_uint8(after.numpy())
    written = torch.from_numpy(pixels / 255.0)
    lr_psnr = operator.lr_psnr(written, target).item()
    return Sample(
        index=candidate.index,
        seed=candidate.seed,
        status=sample_status(lr_psnr, problem.ok_db),
        steps=candidate.steps,
        lr_psnr_search=operator.lr_psnr(torch.from_numpy(rounded_before / 255.0), target).item(),
        lr_psnr=lr_psnr,
        hr_rms_change=(written - before).square().mean().sqrt().item(),
        pixels=pixels,
        sigma=None if candidate.chain is None else candidate.chain.sigma,
    )
