"""Says what the machine has: GPUs, compilers, versions, and imports that are missing.

    python scripts/gpu/machine.py

prints JSON. Exit code 1: something is missing without which the other steps can not run.
"""

from __future__ import annotations

import importlib.util
import json
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

COMMANDS = {
    "gpu": "nvidia-smi",
    "nvcc": "nvcc --version",
    "c++": "c++ --version",
    "ninja": "ninja --version",
    "compute-sanitizer": "compute-sanitizer --version",
    "cpu": "lscpu",
    "kernel": "uname -a",
}
#: What the steps import -> the distribution that brings it.
IMPORTS = {
    "torch": "torch",
    "numpy": "numpy",
    "PIL": "pillow",
    "click": "click",
    "safetensors": "safetensors",
    "scipy": "scipy",
    "pytest": "pytest",
    "triton": "triton",
}
_NEEDED = ("torch", "numpy", "PIL", "click", "safetensors")


def ask(command: str) -> str:
    """Returns what a program prints, or why it does not."""
    try:
        done = subprocess.run(
            command.split(), capture_output=True, text=True, timeout=20, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"unavailable: {type(error).__name__}"
    return (done.stdout or done.stderr).strip()


def describe() -> dict[str, Any]:
    """Returns everything as plain data."""
    found: dict[str, Any] = {name: ask(command) for name, command in COMMANDS.items()}
    found["python"] = f"{platform.python_version()} at {sys.executable}"
    found["missing"] = [name for name in IMPORTS if importlib.util.find_spec(name) is None]
    found["versions"] = {
        package: metadata.version(package)
        for name, package in IMPORTS.items()
        if name not in found["missing"]
    }
    if "torch" not in found["missing"]:
        import torch

        found["cuda of torch"] = torch.version.cuda
        found["devices"] = [
            str(torch.cuda.get_device_properties(i)) for i in range(torch.cuda.device_count())
        ]
    return found


if __name__ == "__main__":
    report = describe()
    print(json.dumps(report, indent=2))
    sys.exit(any(name in report["missing"] for name in _NEEDED))
