"""The parts of a supervised run: networks, losses, all on their device."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn as nn

from pulse_sr.errors import UsageError, first_line, shown
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
from pulse_sr.training.sr.losses import PLAIN, build_loss, check_name, check_patch
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
    for name, loss in losses.items():
        check_patch(name, loss, config.patch, machine.device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # initialisation takes no generator
        networks = _networks(config)
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


def check_recipe(config: SrConfig) -> None:
    """Refuse what no run could follow, before one begins: a patch goes through all parts.

    The networks are built without memory (torch's device "meta"). Losses that look through files of
    weights are tried in `build_step`.

    Raises:
        UsageError: a part does not exist, can not be built, or takes no patch of this size.
    """
    check_losses(config)
    side = config.patch // config.scale
    with torch.device("meta"), torch.no_grad():
        images = torch.zeros(2, 3, side, side)
        for what, network in zip(("network", "discriminator"), _networks(config), strict=False):
            try:
                images = network(images)
            except NotImplementedError:  # shapes of "ssd" depend on values, which there are none of
                break
            except (RuntimeError, ValueError) as error:
                raise UsageError(
                    f"{what}: patches of {config.patch} px do not go through ({first_line(error)})",
                    f"see [{what}] and patch of the recipe",
                ) from error
    for name in dict.fromkeys(name for phase in config.phases for name in phase.losses):
        if name in PLAIN:
            check_patch(name, PLAIN[name], config.patch)


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


def _networks(config: SrConfig) -> list[nn.Module]:
    """The generator and, if there is one, the discriminator."""
    networks = [_built("network", build_network, config.network)]
    if config.discriminator:
        networks.append(_built("discriminator", _discriminator(config), config.discriminator))
    return networks


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
    hint = f"see [{what}] of the recipe"
    for key, value in arguments.items():
        if type(value) is int and value < 1:
            raise UsageError(f"{what}: {key} expects a whole number from 1 on, got {value}", hint)
    try:
        return build(name, arguments)
    except ValueError as error:
        raise UsageError(f"{what}: {error}", hint) from error
    except TypeError as error:
        words = f"{what}: no {name} can be built from {shown(arguments)} ({first_line(error)})"
        raise UsageError(words, hint) from error
