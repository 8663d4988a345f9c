"""A training whose numbers overflow: it ends, and the last good state stays."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn as nn
from torch import Tensor

from pulse_sr.errors import PulseError
from pulse_sr.files.documents import is_finite
from pulse_sr.training.checkpoint import optimizer_tensors
from pulse_sr.training.task import TrainingTask

#: So many of the last steps with losses that are not finite: a training does not recover.
BROKEN_STEPS, LAST_STEPS = 10, 20


class DivergedError(PulseError):
    """A training came to losses or weights that are no finite numbers (exit code 1)."""


class DivergenceWatch:
    """Follows which steps had losses that are not finite."""

    def __init__(self) -> None:
        self._last: deque[bool] = deque(maxlen=LAST_STEPS)
        self._newest: Sequence[bool] = ()
        self._names: dict[str, None] = {}

    def observe(self, broken: Sequence[bool], losses: Mapping[str, float]) -> None:
        """Take in the steps of a record.

        Args:
            broken: whether a loss of the step is not finite, for each of them.
            losses: their means by name.
        """
        self._newest = broken
        self._last.extend(broken)
        self._names |= {k: None for k, value in losses.items() if not math.isfinite(value)}

    def verdict(self, stops: bool) -> str:
        """Why the training has diverged; empty as long as it has not.

        Args:
            stops: no step comes that could be better than the last ones.
        """
        count = sum(self._last)
        if count >= BROKEN_STEPS or (stops and any(self._newest)):
            names = ", ".join(self._names)
            return f"{names} not finite in {count} of the last {len(self._last)} steps"
        return ""


def unsound_parts(task: TrainingTask, modules: Mapping[str, nn.Module]) -> str:
    """What of a state is not finite, in any of the processes; empty if all is.

    Args:
        task: whose optimizers and other numbers are looked at.
        modules: its networks and their averages.
    """
    parts = {name: list(each.state_dict().values()) for name, each in modules.items()}
    for name, optimizer in task.optimizers().items():
        parts[name] = list(optimizer_tensors(optimizer).values())
    found = [are_finite(tensors).to(task.device) for tensors in parts.values()]
    found.append(torch.tensor(is_finite(task.state()), device=task.device))
    sound = torch.stack(found).float()
    task.processes.average_([sound])
    shares = zip([*parts, "other numbers of the state"], sound.tolist(), strict=True)
    names = ", ".join(name for name, share in shares if share < 1)
    return names and f"{names} not finite"


def are_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether all numbers are finite, bool `[]` on the device of the first tensor."""
    found = [tensor.isfinite().all() for tensor in tensors if tensor.is_floating_point()]
    device = found[0].device if found else "cpu"
    return torch.stack([each.to(device) for each in found] or [torch.tensor(True)]).all()


def diverged(reason: str, images: int, run_dir: Path, kept: int | None, hint: str) -> DivergedError:
    """The error that ends a training.

    Args:
        reason: what is not finite.
        images: shown so far.
        run_dir: folder of the run.
        kept: images shown at the state that it holds; None: it holds none.
        hint: what to change.
    """
    state = "no state" if kept is None else f"the state at {kept / 1000:g} kimg"
    message = f"the training diverged at {images / 1000:g} kimg: {reason}; {run_dir} keeps {state}"
    return DivergedError(message, hint)
