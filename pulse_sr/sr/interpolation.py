"""Network interpolation: between the sharp and the faithful of two trainings of one network.

Wang et al., "ESRGAN", ECCVW 2018, section 3.4, equation 4.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pulse_sr.errors import UsageError


def interpolate_networks(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], alpha: float
) -> dict[str, Tensor]:
    """`(1 - alpha) start + alpha end` of the state dicts of two networks of one shape.

    Args:
        start: of the network trained for PSNR.
        end: of the network trained adversarially, from the first.
        alpha: 0 gives `start`, 1 gives `end`; 0.8 is the paper's demonstration.

    Returns:
        new tensors, in the dtype of `start`; what is no floating point number (counters of batch
        normalisation) is that of `end`.

    Raises:
        UsageError: for an alpha outside [0, 1], or when names or shapes differ.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"interpolation at {alpha:g}, expected a number from 0 to 1")
    unshared = sorted(start.keys() ^ end.keys())
    differing = [key for key in start.keys() & end.keys() if start[key].shape != end[key].shape]
    for key in [*unshared, *sorted(differing)]:
        raise UsageError(
            f"the two networks differ in {key}",
            "interpolate between two trainings of one network, the second from the first",
        )
    return {
        key: start[key].lerp(end[key].to(start[key].dtype), alpha)
        if start[key].is_floating_point()
        else end[key].clone()
        for key in start
    }
