"""Which executor a call asks for."""

from __future__ import annotations

import importlib.util

from pulse_sr.config import EngineOptions
from pulse_sr.errors import SetupError
from pulse_sr.jobs.executors.local import run_local
from pulse_sr.jobs.job import Executor


def choose_executor(options: EngineOptions, device: str = "auto") -> Executor:
    """Returns the executor of an engine; nothing is started or connected to yet.

    Args:
        options: which engine.
        device: that the workers of a cluster use.

    Raises:
        SetupError: Ray is not installed.
    """
    if options.engine == "local":
        return run_local
    if importlib.util.find_spec("ray") is None:
        raise SetupError(
            "--engine ray needs Ray, which is not installed", "pip install 'pulse-sr[cluster]'"
        )
    from pulse_sr.jobs.executors.ray import RayExecutor

    return RayExecutor(options, device)
