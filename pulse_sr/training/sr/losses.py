"""The losses that a recipe can name, between enlarged patches and the true ones.

Some look through networks whose weights are files of the user's (`pulse_sr.sr.backbones`).

Shapes: n patches, P side of a patch; images in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

from pulse_sr.errors import SetupError, UsageError, first_line
from pulse_sr.files.tensors import UNREADABLE, read_tensors
from pulse_sr.metrics.squeezenet import feature_distance
from pulse_sr.options import suggest
from pulse_sr.sr.backbones import default_folder
from pulse_sr.sr.digit_classifier import DigitClassifier
from pulse_sr.sr.losses.content import charbonnier, dssim, total_variation
from pulse_sr.sr.losses.frequency import (
    dct_loss,
    fft_loss,
    focal_frequency_loss,
    relative_distance,
    spectral_loss,
)
from pulse_sr.sr.losses.labels import classifier_loss, pseudo_labels, published_classifier_loss
from pulse_sr.sr.losses.perceptual import PERCEPTUAL, VGGLoss
from pulse_sr.sr.spectrum import grey_of

#: (enlarged, true), both `[n, 3, P, P]`, to a scalar.
Content = Callable[[Tensor, Tensor], Tensor]


def _variation(enlarged: Tensor, true: Tensor) -> Tensor:
    return total_variation(enlarged)


def _squeezenet(enlarged: Tensor, true: Tensor) -> Tensor:
    """`feature_distance` of patches of any size as they are."""
    return feature_distance(enlarged, true, least_side=1).mean()


#: By the name in a recipe; "fft" sees the spectrum, "fft-l2" is "relative-l2" by another way.
PLAIN: Mapping[str, Content] = {
    "l1": F.l1_loss,
    "mse": F.mse_loss,
    "charbonnier": charbonnier,
    "relative-l2": partial(relative_distance, norm="l2"),
    "squeezenet": _squeezenet,
    "tv": _variation,
    "dssim": dssim,
    "fft": fft_loss,
    "fft-l2": partial(fft_loss, norm="l2"),
    "fft-magnitude": partial(fft_loss, spectrum="magnitude"),
    "fft-log": partial(fft_loss, spectrum="log"),
    "dct": dct_loss,
    "spectral": spectral_loss,
    "focal-frequency": focal_frequency_loss,
}

#: A loss that sees patches of this side sees all larger ones.
_ENOUGH = 256
#: File of the classifier's weights, in the folder of those of the other networks.
DIGITS_NAME = "digit_classifier.safetensors"


class DigitLoss(nn.Module):
    """Cross entropy of the digit that a classifier sees in the true patch (MNIST, 28 px).

    Args:
        folder: of the weights; None: torch hub's.
        published: without a gradient, as the notebook of the MNIST work has it.

    Raises:
        SetupError: the weights are missing or damaged.
    """

    def __init__(self, folder: Path | None = None, published: bool = False) -> None:
        super().__init__()
        path = (folder or default_folder()) / DIGITS_NAME
        self.classifier, self.published = DigitClassifier(), published
        try:
            self.classifier.load_state_dict(read_tensors(path))
        except (*UNREADABLE, RuntimeError) as error:
            raise SetupError(
                f"the digit classifier {path} can not be read ({first_line(error)})",
                "train it with scripts/train_digit_classifier.py",
            ) from error
        self.classifier.eval().requires_grad_(False)

    def forward(self, enlarged: Tensor, true: Tensor) -> Tensor:
        seen, known = (grey_of(images)[:, None] for images in (enlarged, true))
        if self.published:
            return published_classifier_loss(self.classifier, seen, known)
        return classifier_loss(self.classifier, seen, pseudo_labels(self.classifier, known))


#: Losses that look through a network; each takes the folder of its weights.
NETWORKS: Mapping[str, Callable[[Path | None], nn.Module]] = {
    **PERCEPTUAL,
    "vgg34": lambda folder: VGGLoss("relu3_4", F.l1_loss, 1.0, folder),
    "digits": DigitLoss,
    "digits-published": partial(DigitLoss, published=True),
}


def check_name(name: str) -> None:
    """Accept the name of a loss.

    Raises:
        UsageError: there is no such loss.
    """
    if name not in PLAIN and name not in NETWORKS:
        raise UsageError(f"no loss {name!r}", suggest(name, [*PLAIN, *NETWORKS]))


def check_patch(name: str, loss: Content, side: int, device: torch.device | str = "cpu") -> None:
    """Accept a size of patches that a loss can see: some have a window, or halve several times.

    Args:
        name: of the loss.
        loss: on its device.
        side: of the patches.
        device: where it computes.

    Raises:
        UsageError: it can not.
    """
    side = min(side, _ENOUGH)
    patches = torch.zeros(1, 3, side, side, device=device)
    try:
        with torch.no_grad():
            loss(patches, patches)
    except (RuntimeError, ValueError) as error:
        raise UsageError(
            f"loss {name} can not see patches of {side} px ({first_line(error)})",
            "see patch of the recipe",
        ) from error


def build_loss(name: str, folder: Path | None, device: torch.device) -> Content:
    """A loss on its device.

    Args:
        name: out of `PLAIN` or `NETWORKS`.
        folder: of the weights of networks; None: torch hub's.
        device: where it computes.

    Raises:
        SetupError: weights are missing or damaged.
    """
    if name in PLAIN:
        return PLAIN[name]
    return NETWORKS[name](folder).to(device)
