"""Have the chains of a sampler mixed? Split R-hat and effective sample size.

Both in the rank-normalised form of Vehtari, Gelman, Simpson, Carpenter and Bürkner, "Rank-
normalization, folding, and localization: an improved R-hat for assessing convergence of MCMC"
(Bayesian Analysis 16, 2021). They suggest to trust samples with R-hat below 1.01 and an effective
size above 100 for each chain.

All in float64. Shapes: C chains, T draws of each, K quantities.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

#: Draws below which halves of a chain say nothing.
LEAST_DRAWS = 4


def split_r_hat(draws: Tensor) -> float:
    """Rank-normalised split R-hat of one quantity (Vehtari et al., 2021, section 4.1).

    The greater of the R-hat of the rank-normalised draws, which sees chains of other means, and of
    the folded ones, which sees chains of other spreads. 1 where all chains agree, infinite where
    they are constants that differ.

    Args:
        draws: `[C, T]`, T at least 4; C may be 1.

    Raises:
        ValueError: another shape, or too few draws.
    """
    halves = _split(draws)
    folded = (halves - halves.median()).abs()
    return max(plain_r_hat(rank_normalised(halves)), plain_r_hat(rank_normalised(folded)))


def plain_r_hat(draws: Tensor) -> float:
    """R-hat of Gelman and Rubin (1992) as Vehtari et al. write it (equations 1 to 4).

    Args:
        draws: `[C, T]`, at least two of each.
    """
    draws = draws.double()
    length = draws.shape[1]
    within = draws.var(dim=1).mean()
    between = length * draws.mean(dim=1).var()
    if within == 0:
        return float("inf") if between > 0 else 1.0
    return float((((length - 1) / length * within + between / length) / within).sqrt())


def effective_sample_size(draws: Tensor) -> float:
    """How many independent draws tell as much about the mean: the bulk effective sample size.

    `C T / tau`, with tau the integrated autocorrelation over all halves of chains of the
    rank-normalised draws, cut off by Geyer's initial monotone sequence (equations 10 to 13). Chains
    that disagree have a small one. At most `C T log10(C T)`.

    Args:
        draws: `[C, T]`, T at least 4; C may be 1.

    Raises:
        ValueError: another shape, or too few draws.
    """
    z = rank_normalised(_split(draws))
    count, length = z.shape
    if float(z.var(dim=1).sum()) == 0:
        return float(count * length) if float(z.var()) == 0 else float(count)
    covariance = _autocovariance(z)  # [C, T]
    within = covariance[:, 0].mean() * length / (length - 1)
    pooled = within * (length - 1) / length + z.mean(dim=1).var()
    correlation = 1 - (within - covariance.mean(dim=0) * length / (length - 1)) / pooled
    tau = _integrated_time(correlation)
    total = count * length
    return total / max(tau, 1 / torch.tensor(float(total)).log10().item())


def rank_normalised(draws: Tensor) -> Tensor:
    """Normal scores of the ranks over all chains (equation 14); ties share their mean rank."""
    flat = draws.double().flatten()
    _, place, counts = flat.unique(return_inverse=True, return_counts=True)
    last = counts.cumsum(dim=0).double()
    ranks = (last - (counts - 1) / 2)[place]
    return torch.special.ndtri((ranks - 0.375) / (flat.numel() + 0.25)).view(draws.shape)


def describe_chains(traces: Tensor) -> dict[str, Any]:
    """What a record says about the chains of one input.

    Args:
        traces: `[C, T, K]`: the low-res error, then principal coordinates
            (`pulse_sr.search.engine.Chain`).

    Returns:
        `draws` (T), `r_hat` and `ess`, each with `residual` (a number) and `coordinates` (K - 1
        numbers), or None where there are too few draws; None for what is not finite.
    """
    if traces.shape[1] < LEAST_DRAWS:
        return {"draws": traces.shape[1], "r_hat": None, "ess": None}
    quantities = traces.double().unbind(dim=2)
    r_hat = [_finite(split_r_hat(each)) for each in quantities]
    ess = [_finite(effective_sample_size(each)) for each in quantities]
    return {
        "draws": traces.shape[1],
        "r_hat": {"residual": r_hat[0], "coordinates": r_hat[1:]},
        "ess": {"residual": ess[0], "coordinates": ess[1:]},
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _split(draws: Tensor) -> Tensor:
    """The halves of all chains, `[2 C, T // 2]`; the middle draw of an odd number is left out."""
    if draws.dim() != 2 or draws.shape[1] < LEAST_DRAWS or not len(draws):
        raise ValueError(f"expected draws [C, T >= {LEAST_DRAWS}], got {tuple(draws.shape)}")
    half = draws.shape[1] // 2
    return torch.cat([draws[:, :half], draws[:, -half:]]).double()


def _autocovariance(z: Tensor) -> Tensor:  # [C, T] -> [C, T], biased: divided by T
    length = z.shape[1]
    spectrum = torch.fft.rfft(z - z.mean(dim=1, keepdim=True), n=2 * length)
    return torch.fft.irfft(spectrum.abs().square(), n=2 * length)[:, :length] / length


def _integrated_time(correlation: Tensor) -> float:
    """`-1 + 2 sum` over the pairs of neighbours, as long as they are positive and falling."""
    even = len(correlation) // 2 * 2
    pairs = correlation[:even].view(-1, 2).sum(dim=1)
    negative = (pairs <= 0).nonzero()
    pairs = pairs[: int(negative[0])] if len(negative) else pairs
    if not len(pairs):
        return 1.0
    return float(2 * pairs.cummin(dim=0).values.sum() - 1)
