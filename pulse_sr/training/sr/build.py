"""The parts of a supervised run: networks, losses, all on their device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from pulse_sr.errors import UsageError
from pulse_sr.options import suggest
from pulse_sr.sr.architectures import build_network
from pulse_sr.sr.discriminators import (
    SpectralDiscriminator,
    SSDDiscriminator,
    UNetDiscriminator,
    VGGDiscriminator,
)
from pulse_sr.sr.losses.adversarial import LOSSES
from pulse_sr.training.run import Machine
from pulse_sr.training.sr.config import SrConfig
from pulse_sr.training.sr.losses import build_loss, check_name
from pulse_sr.training.sr.step import SrStep


def _ssd(size: int, weight: float = 0.5, **arguments: Any) -> nn.Module:
    return SSDDiscriminator(
        VGGDiscriminator(size, **arguments), SpectralDiscriminator(size), weight
    )


def _unet(size: int, **arguments: Any) -> nn.Module:
    return UNetDiscriminator(**arguments)


#: Side of a patch and the arguments of a recipe to a discriminator.
DISCRIMINATORS: Mapping[str, Callable[..., nn.Module]] = {
    "vgg": VGGDiscriminator,
    "unet": _unet,
    "ssd": _ssd,
}


def build_step(config: SrConfig, machine: Machine, weights: Path | None = None) -> SrStep:
    """The networks with random weights on their device; torch's global random state is left alone.

    Args:
        config: what decides the course of the run.
        machine: where it computes.
        weights: folder of the weights that losses stand on; None: torch hub's.

    Raises:
        UsageError: for a network or a loss that does not exist.
        SetupError: when the weights that a loss stands on are not there.
    """
    check_losses(config)
    names = dict.fromkeys(name for phase in config.phases for name in phase.losses)
    losses = {name: build_loss(name, weights, machine.device) for name in names}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # initialisation takes no generator
        networks = [_built("network", build_network, config.network)]
        if config.discriminator:
            networks.append(_built("discriminator", _discriminator(config), config.discriminator))
    for network in networks:
        network.to(machine.device).to(memory_format=torch.channels_last).train()
    return SrStep(
        networks[0],
        networks[1] if len(networks) > 1 else None,
        losses,
        config,
        machine.device,
        machine.processes,
        bf16=machine.bf16,
    )


def check_losses(config: SrConfig) -> None:
    """Refuse a recipe whose losses do not exist, before anything is built.

    Raises:
        UsageError: names the loss.
    """
    for phase in config.phases:
        for name in phase.losses:
            check_name(name)
        if phase.adversarial and phase.adversarial not in LOSSES:
            raise UsageError(
                f"no adversarial loss {phase.adversarial!r}", suggest(phase.adversarial, LOSSES)
            )


def _discriminator(config: SrConfig) -> Callable[[str, Mapping[str, Any]], nn.Module]:
    def build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
        if name not in DISCRIMINATORS:
            raise ValueError(f"{name!r} is none of {', '.join(DISCRIMINATORS)}")
        network = DISCRIMINATORS[name](config.patch, **arguments)
        normalised = any(isinstance(each, nn.BatchNorm2d) for each in network.modules())
        if normalised and any(phase.gradient_penalty for phase in config.phases):
            raise ValueError("batch_norm and a gradient penalty exclude each other")
        return network

    return build


def _built(
    what: str, build: Callable[[str, Mapping[str, Any]], nn.Module], described: Mapping[str, Any]
) -> nn.Module:
    arguments = dict(described)
    name = str(arguments.pop("architecture", ""))
    try:
        return build(name, arguments)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{what}: {error}", f"see [{what}] of the recipe") from error
