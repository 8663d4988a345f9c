"""Supervised training of a size that tests can afford; also as a script.

Usage: tiny_sr_training.py RUN_DIR PATCHES; trains on the photos of RUN_DIR/../photos with a
checkpoint every 96 patches. Under torchrun its processes share each batch.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from pulse_sr.data.crops import CropStream, list_photos
from pulse_sr.data.open import open_source
from pulse_sr.images.write import write_png
from pulse_sr.training.loop import Schedule
from pulse_sr.training.processes import Processes, join_processes, leave_processes
from pulse_sr.training.run import Machine
from pulse_sr.training.sr.build import build_step
from pulse_sr.training.sr.config import Phase, SrConfig
from pulse_sr.training.sr.low_res import Pairs
from pulse_sr.training.sr.plan import SrTrainer
from pulse_sr.training.sr.task import SrTask

CPU = torch.device("cpu")
NETWORK = {"architecture": "compact", "scale": 2, "width": 8, "convolutions": 2}
JUDGE = {"architecture": "vgg", "width": 4, "hidden": 8, "batch_norm": False}
PRETRAINING = Phase(kimg=0.192, lr=1e-3, losses={"l1": 1.0})
ADVERSARIAL = Phase(
    kimg=0.192,
    lr=1e-3,
    decay="cosine",
    losses={"l1": 1.0},
    adversarial="hinge",
    adversarial_weight=0.1,
    gradient_penalty=1.0,
)
CONFIG = SrConfig(
    title="tiny",
    source="tests",
    network=NETWORK,
    phases=(PRETRAINING, ADVERSARIAL),
    discriminator=JUDGE,
    operator="matlab|noise:0.01",
    patch=16,
    batch=8,
    per_photo=2,
    ema_kimg=0.05,
)


def write_photos(folder, count=6, side=40):
    """Smooth random photos."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = torch.from_numpy(rng.random((1, 3, 6, 6)))
        smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")[0]
        write_png(folder / f"{i}.png", (smooth.clamp(0, 1) * 255).byte().numpy())
    return folder


def step_of(config=CONFIG, processes=None, max_memory=None):
    return build_step(config, Machine(CPU, False, max_memory, False, processes or Processes()))


def trainer_in(folder, config=CONFIG, processes=None):
    folder.mkdir(exist_ok=True)
    photos = list_photos(open_source(folder.parent / "photos"), config.side)
    stream = CropStream(photos, config.side, config.seed, config.per_photo)
    task = SrTask(step_of(config, processes), Pairs(config), "tiny", {"licence": "CC0-1.0"})
    return SrTrainer(stream, folder, task, photos.content_sha256)


def train(folder, *stops, processes=None, **options):
    """Train in pieces, each with a trainer of its own; returns the last one and its records."""
    records = []
    for stop in stops:
        trainer = trainer_in(folder, replace(CONFIG, **options), processes)
        schedule = Schedule(stop, checkpoint_seconds=math.inf, snapshot_images=96)
        records += trainer.train(schedule)
    return trainer, records


if __name__ == "__main__":
    torch.set_num_threads(1)
    joined = join_processes("cpu")
    train(Path(sys.argv[1]), float(sys.argv[2]), processes=joined)
    leave_processes()
