"""The classifier of handwritten digits that a super-resolution of MNIST is judged and taught by.

Shapes: N images.
"""

from __future__ import annotations

import torch.nn as nn
from torch import Tensor

from pulse_sr.sr.srresnet import conv3

SIDE = 28
CLASSES = 10


class DigitClassifier(nn.Module):
    """Convolutions of 32, 64, 128 channels with two poolings, then dense layers of 128, 64, 10.

    The CNN of the MNIST super-resolution with a classifier loss.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv3(1, 32),
            nn.ReLU(inplace=True),
            conv3(32, 64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            conv3(64, 128),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(128 * (SIDE // 4) ** 2, 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, 64),
            nn.ReLU(inplace=True),
            nn.Linear(64, CLASSES),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Class logits `[N, 10]` of grey images `[N, 1, 28, 28]` in [0, 1]."""
        y: Tensor = self.classifier(self.features(images).flatten(1))
        return y
