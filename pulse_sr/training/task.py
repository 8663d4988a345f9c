"""What is trained, as the loop sees it: networks, one step, what to keep and what to write.

The loop (`training.loop`) owns the order of the data, the averages, checkpoints, time, log and
processes; a task owns all else. The next kind of network is another task, not another loop.

Shapes: N items of the whole batch, over all processes, n of this process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.training.processes import Processes


class TaskConfig(Protocol):
    """The settings that decide the course of a run, as far as the loop uses them itself.

    Attributes:
        batch: N, items per step over all processes and parts.
        seed: of everything random.
        ema_kimg: half-life of the averaged network in thousands of items.
        ema_rampup: the half-life is at most this share of the items shown; None: no ramp.
        ema_bank: half-lives of further averages.
    """

    @property
    def batch(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def ema_kimg(self) -> float: ...
    @property
    def ema_rampup(self) -> float | None: ...
    @property
    def ema_bank(self) -> tuple[float, ...]: ...
    def to_json(self) -> dict[str, Any]:
        """All settings as plain JSON values; a run does not go on with other ones."""


class TrainingTask(Protocol):
    """Networks that learn step by step.

    Attributes:
        config: what decides the course of the run.
        device: where the networks live.
        processes: who shares a batch; a step averages its gradients over them.
        averaged: the name, out of `modules`, of the network whose weights are averaged.
        earlier: what the settings that a state of an earlier version does not name were then.
        group: so many items of a batch stay in one part.
        smaller: what a user can do when not even the smallest part fits into memory.
        steadier: what a user can do when losses are not finite.
    """

    @property
    def config(self) -> TaskConfig: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def processes(self) -> Processes: ...
    @property
    def averaged(self) -> str: ...
    @property
    def earlier(self) -> dict[str, Any]: ...
    @property
    def group(self) -> int: ...
    @property
    def smaller(self) -> str: ...
    @property
    def steadier(self) -> str: ...

    def modules(self) -> dict[str, nn.Module]:
        """What is trained, by the name that a state gives it."""

    def optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """By the name that a state gives them."""

    def frozen(self) -> list[Tensor]:
        """Weights that are never trained and in no state."""

    def rows(self) -> Tensor:
        """Which items of every batch this process learns from, int64 `[n]`, in its own order."""

    def step(self, batch: Tensor, images_shown: int) -> dict[str, Tensor]:
        """Learn from a batch.

        Args:
            batch: `[n, ...]` on the device, the `rows` of what the stream of the data gives.
            images_shown: items shown before; all that is random is drawn from it and the seed.

        Returns:
            scalars, on the device; those of the log.
        """

    def observe(self, means: Mapping[str, float], steps: int) -> dict[str, float]:
        """Take note of the last steps, once their scalars have been read.

        Args:
            means: of the scalars, over these steps and all processes; all of them are finite.
            steps: how many they are.

        Returns:
            what the log says besides.
        """

    def state(self) -> dict[str, Any]:
        """What goes on in a resumed run besides modules and optimizers, as plain JSON values.

        The header of a state holds it beside `config`, `images`, `seconds` and `data`.
        """

    def load_state(self, header: Mapping[str, Any]) -> None:
        """Go on from the header of a state."""

    def renewed(self, before: Mapping[str, Any]) -> set[str]:
        """Modules and optimizers that begin anew when a run goes on from another run's state.

        Args:
            before: the settings of that run.
        """

    def export(self, average: nn.Module, run_dir: Path, facts: Mapping[str, Any]) -> Path:
        """Write what users use.

        Args:
            average: the averaged network.
            run_dir: the folder of the run.
            facts: "images" shown and whole "seconds" of training.

        Returns:
            the file.
        """

    def probes(self, count: int) -> list[Callable[[], Tensor]]:
        """The losses of a step on `count` items, each computed when it is called.

        They show what a part of a batch takes; no weight moves.
        """

    def deal_out(self, parts: int, recompute: bool) -> None:
        """Take this process's share of a batch in so many parts.

        Args:
            parts: that the share is dealt out in.
            recompute: compute activations again going back instead of keeping them.
        """
