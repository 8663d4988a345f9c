"""A stream of samples through a fixed number of slots.

A sample that has reached its target, or its last step, leaves, and the next one takes its slot at
once. The number of slots stays as it is to the end, so that every kernel always sees the same
shapes: what becomes of a sample then depends neither on its slot nor on which are in the others.

Shapes: S slots, H W high-res, h w low-res, C channels of the observation.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from pulse_sr.operators.base import Operator
from pulse_sr.search.engine import Best, Last, Look, Method, Sampler, SlotStep
from pulse_sr.search.records import Found, Running, SampleJob, Tick

#: How often a sample is started again after a loss that was not finite.
RESTARTS = 3


class _Slots:
    """Which sample is in which slot, at which step."""

    def __init__(self, method: Method, operator: Operator) -> None:
        first = method.variables()[0]
        count = len(first)
        self.jobs: list[SampleJob | None] = [None] * count
        self.steps, self.restarts = [0] * count, [0] * count
        self.unstarted: list[int] = []
        self.target_mse = torch.zeros(count, device=first.device)
        self.method = method
        self.best = Last() if isinstance(method, Sampler) else Best(self.target_mse)
        self.step = SlotStep(method, operator, self.best)

    def fill(self, jobs: Iterator[SampleJob]) -> bool:
        """Give free slots to the next jobs, start what is to be started; False: all are idle."""
        fresh = []
        for slot, current in enumerate(self.jobs):
            if current is None and (job := next(jobs, None)) is not None:
                self._place(slot, job)
                fresh.append(slot)
        self.best.start(fresh)
        self._start(sorted({*fresh, *self.unstarted}))
        self.unstarted = []
        return any(job is not None for job in self.jobs)

    def _place(self, slot: int, job: SampleJob) -> None:
        if not self.step.target.numel():
            self.step.target = job.target.new_zeros(len(self.jobs), *job.target.shape[1:])
        self.jobs[slot], self.restarts[slot] = job, 0
        self.step.target[slot] = job.target[0]
        self.target_mse[slot] = job.target_mse

    def _start(self, slots: list[int]) -> None:
        if not slots:
            return
        starts = []
        for slot in slots:
            job = self.jobs[slot]
            assert job is not None  # only occupied slots are started
            starts.append(job.start(self.restarts[slot]))
            self.steps[slot] = 0
        self.method.start(slots, starts)
        self.step.forget(slots)

    def look(self) -> tuple[Tick, Look]:
        """Judge all samples; those that are done leave. Also returns what `move` asks for."""
        # Who leaves or starts again is not known yet: moving those has no effect (`SlotStep`).
        seen = self.step.look(self.steps, [job is not None for job in self.jobs])
        found, running = [], []
        for slot, (good, frozen, best_db, db) in enumerate(seen.facts.t().tolist()):
            job, step = self.jobs[slot], self.steps[slot]
            if job is None:
                continue
            running.append(Running(job, step, best_db, seen.images[slot], db))
            if not good and not frozen and self.restarts[slot] < RESTARTS:
                self.restarts[slot] += 1
                self.unstarted.append(slot)
            elif frozen or not good or step + 1 >= self.method.steps:
                found.append(self._leave(slot, job))
        return Tick(found, running, len(self.jobs)), seen

    def _leave(self, slot: int, job: SampleJob) -> Found:
        self.jobs[slot] = None
        image = None
        if bool(self.best.mse[slot].isfinite()):
            # A copy: the slot's own memory goes to the next sample.
            image = self.best.images[slot].to("cpu", torch.float32, copy=True)
        method = self.method
        chain = method.chain(slot) if isinstance(method, Sampler) else None
        return Found(job, image, int(self.best.step[slot]) + 1, self.restarts[slot], chain)

    def move(self, seen: Look) -> None:
        """One update of everyone who stays."""
        moving = [
            job is not None and slot not in self.unstarted for slot, job in enumerate(self.jobs)
        ]
        if any(moving):
            self.step.move(seen)
            self.steps = [step + moves for step, moves in zip(self.steps, moving, strict=True)]


def stream(method: Method, operator: Operator, jobs: Iterator[SampleJob]) -> Iterator[Tick]:
    """Search all jobs, yielding a record of every step.

    Args:
        method: the variables of S slots; what is in them is overwritten.
        operator: from high-res to low-res, the same for all jobs.
        jobs: asked for the next one when a slot is free, and never before.
    """
    slots = _Slots(method, operator)
    while slots.fill(jobs):
        tick, seen = slots.look()
        yield tick
        slots.move(seen)
        del tick, seen  # or what the last images were computed from would outlive the step
