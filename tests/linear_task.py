"""A linear regression as a task of the training loop: nothing in it is about pictures or GANs.

Usage: linear_task.py RUN_DIR ITEMS SECONDS; trains until so many items or seconds, with a
checkpoint every 800 items. Under torchrun its processes share each batch.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn

from pulse_sr.data.order import ImageStream, rng_of
from pulse_sr.training.loop import Schedule, Trainer
from pulse_sr.training.processes import Processes, join_processes, leave_processes

#: y = 2 a - 3 b + 0.5.
SLOPES, OFFSET = (2.0, -3.0), 0.5


@dataclass(frozen=True)
class LinearConfig:
    batch: int = 16
    seed: int = 0
    rate: float = 0.02
    ema_kimg: float = 0.05
    ema_rampup: float | None = 0.5
    ema_bank: tuple[float, ...] = (0.2,)

    def to_json(self):
        return asdict(self) | {"ema_bank": list(self.ema_bank)}


@dataclass
class LinearTask:
    """Least squares by SGD with momentum, with noise on the inputs, drawn for the whole batch."""

    config: LinearConfig = field(default_factory=LinearConfig)
    processes: Processes = field(default_factory=Processes)
    worst: float = 0.0
    parts: int = 1

    device = torch.device("cpu")
    averaged, group, smaller = "line", 1, "take a smaller line"
    steadier = "take a smaller rate"

    def __post_init__(self):
        self.line = nn.Linear(2, 1)
        self.earlier = {}
        nn.init.zeros_(self.line.weight)
        nn.init.zeros_(self.line.bias)
        self.sgd = torch.optim.SGD(self.line.parameters(), lr=self.config.rate, momentum=0.9)

    def modules(self):
        return {"line": self.line}

    def optimizers(self):
        return {"sgd": self.sgd}

    def frozen(self):
        return []

    def rows(self):
        share = self.config.batch // self.processes.count
        return torch.arange(share) + self.processes.rank * share

    def step(self, batch, images_shown):
        rng = rng_of(self.config.seed, "noise", images_shown)
        noise = 0.01 * torch.randn(self.config.batch, 2, generator=rng)[self.rows()]
        loss = (self.line(batch[:, :2] + noise)[:, 0] - batch[:, 2]).square().mean()
        loss.backward()
        self.processes.average_([p.grad for p in self.line.parameters()])
        self.sgd.step()
        self.sgd.zero_grad()
        return {"loss": loss.detach()}

    def observe(self, means, steps):
        self.worst = max(self.worst, means["loss"])
        return {"worst": self.worst}

    def state(self):
        return {"worst": self.worst}

    def load_state(self, header):
        self.worst = header["worst"]

    def renewed(self, before):
        return set()

    def export(self, average, run_dir, facts):
        file = run_dir / "line.json"
        numbers = [*average.weight.flatten().tolist(), average.bias.item()]
        file.write_text(json.dumps({"line": numbers} | facts))
        return file

    def probes(self, count):
        return [lambda: self.line(torch.zeros(count, 2)).square().sum()]

    def deal_out(self, parts, recompute):
        self.parts = parts


def points(count=50):
    """float32 `[count, 3]`: a, b, y."""
    inputs = np.random.default_rng(0).normal(size=(count, 2))
    outputs = inputs @ np.array(SLOPES) + OFFSET
    return np.column_stack([inputs, outputs]).astype(np.float32)


def trainer_in(folder, processes=None, data_sha256="points", continued=None, **options):
    folder.mkdir(exist_ok=True)
    task = LinearTask(LinearConfig(**options), processes or Processes())
    stream = ImageStream(points(), task.config.seed)
    return Trainer(stream, folder, task, data_sha256, continued)


def train(folder, items=math.inf, seconds=math.inf, **options):
    trainer = trainer_in(folder, **options)
    schedule = Schedule(items, seconds, checkpoint_seconds=math.inf, snapshot_images=800)
    records = list(trainer.train(schedule))
    return trainer, records


if __name__ == "__main__":
    torch.set_num_threads(1)
    joined = join_processes("cpu")
    train(Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), processes=joined)
    leave_processes()
