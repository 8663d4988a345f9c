"""Features by the Inception network that FID and KID are defined by, from a file of the user's.

The file is the TorchScript form of Inception-v3 (2015-12-05) that NVIDIA's StyleGAN2-ADA and
StyleGAN3 use, `inception-2015-12-05.pt`. pulse-sr neither carries nor downloads it. The module
takes uint8 images of any size, resizes them to 299 px itself, and returns 2048 features (Heusel
et al., NeurIPS 2017).

Shapes: N images.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from pulse_sr.errors import SetupError, UsageError
from pulse_sr.sr.backbones import default_folder

FEATURES = 2048
FILE = "inception-2015-12-05.pt"
_URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{FILE}"
_HINT = "expected inception-2015-12-05.pt of StyleGAN2-ADA (TorchScript), see docs/training.md"


def load_inception(path: Path, device: torch.device | str = "cpu") -> torch.jit.ScriptModule:
    """Read the network.

    Raises:
        UsageError: when there is no such file.
        SetupError: when it is no TorchScript file, or does not return 2048 features.
    """
    if not path.is_file():
        raise UsageError(f"--inception: {path} does not exist", _HINT)
    try:
        with warnings.catch_warnings():  # TorchScript is deprecated, but it is what there is
            warnings.simplefilter("ignore", FutureWarning)
            network = torch.jit.load(path, map_location="cpu").eval().to(device)
        found = inception_features(network, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    except (RuntimeError, ValueError, TypeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        raise SetupError(f"{path} can not be used for FID ({reason})", _HINT) from error
    if found.shape != (1, FEATURES):
        raise SetupError(
            f"{path} returns features of shape {tuple(found.shape)}, expected (1, {FEATURES})",
            _HINT,
        )
    return network


def load_published(
    folder: Path | None = None, device: torch.device | str = "cpu"
) -> torch.jit.ScriptModule:
    """Read the network from the folder of the weight files; None: torch hub's.

    Raises:
        SetupError: it is missing there, or see `load_inception`.
    """
    path = (folder or default_folder()) / FILE
    if not path.is_file():
        raise SetupError(
            f"the Inception weights {FILE} are missing in {path.parent}; they are at {_URL} "
            "(91 MB; no sha256 is published, it is checked for its 2048 features)",
            f"put the file into {path.parent}",
        )
    return load_inception(path, device)


def inception_features(network: torch.jit.ScriptModule, images: Tensor, chunk: int = 16) -> Tensor:
    """Features float32 `[N, 2048]` on the CPU, `chunk` images at a time.

    Args:
        network: from `load_inception`.
        images: uint8 RGB `[N, 3, H, W]`.
    """
    weight = next(iter(network.state_dict().values()), torch.zeros(0))
    with torch.no_grad():
        parts = [
            network(part.to(weight.device), return_features=True).float().cpu()
            for part in images.split(chunk)
        ]
    return torch.cat(parts)
