"""Scores of a prior against the images it learns from.

The same number of samples and of training images; the scores are a function of the prior, the
images and the settings alone. Features of the training images are computed once and kept in the run
folder under a name made from the pixels.

Shapes: N images, R resolution.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pulse_sr.data.decode import decode_files
from pulse_sr.data.open import open_source
from pulse_sr.data.sources import ImageSource
from pulse_sr.devices import images_at_once
from pulse_sr.errors import InputError, UsageError
from pulse_sr.files.digest import file_sha256
from pulse_sr.files.tensors import UNREADABLE, read_tensors, write_tensors
from pulse_sr.metrics.feature_networks import NETWORKS, FeatureNetwork, judge_of
from pulse_sr.metrics.image_set import Features, ImageSet, compare
from pulse_sr.metrics.inception import load_inception
from pulse_sr.metrics.neighbours import USUAL_SHARE, TrainingImages, memorisation
from pulse_sr.priors.base import Prior

#: Seed of the first scored sample; the grids show the seeds below.
FIRST_SEED = 1000
COPY_SHARE = "nearer to a training image than 95 % of others"
COPY_RATIO = "distance to nearest training image / that of others"
#: So many images at most say how far others lie from their nearest training image.
MOST_OTHERS = 1000

_REFERENCE_SEED, _SAMPLE_SEED = 0, 1
_CHUNK_PIXELS = 64 * 64**2
#: What the header of a file of features is called.
_CACHED = "pulse-sr-features"


@dataclass(frozen=True)
class Scores:
    """What was measured.

    Attributes:
        values: score by its exact name.
        distances: `[N]` of each image to its nearest training image, in the order of the seeds.
    """

    values: dict[str, float]
    distances: Tensor


@dataclass
class Scorer:
    """Scores priors against the same images.

    Attributes:
        images: the training images, uint8 `[N, 3, R, R]`.
        samples: how many samples and how many training images are compared.
        mirror: whether mirrored training images count as training images.
        held_back: images that were not trained on, uint8 `[M, 3, R, R]`.
        inception: TorchScript file for FID and KID.
        cache: folder to keep features in.
        device: where the features are computed.
        network: by whose features.
    """

    images: np.ndarray
    samples: int
    mirror: bool = True
    held_back: np.ndarray | None = None
    inception: Path | None = None
    cache: Path | None = None
    device: torch.device | str = "cpu"
    network: FeatureNetwork = NETWORKS["squeezenet"]
    references: int = field(init=False)
    training: TrainingImages = field(init=False)

    def __post_init__(self) -> None:
        if self.samples < 10:
            raise UsageError(
                f"{self.samples} samples can not be scored, expected 10 or more",
                "give at least a few hundred, or 0 for no scores",
            )
        path = self.inception
        self._inception = None if path is None else load_inception(path, self.device)
        self._inception_key = "" if path is None else file_sha256(path)
        self.training = TrainingImages(self.images, self.mirror)
        chosen = evenly(len(self.images), self.samples)
        self.references = len(chosen)
        self._reference = self._measure_known(self.images[chosen], _REFERENCE_SEED)
        self._others = self._usual_distances()

    @property
    def others(self) -> str:
        """What the distances of samples to training images are compared with, in words."""
        if self.held_back is None:
            return "training images (to the nearest other one)"
        return "held-back images"

    @property
    def threshold(self) -> float:
        """Samples nearer to a training image than this are nearer than 95 % of the others."""
        return float(self._others.double().quantile(USUAL_SHARE))

    def score(self, prior: Prior) -> Scores:
        """Score uncurated samples of a prior of the same resolution, seeds from `FIRST_SEED`.

        Raises:
            UsageError: when the prior learned from the features that would judge it.
        """
        judge_of(prior.card.get("trained_with", []), self.network.name)
        return self.score_images(sample_chunks(prior, self.samples))

    def score_images(self, chunks: Iterable[Tensor]) -> Scores:
        """Score as many images as `samples`, uint8 `[n, 3, R, R]` a chunk."""
        found = ImageSet(self.samples, _SAMPLE_SEED, self._inception, network=self.network)
        distances = []
        for chunk in chunks:
            found.add(chunk)
            distances.append(self.training.nearest(chunk).distances[:, 0])
        nearest = torch.cat(distances)
        values = compare(found, self._reference, self.images.shape[-1])
        copied = memorisation(nearest, self._others)
        return Scores(values | {COPY_SHARE: copied.share, COPY_RATIO: copied.ratio}, nearest)

    def reference_scores(self) -> tuple[str, dict[str, float]] | None:
        """What other real images reach, with their name: held-back ones, or training images that
        are not among the references; None where there are not enough of those."""
        if self.held_back is not None:
            images = self.held_back[evenly(len(self.held_back), self.samples)]
            what = "held-back images"
        else:
            chosen = evenly(len(self.images), self.samples)
            rest = np.setdiff1d(np.arange(len(self.images)), chosen)
            if len(rest) < self.samples:
                return None
            images = self.images[rest[evenly(len(rest), self.samples)]]
            what = "other training images"
        found = self._measure_known(images, _SAMPLE_SEED)
        values = compare(found, self._reference, self.images.shape[-1])
        return f"{len(images):,} {what}", values

    def _usual_distances(self) -> Tensor:
        """Of held-back images, or of training images to the nearest other one."""
        images = self.images if self.held_back is None else self.held_back
        chosen = torch.from_numpy(evenly(len(images), MOST_OTHERS))
        distances = []
        for places in chosen.split(images_at_once(images.shape[-1], 64, _CHUNK_PIXELS)):
            queries = torch.from_numpy(np.array(images[places.numpy()]))
            exclude = places if self.held_back is None else None
            distances.append(self.training.nearest(queries, exclude=exclude).distances[:, 0])
        return torch.cat(distances)

    def _measure_known(self, images: np.ndarray, seed: int) -> ImageSet:
        known = self._read_features(images)
        found = ImageSet(len(images), seed, self._inception, known, self.network)
        for chunk in image_chunks(images, self.device):
            found.add(chunk)
        if known is None and self.cache is not None:
            write_tensors(self._cache_file(images), found.features, _CACHED, self.network.name)
        return found

    def _read_features(self, images: np.ndarray) -> Features | None:
        if self.cache is None:
            return None
        try:
            return read_tensors(self._cache_file(images))
        except UNREADABLE:
            return None  # none yet, or damaged: computed again

    def _cache_file(self, images: np.ndarray) -> Path:
        assert self.cache is not None  # the callers ask first
        key = hashlib.sha256(
            f"{self.network.name} 1, {self._inception_key}, {images.shape}".encode()
        )
        key.update(np.ascontiguousarray(images).data)
        return self.cache / f"features-{key.hexdigest()[:16]}.safetensors"


def evenly(total: int, count: int) -> np.ndarray:
    """Places of at most `count` of `total` things, evenly spread and ascending."""
    count = min(total, count)
    return np.arange(count) * total // count


def read_images(
    data: str | Path, side: int, count: int | None = None, member: str | None = None
) -> np.ndarray:
    """Images of a folder or of archives, uint8 `[N, 3, R, R]`, squared and resized by Lanczos.

    Args:
        data: as `open_source` takes it.
        side: R.
        count: how many, evenly chosen; None: all.
        member: as `open_source` takes it.

    Raises:
        UsageError: when there is no such thing, or it holds fewer than two images.
        InputError: when an image can not be read.
    """
    source = open_two_or_more(data, member)
    names = source.names
    places = range(len(names)) if count is None else evenly(len(names), count).tolist()
    found = {}
    for place, image in decode_files(source, side, positions=places):
        if image.pixels is None:
            raise InputError(f"{names[place]} in {data}: {image.reason}", "remove it")
        found[place] = image.pixels
    return np.stack([found[place] for place in places])


def open_two_or_more(data: str | Path, member: str | None = None) -> ImageSource:
    """What `open_source` finds, if it is enough for a comparison.

    Raises:
        UsageError: when there is no such thing, or it holds fewer than two images.
    """
    source = open_source(data, member)
    count = len(source.names)
    if count < 2:
        raise UsageError(f"{data} holds {count} images, expected two or more", "add some")
    return source


def sample_chunks(prior: Prior, count: int) -> Iterator[Tensor]:
    """Uncurated samples as they would be saved, uint8 `[n, 3, R, R]` on the prior's device."""
    step = images_at_once(prior.resolution, 64, _CHUNK_PIXELS)
    for start in range(FIRST_SEED, FIRST_SEED + count, step):
        seeds = range(start, min(start + step, FIRST_SEED + count))
        yield (prior.sample(seeds) * 255).round().byte()


def image_chunks(images: np.ndarray, device: torch.device | str) -> Iterator[Tensor]:
    """Images `[N, 3, R, R]` as uint8 tensors `[n, 3, R, R]`."""
    step = images_at_once(images.shape[-1], 64, _CHUNK_PIXELS)
    for start in range(0, len(images), step):
        yield torch.from_numpy(np.array(images[start : start + step])).to(device)
