"""Stored weights and outputs of a public FastGAN, `ngf` 8 at 256 px.

Images are stored every fourth pixel. Noise maps 0 to 5 go to the layers in their order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from pulse_sr.priors.fastgan import FastGANConfig, FastGANGenerator
from pulse_sr.training.gan.fastgan_discriminator import FastGANDiscriminator

FOLDER = Path(__file__).parent / "data"
ARRAYS = np.load(FOLDER / "fastgan_tiny.npz", allow_pickle=False)
TENSORS = load_file(FOLDER / "fastgan_tiny.safetensors")
CONFIG = FastGANConfig(resolution=256, ngf=8, z_dim=32)
NOISE = [f"noise_{i}" for i in range(6)]


def golden(name):
    return torch.from_numpy(ARRAYS[name])


def weights(prefix):
    """Tensors under `prefix`; large ones are stored in half precision, exactly."""
    found = {k[len(prefix) :]: v for k, v in TENSORS.items() if k.startswith(prefix)}
    return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}


def official_generator():
    network = FastGANGenerator(CONFIG)
    network.load_state_dict(weights("G."), strict=True)
    return network.eval()


def official_discriminator():
    network = FastGANDiscriminator(CONFIG)
    network.load_state_dict(weights("D."), strict=True)
    return network.eval()


def zero_noise(config):
    return [torch.zeros(1, 1, *shape) for shape in config.noise_shapes]


def every_fourth(images):
    return images[..., ::4, ::4]


def interleave(logits):
    """Golden logits, all of the big branch and then all of the small one, by image: `[2, 50]`."""
    return torch.cat([part.view(2, 25) for part in logits.split(50)], dim=1)
