"""Which GPUs the CUDA ops are compiled for: items such as "8.6" or "9.0+PTX", torch's own words."""

from __future__ import annotations

import re
from collections.abc import Sequence

from stylegan_ops.toolchain import BuildError, Nvcc

#: The environment variable that overrides what the machine has, as for torch's own extensions.
VARIABLE = "TORCH_CUDA_ARCH_LIST"

#: For a machine without a GPU: Turing to Hopper; the newest one's PTX serves what came later.
_WITHOUT_GPU = (75, 80, 86, 89, 90)


def choose_architectures(nvcc: Nvcc, text: str, gpus: Sequence[int]) -> tuple[str, ...]:
    """Chooses what to compile for.

    Args:
        nvcc: the compiler.
        text: the value of TORCH_CUDA_ARCH_LIST; empty or "native" for the GPUs.
        gpus: compute capabilities of this machine's GPUs, as 86 for 8.6.

    Raises:
        BuildError: an item is malformed or unknown to nvcc, or it is too new for all GPUs.
    """
    if text not in ("", "native"):
        return _parsed(text, nvcc)
    if gpus:
        older = (max((each for each in nvcc.known if each <= gpu), default=0) for gpu in gpus)
        chosen = sorted(set(older) - {0})
    else:
        chosen = [each for each in _WITHOUT_GPU if each in nvcc.known] or [nvcc.known[0]]
    if not chosen:
        have = ", ".join(dotted(gpu) for gpu in gpus)
        raise BuildError(
            f"the GPU has compute capability {have}; nvcc compiles for {dotted(nvcc.known[0])} "
            "and up",
            "install a torch and a toolkit of an older CUDA version",
        )
    # The driver of a GPU that is newer than the compiler translates PTX.
    with_ptx = {each for each in chosen if gpus and each not in gpus} | {chosen[-1]}
    return tuple(dotted(each) + "+PTX" * (each in with_ptx) for each in chosen)


def gencode_flags(item: str) -> list[str]:
    """Returns nvcc's flags: for machine code, with "+PTX" also for what a driver translates."""
    name = item.removesuffix("+PTX").replace(".", "")
    kinds = [f"sm_{name}"] + [f"compute_{name}"] * item.endswith("+PTX")
    return [f"-gencode=arch=compute_{name},code={kind}" for kind in kinds]


def gpu_capabilities() -> list[int]:
    """Returns the compute capabilities of this machine's GPUs, as 86 for 8.6."""
    import torch

    if not torch.cuda.is_available():
        return []
    pairs = (torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count()))
    return sorted({10 * major + minor for major, minor in pairs})


def dotted(number: int) -> str:
    """Returns "8.6" for 86."""
    return f"{number // 10}.{number % 10}"


def _parsed(text: str, nvcc: Nvcc) -> tuple[str, ...]:
    items = tuple(dict.fromkeys(word for word in re.split(r"[;\s]+", text) if word))
    for item in items:
        parts = re.fullmatch(r"(\d{1,2})\.(\d)[af]?(\+PTX)?", item)
        if parts is None:
            raise BuildError(
                f"architectures {text!r}: {item!r} is not a compute capability such as 8.0 or "
                "9.0+PTX",
                f'export {VARIABLE}="8.0;9.0+PTX", or unset it',
            )
        if 10 * int(parts[1]) + int(parts[2]) not in nvcc.known:
            known = " ".join(dotted(each) for each in nvcc.known)
            raise BuildError(
                f"architectures {text!r}: nvcc {nvcc.version} compiles for {known}, not for {item}",
                f"choose from these in {VARIABLE}, or install another CUDA toolkit",
            )
    return items
