"""The parts of a GAN run: networks, augmentation, all on their device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from pulse_sr.errors import UsageError
from pulse_sr.priors.fastgan import FastGANConfig
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.augment.ada import AdaptiveAugment
from pulse_sr.training.augment.base import Augmentation, NoAugment
from pulse_sr.training.augment.diffaug import DiffAugment
from pulse_sr.training.gan.config import NetworkConfig, TrainConfig
from pulse_sr.training.gan.fastgan_objective import FastGANObjective
from pulse_sr.training.gan.heads import build_heads
from pulse_sr.training.gan.objective import Objective
from pulse_sr.training.gan.options import WIDTHS
from pulse_sr.training.gan.step import Step
from pulse_sr.training.gan.stylegan2_objective import StyleGAN2Objective
from pulse_sr.training.gan.transfer import Continued, Source, begin_with
from pulse_sr.training.run import Machine


def build_step(
    config: TrainConfig, machine: Machine, source: Source | None, images: np.ndarray
) -> Step:
    """The networks on their device, from scratch or from the weights of another prior.

    Args:
        config: what decides the course of the run.
        machine: where it computes.
        source: the weights to begin with.
        images: uint8 `[N, 3, R, R]`, for fitting the stages that a grown discriminator has new.
    """
    objective = build_objective(config)
    networks = (objective.generator, objective.discriminator)
    for network in networks:
        network.to(memory_format=torch.channels_last).train()
    if source is not None:
        begin_with(source, objective, images)
    for network in networks:
        network.to(machine.device)
    return Step(
        objective,
        config,
        build_augmentation(config),
        machine.device,
        machine.processes,
        bf16=machine.bf16,
        heads=build_heads(config, machine.device),
    )


def build_objective(config: TrainConfig) -> Objective:
    """The networks of a config with random weights; torch's global random state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)  # initialisation takes no generator
        if isinstance(config.network, FastGANConfig):
            return FastGANObjective(config.network, config.loss, config.reconstruction)
        return StyleGAN2Objective(config.network, config.loss, config.mixing)


def build_augmentation(config: TrainConfig) -> Augmentation:
    """What a config says of augmentation."""
    if config.augment == "diffaug":
        return DiffAugment(config.policy)
    return AdaptiveAugment() if config.augment == "ada" else NoAugment()


def describe_network(
    architecture: str,
    resolution: int,
    source: Source | Continued | None = None,
    **widths: int,
) -> NetworkConfig:
    """The networks of some widths (`options.WIDTHS`); what is not said comes from `source`.

    Raises:
        UsageError: for a resolution that is no power of two.
    """
    try:
        if architecture == "fastgan":
            began = {} if source is None else {"ngf": source.header["config"]["ngf"]}
            return FastGANConfig(resolution, **began | widths)
        if source is not None and not widths:
            return _grown(source.header["config"], resolution)
        names, defaults = WIDTHS[architecture], (2048, 128, 128, 2)
        chosen = [widths.get(*each) for each in zip(names, defaults, strict=True)]
        return StyleGAN2Config.from_base(resolution, *chosen)
    except ValueError as error:
        raise UsageError(f"--resolution: {error}", "use 32, 64, 128, 256, ...") from error


def _grown(config: dict[str, Any], resolution: int) -> StyleGAN2Config:
    """The generator of `config` at another resolution: each new block has half the width."""
    channels = list(config["channels"])
    levels = resolution.bit_length() - 2
    while len(channels) < levels:
        channels.append(max(channels[-1] // 2, 8))
    fields = config | {"resolution": resolution, "channels": tuple(channels[:levels])}
    return StyleGAN2Config(**fields)
