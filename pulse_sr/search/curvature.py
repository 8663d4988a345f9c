"""How strongly a low-res image answers to each direction of the latent space, on average.

Langevin steps that are as long in every direction would have to be as short as the stiffest of them
allows. The mean Gauss-Newton matrix `M = E[J' J]` over the prior, J being the Jacobian of the
low-res image, tells how stiff each is. It costs no Jacobian: for a standard normal vector v of the
size of an observation, `J' v` is one backward pass, and `E[J' v v' J] = J' J` (Hutchinson, 1989).
That it is a mean over the prior and not taken where a chain stands keeps the metric constant, so
that Langevin steps with it need no correction term (Girolami and Calderhead, 2011, section 5); see
also Cui et al., "Likelihood-informed dimension reduction", 2014.

Shapes: K probes, L ws (the style vectors of W+), B their components, D latent width, N noise maps,
r map side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pulse_sr.devices import images_at_once
from pulse_sr.operators.base import Operator
from pulse_sr.priors.base import Prior
from pulse_sr.search.latents import LatentMap, draw_noise

_SEED = 40_000_000
_CHUNK, _CHUNK_PIXELS = 16, 2**21


@dataclass(frozen=True)
class Curvature:
    """Mean Gauss-Newton matrix of the low-res image, blocks on the diagonal alone.

    Attributes:
        values: eigenvalues of the block of each row component, `[B, D]`, not negative.
        vectors: its eigenvectors in columns, `[B, D, D]`.
        noise: the largest eigenvalue of each noise map's block, `[N]`.
    """

    values: torch.Tensor
    vectors: torch.Tensor
    noise: torch.Tensor


def ws_root(num_ws: int, correlation: float) -> torch.Tensor:
    """A root R of the correlation matrix of the ws, `R R' = (1 - c) I + c 1 1'`.

    The first column is what all ws have in common, the others are contrasts between a row and
    those before it (Helmert), the least important ones at the end of the generator. With
    correlation 1 the first column is all there is.

    Returns:
        `[L, B]`, B = L, or 1 for tied ws.
    """
    if correlation == 1:
        return torch.ones(num_ws, 1)
    basis = torch.zeros(num_ws, num_ws, dtype=torch.float64)
    basis[:, 0] = num_ws**-0.5
    for k in range(1, num_ws):
        basis[:k, k] = (k * (k + 1)) ** -0.5
        basis[k, k] = -k * (k * (k + 1)) ** -0.5
    variance = torch.full((num_ws,), 1 - correlation, dtype=torch.float64)
    variance[0] += num_ws * correlation
    return (basis * variance.sqrt()).float()


def mean_curvature(
    prior: Prior,
    to_style: LatentMap,
    operator: Operator,
    root: torch.Tensor,
    moved: Sequence[int],
    probes: int,
) -> Curvature:
    """Measure M over the prior; it depends on prior and operator, not on an input or a seed.

    Args:
        prior, to_style, operator: what the images come from.
        root: of the ws' correlation, `[L, B]` (`ws_root`).
        moved: indices of the noise maps that move.
        probes: K, one forward and one backward pass each; at least 2 D are taken, since directions
            that no probe saw would seem soft.
    """
    rng = torch.Generator().manual_seed(_SEED)
    probes = max(probes, 2 * prior.latent_dim)
    chunk = images_at_once(prior.resolution, _CHUNK, _CHUNK_PIXELS)
    parts: list[tuple[torch.Tensor, ...]] = []
    for start in range(0, probes, chunk):
        count = min(chunk, probes - start)
        parts.append(_probe(prior, to_style, operator, root, moved, [rng] * count))
    ws, *maps = (torch.cat(each) for each in zip(*parts, strict=True))
    blocks = torch.einsum("kbd,kbe->bde", ws, ws) / probes
    values, vectors = torch.linalg.eigh(blocks)
    noise = [_largest(each.flatten(1)) for each in maps]
    return Curvature(values.clamp_min(0), vectors, torch.tensor(noise, device=ws.device))


def _probe(
    prior: Prior,
    to_style: LatentMap,
    operator: Operator,
    root: torch.Tensor,
    moved: Sequence[int],
    rngs: Sequence[torch.Generator],
) -> tuple[torch.Tensor, ...]:
    """`J' v` at points of the prior, of the row components and of each moved noise map."""
    shape = (root.shape[1], prior.latent_dim)
    x = torch.stack([torch.randn(*shape, generator=g) for g in rngs]).to(prior.device)
    noise = [n.to(prior.device) for n in draw_noise(prior.noise_shapes, rngs)]
    variables = [x.requires_grad_(), *[noise[i].requires_grad_() for i in moved]]
    low = operator(prior.synthesize(to_style(torch.matmul(root, x)), noise))
    v = torch.stack([torch.randn(low.shape[1:], generator=g) for g in rngs]).to(low.device)
    return torch.autograd.grad(low, variables, v)


def _largest(probes: torch.Tensor) -> float:  # [K, n]
    """Largest eigenvalue of the mean of the outer products, by way of the smaller Gram matrix."""
    gram = probes @ probes.t() / len(probes)
    return float(torch.linalg.eigvalsh(gram)[-1].clamp_min(0))
