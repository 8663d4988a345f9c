"""The architectures that a prior file can hold: one row each of a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pulse_sr.priors import stylegan1, stylegan2, stylegan2_bilinear
from pulse_sr.priors.base import Prior
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.fastgan_folding import FoldedGenerator
from pulse_sr.priors.fastgan_prior import FastGANPrior
from pulse_sr.priors.style import StylePrior
from pulse_sr.priors.stylegan1 import StyleGAN1Prior
from pulse_sr.priors.stylegan2 import StyleGAN2Config, StyleGAN2Prior
from pulse_sr.priors.stylegan2_bilinear import BilinearConfig, BilinearPrior

StoredPrior = StylePrior | FastGANPrior


@dataclass(frozen=True)
class Architecture:
    """How a file describes a generator, and how it becomes a prior again.

    Attributes:
        prior: what adapts the network; it freezes the network and keeps it.
        build: from the configuration in the header to a network without its weights. Raises
            KeyError, TypeError or ValueError for a configuration that makes no sense.
    """

    prior: type[StylePrior] | type[FastGANPrior]
    build: Callable[[dict[str, Any]], Any]


def _build_stylegan2(config: dict[str, Any]) -> stylegan2.Generator:
    return stylegan2.Generator(_stylegan2_config(config))


def _build_stylegan1(config: dict[str, Any]) -> stylegan1.Generator:
    return stylegan1.Generator(_stylegan2_config(config))


def _build_bilinear(config: dict[str, Any]) -> stylegan2_bilinear.Generator:
    return stylegan2_bilinear.Generator(
        BilinearConfig(**config | {"channels": tuple(config["channels"])})
    )


def _stylegan2_config(config: dict[str, Any]) -> StyleGAN2Config:
    return StyleGAN2Config(**config | {"channels": tuple(config["channels"])})


def _build_fastgan(config: dict[str, Any]) -> FoldedGenerator:
    return FoldedGenerator(FastGANConfig(**config))


ARCHITECTURES = {
    "stylegan2": Architecture(StyleGAN2Prior, _build_stylegan2),
    "stylegan2-bilinear": Architecture(BilinearPrior, _build_bilinear),
    "stylegan1": Architecture(StyleGAN1Prior, _build_stylegan1),
    "fastgan": Architecture(FastGANPrior, _build_fastgan),
}


def stored_as(prior: Prior) -> tuple[str, StoredPrior]:
    """The name of a prior's architecture, and the prior as one that has a network to store.

    Raises:
        TypeError: for a prior that no file can hold.
    """
    for name, each in ARCHITECTURES.items():
        if isinstance(prior, each.prior):
            return name, prior
    raise TypeError(f"{type(prior).__name__} has no file format")
