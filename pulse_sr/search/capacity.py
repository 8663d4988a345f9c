"""How many samples are searched at once when nobody says so.

On a CPU the prior's resolution alone decides: more of them bring nothing there, and the bits of a
sample may depend on it. A GPU takes as many as its memory and the work allow.
"""

from __future__ import annotations

import torch

from pulse_sr.config import DEFAULT_SLOTS
from pulse_sr.priors.base import Prior

#: Most slots that are chosen; beyond it a GPU is busy anyway.
MOST_SLOTS = 64
#: Up to this resolution a CPU has `DEFAULT_SLOTS`, above it as many as take the same memory: a
#: StyleGAN2 of 1024 px keeps 2 GB of activations a sample.
_CPU_SIDE = 256
#: Share of the free memory that may be used.
_SHARE = 0.7
_PROBE = 2


def automatic_slots(prior: Prior, samples: int | None = None) -> int:
    """Slots for a search of so many samples in all (None: many) with this prior on its device."""
    if prior.device.type != "cuda":
        return max(1, min(DEFAULT_SLOTS, DEFAULT_SLOTS * _CPU_SIDE**2 // prior.resolution**2))
    free, _ = torch.cuda.mem_get_info(prior.device)
    kept = torch.cuda.memory_reserved(prior.device) - torch.cuda.memory_allocated(prior.device)
    return slots_within(_SHARE * (free + kept), _bytes_of_slot(prior), samples)


def slots_within(memory: float, each: float, samples: int | None = None) -> int:
    """The power of two of slots of `each` bytes that fits `memory` and is no more than needed.

    Never more than `MOST_SLOTS`; `DEFAULT_SLOTS` or fewer where there are no more samples.
    """
    wanted = MOST_SLOTS if samples is None else min(samples, MOST_SLOTS)
    slots = DEFAULT_SLOTS
    while slots < wanted and 2 * slots * each <= memory:
        slots *= 2
    while slots > 1 and slots * each > memory:
        slots //= 2
    return slots


def _bytes_of_slot(prior: Prior) -> float:
    """What one more sample adds to the peak of a step, measured: images and gradients."""
    before = torch.cuda.memory_allocated(prior.device)
    torch.cuda.reset_peak_memory_stats(prior.device)
    shape = (_PROBE, prior.num_ws, prior.latent_dim)
    w = torch.zeros(*shape, device=prior.device, requires_grad=True)
    noise = [torch.zeros(_PROBE, 1, *s, device=prior.device) for s in prior.noise_shapes]
    torch.autograd.grad(prior.synthesize(w, noise).sum(), w)
    return (torch.cuda.max_memory_allocated(prior.device) - before) / _PROBE
