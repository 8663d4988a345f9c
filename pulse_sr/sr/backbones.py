"""ImageNet networks that losses look through: weight files of the user's, found and checked.

pulse-sr carries none of them and downloads none. They are the files of torchvision (Simonyan and
Zisserman, ICLR 2015; Krizhevsky et al., NeurIPS 2012), under the names that torchvision and `lpips`
keep them by, so that a folder these have filled will do.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.errors import PulseError, SetupError
from pulse_sr.files.checkpoints import read_checkpoint

#: Mean and deviation that the networks expect red, green and blue in [0, 1] to be normalised by.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightFile:
    """A published file.

    Attributes:
        title: what the network is called.
        name: of the file; its last part begins the sha256, the rest of which is not published.
        megabytes: its size.
        layers: torchvision's configuration of the VGG; empty: no VGG.
    """

    title: str
    name: str
    megabytes: int
    layers: str = ""

    @property
    def url(self) -> str:
        return f"https://download.pytorch.org/models/{self.name}"

    @property
    def sha256(self) -> str:
        """The first eight digits."""
        return self.name.removesuffix(".pth").rsplit("-", 1)[1]


VGG19 = WeightFile("VGG-19", "vgg19-dcbb9e9d.pth", 575, "E")
VGG16 = WeightFile("VGG-16", "vgg16-397923af.pth", 553, "D")
ALEXNET = WeightFile("AlexNet", "alexnet-owt-7be5be79.pth", 244)


def default_folder() -> Path:
    """Where torchvision and `lpips` keep weights: torch hub's `checkpoints`."""
    return Path(torch.hub.get_dir()) / "checkpoints"


def find_weights(file: WeightFile, folder: Path | None = None) -> Path:
    """The path of a weight file, which is the published one.

    Args:
        file: which one.
        folder: where to look; None: `default_folder()`.

    Raises:
        SetupError: it is missing, or has another checksum; the message holds the file, the address,
            the checksum and the folder.
    """
    path = (folder or default_folder()) / file.name
    if not path.is_file():
        raise SetupError(
            f"the {file.title} weights {file.name} are missing in {path.parent}; they are at "
            f"{file.url} ({file.megabytes} MB, sha256 begins with {file.sha256})",
            f"put the file into {path.parent}",
        )
    with path.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    if not digest.startswith(file.sha256):
        raise SetupError(
            f"{path} has sha256 {digest[:12]}..., expected {file.sha256}...",
            f"delete it and fetch {file.url} again",
        )
    return path


def read_weights(file: WeightFile, folder: Path | None = None) -> dict[str, Tensor]:
    """The convolutions of a network: `<index>.weight` and `<index>.bias` by place in `features`.

    Raises:
        SetupError: see `find_weights`; also when the file can not be read.
    """
    path = find_weights(file, folder)
    try:
        state = read_checkpoint(path)
        kept = {k: v for k, v in state.items() if k.startswith("features.")}
    except (PulseError, AttributeError) as error:
        raise SetupError(
            f"{path} is not a readable weight file ({type(error).__name__})",
            f"delete it and fetch {file.url} again",
        ) from error
    return {key.removeprefix("features."): value for key, value in kept.items()}


def vgg_features(file: WeightFile, folder: Path | None = None) -> nn.Sequential:
    """The convolutions, activations and poolings of a VGG, frozen.

    Raises:
        SetupError: see `read_weights`; also for weights of another network.
    """
    weights = read_weights(file, folder)
    from torchvision.models.vgg import cfgs, make_layers  # takes seconds and 160 MB

    with torch.device("meta"):  # no random numbers that the weights replace
        layers = make_layers(cfgs[file.layers], batch_norm=False)
    try:
        layers.load_state_dict(weights, assign=True)
    except RuntimeError as error:
        raise SetupError(f"{file.name} does not hold {file.title}", "fetch it again") from error
    for layer in layers:
        if isinstance(layer, nn.ReLU):
            layer.inplace = False  # losses take maps from before the activation too
    return layers.eval().requires_grad_(False)


def layer_index(name: str, file: WeightFile) -> int:
    """Place of a layer in `vgg_features`.

    Args:
        name: "conv5_4" is the fourth convolution before the fifth pooling, "relu5_4" the
            activation after it.
        file: the VGG.

    Raises:
        ValueError: when it has no such layer.
    """
    from torchvision.models.vgg import cfgs

    found = re.fullmatch(r"(conv|relu)(\d)_(\d)", name)
    kind, block, number = found.groups() if found else ("", "0", "0")
    at = [1, 0]  # block and convolution in it
    index = 0
    for entry in cfgs[file.layers]:
        if entry == "M":
            at, index = [at[0] + 1, 0], index + 1
            continue
        at[1] += 1
        if at == [int(block), int(number)]:
            return index + (kind == "relu")
        index += 2
    raise ValueError(f"{file.title} has no layer {name!r}")


def normalise(images: Tensor) -> Tensor:
    """What the networks were trained on, of images `[N, C, H, W]` in [0, 1], C 3 or 1 (grey)."""
    mean, std = (images.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std
