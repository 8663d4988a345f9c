"""What two sets of images are compared by, gathered a chunk of images at a time.

Kept of an image: its features and some patches. The images themselves are not kept.

Shapes: N images, R resolution.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pulse_sr.metrics.diversity import PairwiseDistance
from pulse_sr.metrics.feature_networks import NETWORKS, FeatureNetwork
from pulse_sr.metrics.frechet import frechet_distance
from pulse_sr.metrics.inception import inception_features
from pulse_sr.metrics.kernel import kernel_distance
from pulse_sr.metrics.manifold import precision_recall
from pulse_sr.metrics.sliced_wasserstein import patch_sets, patches_per_image, sliced_wasserstein

FRECHETS = {name: f"Fréchet ({each.title})" for name, each in NETWORKS.items()}
KERNELS = {name: f"kernel x 1000 ({each.title})" for name, each in NETWORKS.items()}
PRECISIONS = {name: f"precision ({each.title})" for name, each in NETWORKS.items()}
RECALLS = {name: f"recall ({each.title})" for name, each in NETWORKS.items()}
#: The names of the scores by the usual network.
FRECHET, KERNEL = FRECHETS["squeezenet"], KERNELS["squeezenet"]
PRECISION, RECALL = PRECISIONS["squeezenet"], RECALLS["squeezenet"]
SLICED = "sliced Wasserstein x 1000"
SPREAD = "spread / that of the training images"
INCEPTION_FRECHET, INCEPTION_KERNEL = "FID", "KID x 1000"

#: Features by the name of their network, `[N, F]` each.
Features = dict[str, Tensor]


class ImageSet:
    """Features, patches and spread of a set of images.

    Attributes:
        count: how many images are expected.
        spread: their pairwise distance in pixels.
    """

    def __init__(
        self,
        count: int,
        seed: int,
        inception: torch.jit.ScriptModule | None = None,
        known: Features | None = None,
        network: FeatureNetwork = NETWORKS["squeezenet"],
    ) -> None:
        """Begin an empty set.

        Args:
            count: how many images will be added.
            seed: of the places of the patches; two sets that are compared take different ones.
            inception: network of the user's for FID and KID.
            known: the features of the images, where they have been computed before.
            network: whose features are taken.
        """
        self.count, self.spread = count, PairwiseDistance()
        self._inception, self._known, self._network = inception, known, network
        self._rng = torch.Generator().manual_seed(seed)
        self._features: list[Features] = []
        self._patches: list[list[Tensor]] = []

    def add(self, images: Tensor) -> None:
        """Take in the next images, uint8 `[n, 3, R, R]` on any device."""
        pixels = images.float() / 255
        self.spread.add(pixels)
        self._patches.append(patch_sets(pixels, patches_per_image(self.count), self._rng))
        if self._known is None:
            found = {self._network.name: self._network.pooled(pixels).cpu()}
            if self._inception is not None:
                found["inception"] = inception_features(self._inception, images)
            self._features.append(found)

    @property
    def features(self) -> Features:
        """The features of all images."""
        if self._known is not None:
            return self._known
        names = self._features[0]
        return {name: torch.cat([each[name] for each in self._features]) for name in names}

    @property
    def patches(self) -> list[Tensor]:
        """The patches of all images, a tensor for each level of the pyramid."""
        return [torch.cat(level) for level in zip(*self._patches, strict=True)]


def compare(images: ImageSet, reference: ImageSet, resolution: int) -> dict[str, float]:
    """All distances of a set of images to a set of training images, by their exact names.

    Their names say which network judged; the Fréchet distance by it comes first. FID and KID are
    among them only where both sets were made with the Inception network.
    """
    ours, theirs = images.features, reference.features
    network = next(name for name in NETWORKS if name in ours)
    a, b = ours[network], theirs[network]
    found = {
        FRECHETS[network]: frechet_distance(a, b),
        KERNELS[network]: 1000 * kernel_distance(a, b),
    }
    levels = sliced_wasserstein(images.patches, reference.patches)
    found |= {f"{SLICED}, {resolution >> i} px": value for i, value in enumerate(levels)}
    found[f"{SLICED}, mean"] = sum(levels) / len(levels)
    found[PRECISIONS[network]], found[RECALLS[network]] = precision_recall(a, b)
    found[SPREAD] = images.spread.value() / max(reference.spread.value(), 1e-12)
    if "inception" in ours and "inception" in theirs:
        a, b = ours["inception"], theirs["inception"]
        found[INCEPTION_FRECHET] = frechet_distance(a, b)
        found[INCEPTION_KERNEL] = 1000 * kernel_distance(a, b)
    return found
