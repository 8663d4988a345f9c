"""What the numbers of a benchmark were measured with."""

from __future__ import annotations

import os
import platform
from typing import Any

import torch

from pulse_sr.jobs.diagnosis import cpu_model


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Versions, processor and device as plain JSON values."""
    on_gpu = device.type == "cuda"
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "cpu": cpu_model(),
        "cores": usable_cores(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if on_gpu else "cpu",
    }


def usable_cores() -> int:
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(affinity(0)) if affinity else os.cpu_count() or 1
