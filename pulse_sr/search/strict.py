"""The original PULSE's own behaviour, without the repairs: the baseline of tables.

All samples of a batch come from one random stream, all run to the last step, and the last iterate
is kept, whatever came before.

Shapes: S samples, h w low-res.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from pulse_sr.priors.base import Prior
from pulse_sr.search.engine import Last, Start, search, started
from pulse_sr.search.latents import diagonal_map
from pulse_sr.search.pulse import Pulse
from pulse_sr.search.records import Found, Observed, Running, SampleJob, Tick


def strict_pulse(
    prior: Prior,
    observation: Observed,
    target: torch.Tensor,
    seed: int,
    steps: int,
    members: Sequence[int],
) -> Iterator[Tick]:
    """Search one batch with one random stream.

    `members` are the indices of all its samples, S of them; of these only the `indices` of the
    observation come out. `target` is what its operator observes, `[1, C, h, w]`.
    """
    rng = torch.Generator().manual_seed(seed)
    method = Pulse.with_slots(prior, diagonal_map(prior.statistics), len(members), steps)
    started(method, [rng] * len(members), target)
    jobs = {
        slot: SampleJob(observation, index, seed, target, 0.0, lambda _: Start(rng, target))
        for slot, index in enumerate(members)
        if index in observation.indices
    }
    last = Last()
    for record in search(method, observation.operator, target, last):
        best_db, db = record.best_db.tolist(), record.db.tolist()
        running = [
            Running(job, record.step, best_db[slot], record.images[slot], db[slot])
            for slot, job in jobs.items()
        ]
        yield Tick([], running, len(members))
    finite, taken = last.mse.isfinite().tolist(), (last.step + 1).tolist()
    found = [
        Found(job, last.images[slot].float().cpu() if finite[slot] else None, taken[slot], 0)
        for slot, job in jobs.items()
    ]
    yield Tick(found, [], len(members))
