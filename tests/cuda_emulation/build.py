"""Compiles CUDA sources for the CPU: `build([...], folder)` gives a `ctypes.CDLL`."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "cuda_kernels"

# CUDA kernels read memory under several types, and say themselves where they want fma.
FLAGS = ["-std=c++17", "-O1", "-fno-strict-aliasing", "-ffp-contract=off", "-fPIC", "-shared"]
INCLUDES = [f"-I{HERE}", f"-I{KERNELS}"]


def build(sources, folder, *options):
    """One library of all `sources` in `folder`, where several processes may build it at once."""
    library = Path(folder) / f"{Path(sources[0]).stem}.so"
    own = library.with_suffix(f".{os.getpid()}")
    command = ["g++", "-x", "c++", *FLAGS, "-DPSR_EMULATE", *INCLUDES, *options]
    run([*command, *map(str, sources), "-o", str(own)])
    os.replace(own, library)
    return open_library(library)


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stderr[:4000]}"
    return done.stdout


def open_library(path):
    library = ctypes.CDLL(str(path))
    library.psr_emulation_error.restype = ctypes.c_char_p
    return library


def message(library):
    """What the last failed launch reports; empty after a good one."""
    return library.psr_emulation_error().decode()


def pointer(array):
    """The address of a numpy array or a CPU tensor, as an argument of a C function."""
    return ctypes.c_void_p(array.data_ptr() if hasattr(array, "data_ptr") else array.ctypes.data)
