"""Which samples of the seed bank a search starts from.

Every bank sample is compared with the input by its thumbnail, enlarged and put through the true
operator: whatever that does, both sides of the comparison have seen it. Then the bank is shuffled
by the seed and the input and cut into shares of equal size: a sample of the search gets a share
and takes what comes nearest to the input in it. So samples differ, and the start of one depends on
nothing but the seed, the input and its own index. Samples with the same share, where there are
more of them than shares, take what is next nearest in it.

Shapes: N bank samples, s thumbnail side, S samples, K candidates of a sample, D latent width.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F

from pulse_sr.devices import images_at_once
from pulse_sr.operators.base import Operator
from pulse_sr.priors.base import LatentStatistics, Prior, SeedBank
from pulse_sr.search.losses import mean_square

_CHUNK, _CHUNK_PIXELS = 256, 2**20
#: What the operator sees of a bank is kept for the next input up to this size.
_KEPT_BYTES = 2**26


class ShuffledBank:
    """The seed bank as one input sees it, shuffled by one seed and cut into shares."""

    def __init__(
        self, prior: Prior, bank: SeedBank, errors: torch.Tensor, seed: int, share: int
    ) -> None:
        """Shuffle by `seed`; `errors` `[N]` says how far each thumbnail is from the input.

        A sample of the search chooses from `share` bank samples.
        """
        self.prior, self.bank, self.errors = prior, bank, errors
        self.share = min(share, len(errors))
        rng = torch.Generator().manual_seed(seed)
        self.order = torch.randperm(len(errors), generator=rng)

    @torch.no_grad()
    def candidates(self, member: int, count: int) -> torch.Tensor:
        """Latents of the bank samples nearest to the input in a member's share, `[K, D]`.

        K is `count`, or all of a share that is smaller; the nearest comes first.
        """
        turn, place = divmod(member, len(self.order) // self.share)
        share = self.order[place * self.share :][: self.share]
        ranks = (turn * count + torch.arange(min(count, self.share))) % self.share
        chosen = share[self.errors[share].argsort(stable=True)[ranks]]
        z = self.bank.latents(chosen, self.prior.z_dim).to(self.prior.device)
        return latent_of(self.prior.statistics, self.prior.map(z))


class SeenBank:
    """A seed bank as an operator sees it, compared with one input after the other.

    Each thumbnail is enlarged (bilinear) to the prior's resolution and put through the operator:
    blurring, cropping, masking and loss of colour are taken care of by the operator itself. JPEG
    files on the way are left out: they change less than a thumbnail does, and cost far more time.
    """

    def __init__(self, bank: SeedBank, operator: Operator, resolution: int) -> None:
        """Nothing is computed before the first comparison."""
        self.bank, self.operator, self.resolution = bank, operator, resolution
        self._kept: list[torch.Tensor] = []

    @torch.no_grad()
    def errors(self, target: torch.Tensor) -> torch.Tensor:
        """How far the thumbnails are from an input, mean squared, `[N]` on the CPU.

        Args:
            target: the observation `[1, C, h, w]`, as `operator` gives it of one image; of the same
                shape and device in every call.
        """
        keep = len(self.bank.thumbnails) * target.nbytes <= _KEPT_BYTES
        if keep and not self._kept:
            self._kept = list(self._seen(target.device))
        seen = self._kept if keep else self._seen(target.device)
        return torch.cat([mean_square(part - target) for part in seen]).cpu()

    def _seen(self, device: torch.device) -> Iterator[torch.Tensor]:  # [n, C, h, w] each
        chunk = images_at_once(self.resolution, _CHUNK, _CHUNK_PIXELS)
        for part in self.bank.thumbnails.split(chunk):
            small, size = part.to(device).float() / 255, self.resolution
            images = F.interpolate(small, size=size, mode="bilinear", align_corners=False)
            yield self.operator.linear(images)


def latent_of(statistics: LatentStatistics, w: torch.Tensor) -> torch.Tensor:
    """The inverse of `pulse_sr.search.latents.full_map`: styles `[K, D]` to latents `[K, D]`."""
    v = F.leaky_relu(w, 1 / statistics.slope) - statistics.mean
    return torch.linalg.solve_triangular(statistics.cholesky, v.t(), upper=False).t()
