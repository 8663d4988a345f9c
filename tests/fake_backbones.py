"""Weight files of the ImageNet networks with made-up numbers, the same on every machine."""

from __future__ import annotations

import torch
from torchvision.models import alexnet
from torchvision.models.vgg import cfgs, make_layers


def made_up(tensors):
    """Uniform numbers from an integer hash of their place, of the size of He's initialisation.

    Args:
        tensors: by name, of a module whose weights are replaced.
    """
    found = {}
    for layer, (name, tensor) in enumerate(tensors.items()):
        place = torch.arange(tensor.numel(), dtype=torch.int64) + 7919 * layer
        place = (place ^ (place >> 7)) * 2654435761 % 2**32
        place = (place ^ (place >> 13)) * 2246822519 % 2**32
        uniform = (place.double() / 2**32 - 0.5).view(tensor.shape)
        fan_in = tensor[0].numel() if tensor.dim() > 1 else 1e4
        found[name] = ((24 / fan_in) ** 0.5 * uniform).float()
    return found


def features_of(title):
    """Names and numbers of a network's `features`."""
    with torch.device("meta"):
        if title == "AlexNet":
            layers = alexnet().features
        else:
            layers = make_layers(cfgs[{"VGG-16": "D", "VGG-19": "E"}[title]], batch_norm=False)
    return {f"features.{k}": v for k, v in made_up(layers.state_dict()).items()}
