"""Priors with random weights: small, but with all that a trained one has."""

from __future__ import annotations

import torch

from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import Generator, StyleGAN2Config, StyleGAN2Prior


def random_stylegan2(seed, noise_strength=None, name="random", sha256="", width=8):
    """A StyleGAN2 of 32 px with mild colours: random weights would saturate most pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = Generator(StyleGAN2Config(32, 16, 16, 2, (width,) * 4))
    with torch.no_grad():
        for block in generator.synthesis.blocks:
            block.torgb.weight.mul_(0.25)
            if noise_strength is not None:
                for layer in block.layers:
                    layer.noise_strength.fill_(noise_strength)
    return StyleGAN2Prior(name, generator, fit_statistics(generator, 2000), sha256=sha256)
