"""Training runs of a size that tests can afford."""

from __future__ import annotations

import functools
import json
import math

import numpy as np
import torch
from safetensors.torch import load_file

from pulse_sr.data.order import ImageStream
from pulse_sr.priors.statistics import fit_statistics
from pulse_sr.priors.stylegan2 import StyleGAN2Config
from pulse_sr.training.gan import stylegan2_objective
from pulse_sr.training.gan.build import build_augmentation, build_objective
from pulse_sr.training.gan.config import TrainConfig
from pulse_sr.training.gan.heads import build_heads
from pulse_sr.training.gan.plan import PriorTrainer
from pulse_sr.training.gan.step import Step
from pulse_sr.training.gan.task import GanTask
from pulse_sr.training.loop import Schedule
from pulse_sr.training.processes import Processes

NETWORK = StyleGAN2Config(8, 16, 16, 2, (8, 8))
CPU = torch.device("cpu")
STATE_PARTS = {"G", "G_ema", "D", "adam_g", "adam_d"}


def few_statistics(patch):
    """Let checkpoints fit the latent space to 1000 samples, not 100 000."""
    patch.setattr(
        stylegan2_objective, "fit_statistics", functools.partial(fit_statistics, count=1000)
    )


def noise_images(count=20, side=8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 3, side, side), dtype=np.uint8)


def trainer_in(folder, images=None, continued=None, **options):
    folder.mkdir(exist_ok=True)
    defaults = {"network": NETWORK, "batch": 4, "penalty_interval": 4, "gamma": 0.01}
    config = TrainConfig(**defaults | options)
    networks = (build_objective(config), config, build_augmentation(config), CPU, Processes())
    task = GanTask(Step(*networks, heads=build_heads(config, CPU)), name=folder.resolve().name)
    images = noise_images() if images is None else images
    stream = ImageStream(images, config.seed)
    return PriorTrainer(stream, folder, task, str(len(images)), continued)


def schedule(until, every=80):
    """To `until` images, with a checkpoint every so many."""
    return Schedule(until_images=until, checkpoint_seconds=math.inf, snapshot_images=every)


def train(folder, *stops, every=80, **options):
    """Train in pieces, each with a trainer of its own; returns the last one."""
    for stop in stops:
        trainer = trainer_in(folder, **options)
        list(trainer.train(schedule(stop, every)))
    return trainer


def assert_same_state(a, b, more=()):
    """Every tensor of two checkpoints: networks, averages, optimizer moments. Bit for bit."""
    first, second = load_file(a / "state.safetensors"), load_file(b / "state.safetensors")
    assert first.keys() == second.keys()
    assert {key.split("/")[0] for key in first} == STATE_PARTS | set(more)
    assert [k for k in first if not torch.equal(first[k], second[k])] == []


def log_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
