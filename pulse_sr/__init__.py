"""High-resolution faces whose downscaling matches a low-resolution photo.

The public names are loaded at their first use, so `import pulse_sr` imports neither torch nor
numpy.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Operator": "pulse_sr.operators.base",
    "PulseError": "pulse_sr.errors",
    "Result": "pulse_sr.api",
    "SearchConfig": "pulse_sr.config",
    "align": "pulse_sr.jobs.aligning",
    "compare": "pulse_sr.jobs.comparing",
    "get_prior": "pulse_sr.jobs.importing",
    "import_prior": "pulse_sr.jobs.importing",
    "load_prior": "pulse_sr.api",
    "make_operator": "pulse_sr.operators.building",
    "remove_prior": "pulse_sr.jobs.importing",
    "run": "pulse_sr.jobs.searching",
    "super_resolve": "pulse_sr.api",
    "upscale": "pulse_sr.jobs.upscaling",
}

__all__ = [
    "Operator",
    "PulseError",
    "Result",
    "SearchConfig",
    "__version__",
    "align",
    "compare",
    "get_prior",
    "import_prior",
    "load_prior",
    "make_operator",
    "remove_prior",
    "run",
    "super_resolve",
    "upscale",
]

if TYPE_CHECKING:
    from pulse_sr.api import load_prior, super_resolve
    from pulse_sr.config import SearchConfig
    from pulse_sr.errors import PulseError
    from pulse_sr.inversion.result import Result
    from pulse_sr.jobs.aligning import align
    from pulse_sr.jobs.comparing import compare
    from pulse_sr.jobs.importing import get_prior, import_prior, remove_prior
    from pulse_sr.jobs.searching import run
    from pulse_sr.jobs.upscaling import upscale
    from pulse_sr.operators.base import Operator
    from pulse_sr.operators.building import make_operator


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
