"""Where to compute, in which number format, and how the allocator behaves there."""

from __future__ import annotations

import ctypes
import ctypes.util
import sys

import torch

from pulse_sr.errors import SetupError

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def choose_device(name: str) -> torch.device:
    """The device for `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        SetupError: when this machine has no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise SetupError(f"no device {name!r}", "use --device auto, cpu, cuda or cuda:N")
    count = torch.cuda.device_count()
    if device.type == "cuda" and (device.index or 0) >= count:
        raise SetupError(
            f"--device {name}: this machine has {count} CUDA devices", "use --device cpu"
        )
    return device


def choose_bf16(precision: str, device: torch.device) -> bool:
    """Whether `auto`, `fp32` or `bf16` means bfloat16 on `device`.

    On a CPU `auto` means fp32: without native bfloat16 it is many times slower. With it (AMX) a
    search step gains a quarter, a training step about a third (docs/benchmarks.md).
    """
    return precision == "bf16" or (precision == "auto" and device.type == "cuda")


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, where there is a glibc.

    Large activations that are freed and allocated in every step go back to the kernel otherwise,
    and their page faults can take most of the time.
    """
    if sys.platform == "linux" and ctypes.util.find_library("c"):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "mallopt"):
            limit = 2**31 - 1
            libc.mallopt(_M_TRIM_THRESHOLD, limit)
            libc.mallopt(_M_MMAP_THRESHOLD, limit)


def give_back_freed_memory() -> None:
    """Return to the kernel what `keep_freed_memory` made glibc keep, where there is a glibc.

    Done now and then in a long run, it keeps the gaps between what lives from adding up.
    """
    if sys.platform == "linux" and ctypes.util.find_library("c"):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


def images_at_once(side: int, most: int, pixels: int) -> int:
    """How many square images of a side go through a network together: `most`, or as `pixels` allow.

    The number depends on nothing else, since rounding may depend on the size of a batch.
    """
    return max(1, min(most, pixels // side**2))
