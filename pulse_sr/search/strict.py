"""The original PULSE's own behaviour, without the repairs: the baseline of tables.

All samples of a batch come from one random stream, all run to the last step, and the last iterate
is kept, whatever came before.

Shapes: S samples, h w low-res.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from pulse_sr.operators.base import Operator
from pulse_sr.priors.base import Prior
from pulse_sr.search.engine import Last, search
from pulse_sr.search.latents import diagonal_map
from pulse_sr.search.pulse import Pulse
from pulse_sr.search.stream import Found, Running, Tick


def strict_pulse(
    prior: Prior,
    operator: Operator,
    target: torch.Tensor,
    seed: int,
    steps: int,
    tags: Sequence[Any],
    wanted: Sequence[bool],
) -> Iterator[Tick]:
    """Search one batch.

    Args:
        prior: the generator.
        operator: from high-res to low-res.
        target: what is known of the input, `[1, C, h, w]`.
        seed: of the batch.
        steps: of every sample.
        tags: of the samples, S of them.
        wanted: which of them are asked for; the others are searched all the same.
    """
    generators = [torch.Generator().manual_seed(seed)] * len(tags)
    method = Pulse.from_generators(prior, diagonal_map(prior.statistics), generators, steps)
    last = Last()
    asked = [slot for slot, each in enumerate(wanted) if each]
    for record in search(method, operator, target, last):
        best_db, db = record.best_db.tolist(), record.db.tolist()
        running = [
            Running(tags[slot], record.step, best_db[slot], record.images[slot], db[slot])
            for slot in asked
        ]
        yield Tick([], running, len(tags))
    finite = last.mse.isfinite().tolist()
    taken = (last.step + 1).tolist()
    images = [last.images[slot].float().cpu() if finite[slot] else None for slot in asked]
    found = [
        Found(tags[slot], image, taken[slot], 0) for slot, image in zip(asked, images, strict=True)
    ]
    yield Tick(found, [], len(tags))
