"""What a classifier says of an enlarged image, as a loss (super-resolution of MNIST).

Shapes: N images, K classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Classifier = Callable[[Tensor], Tensor]


def classifier_loss(classifier: Classifier, enlarged: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the classes of enlarged images, a scalar.

    The gradient goes through the classifier into the images; the caller freezes its weights.

    Args:
        classifier: trained, in evaluation mode; images to logits `[N, K]`.
        enlarged: `[N, C, H, W]` in [0, 1].
        labels: int64 `[N]`, the true ones or `pseudo_labels`.
    """
    return F.cross_entropy(classifier(enlarged), labels)


def pseudo_labels(classifier: Classifier, images: Tensor) -> Tensor:
    """The likeliest class of each image, int64 `[N]`, where no true ones are known.

    Args:
        classifier: images to logits `[N, K]`.
        images: the high-resolution ones, `[N, C, H, W]` in [0, 1].
    """
    with torch.no_grad():
        return classifier(images).argmax(dim=1)


def published_classifier_loss(
    classifier: Classifier, enlarged: Tensor, originals: Tensor
) -> Tensor:
    """The loss in the form it was published in: without a gradient.

    The notebook of the MNIST work computes it within `torch.no_grad()`, from pseudo-labels. It
    changes what is logged and trains nothing; it is here to repeat those runs.

    Args:
        classifier: images to logits `[N, K]`.
        enlarged: `[N, C, H, W]` in [0, 1].
        originals: the high-resolution images of the same shape.
    """
    with torch.no_grad():
        return classifier_loss(classifier, enlarged, pseudo_labels(classifier, originals))
