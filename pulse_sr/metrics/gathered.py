"""What is kept of every input for metrics of whole sets: rows of numbers, no images.

Memory for 2,000 inputs: 8 MB of features, and patches whose number is the same however many inputs
there are (310 MB at 128 px).

Shapes: N inputs, B blocks, P patches, K rings, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pulse_sr.metrics.case import Case
from pulse_sr.metrics.inception import inception_features, load_published
from pulse_sr.metrics.power_spectrum import spectral_profile
from pulse_sr.metrics.sliced_wasserstein import patch_sets, patches_per_image

#: What is kept of a result, and of its reference.
Pair = tuple[Sequence[Tensor], Sequence[Tensor]]
Gatherer = Callable[[Case], Pair]


@dataclass(frozen=True)
class Gathered:
    """What is kept of some images of one side.

    Attributes:
        kept: of each image, one tensor or one for each level.
        sizes: of each image, (H, W).
    """

    kept: Sequence[Sequence[Tensor]]
    sizes: Sequence[tuple[int, int]]

    @property
    def rows(self) -> Tensor:
        """One row an image, `[N, F]`."""
        return torch.stack([each[0] for each in self.kept])

    @property
    def blocks(self) -> Tensor:
        """Some rows an image, `[B, F]`."""
        return torch.cat([each[0] for each in self.kept])

    @property
    def levels(self) -> Iterator[Tensor]:
        """Some patches an image, `[P, C, 49]`, of images of one size, one level at a time."""
        return (torch.cat(level) for level in zip(*self.kept, strict=True))

    def of_one_size(self) -> Gathered:
        """Itself, for what compares only then.

        Raises:
            ValueError: images of different sizes.
        """
        sizes = sorted(set(self.sizes))
        if len(sizes) > 1:
            (h, w), (height, width) = sizes[0], sizes[-1]
            raise ValueError(f"it needs images of one size, there are {w}x{h} and {width}x{height}")
        return self


def gatherer(
    kind: str, count: int, seed: int, weights: Path | None, device: torch.device | str
) -> Gatherer:
    """Makes what keeps one kind of rows of an input: its first sample, and its truth.

    Args:
        kind: "features" (SqueezeNet's), "inception", "blocks" (NIQE's), "patches" or "profile".
        count: how many inputs there will be.
        seed: of the places of the patches.
        weights: folder of the weight files; None: torch hub's.
        device: of the networks.

    Raises:
        SetupError: the weights are missing or damaged.
    """
    if kind == "inception":
        return _by_inception(weights, device)
    if kind == "patches":
        return _patches(count, seed)
    return {"features": _by_squeezenet, "blocks": _blocks, "profile": _profile}[kind]


def _by_squeezenet(case: Case) -> Pair:
    return [case.seen.pooled], [case.seen.truth]


def _blocks(case: Case) -> Pair:
    return [case.niqe_features[0]], []


def _profile(case: Case) -> Pair:
    ours, theirs = spectral_profile(torch.stack([case.samples[0], case.truth]))
    return [ours], [theirs]


def _by_inception(weights: Path | None, device: torch.device | str) -> Gatherer:
    network = load_published(weights, device)

    def gather(case: Case) -> Pair:
        ours, theirs = inception_features(network, torch.stack([case.bytes[0], case.truth_bytes]))
        return [ours], [theirs]

    return gather


def _patches(count: int, seed: int) -> Gatherer:
    """Two sets that are compared take patches of different places."""
    per_image = patches_per_image(count)
    a, b = (torch.Generator().manual_seed(2 * seed + i) for i in (0, 1))
    stores = _Store(count), _Store(count)

    def gather(case: Case) -> Pair:
        ours = patch_sets(case.samples[:1].float(), per_image, a)
        theirs = patch_sets(case.truth[None].float(), per_image, b)
        return stores[0].put(ours), stores[1].put(theirs)

    return gather


class _Store:
    """Patches of so many images in one piece of memory a level.

    Thousands of small tensors, made between the large ones of the networks, would keep the
    allocator from giving memory back: twice as much as they hold.
    """

    def __init__(self, count: int) -> None:
        self._left, self._pieces = count, dict[tuple[int, ...], Iterator[Tensor]]()

    def put(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Copies the patches `[n, C, 49]` of the next image; returns where they are now."""
        places = []
        for i, level in enumerate(levels):
            key = (i, *level.shape)
            if key not in self._pieces:
                self._pieces[key] = iter(level.new_empty(self._left, *level.shape))
            places.append(next(self._pieces[key]).copy_(level))
        self._left -= 1
        return places
