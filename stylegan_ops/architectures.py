"""Which GPUs the CUDA ops are compiled for."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from stylegan_ops.toolchain import BuildError, Nvcc

#: The environment variable that overrides what the machine has, as for torch's own extensions.
VARIABLE = "TORCH_CUDA_ARCH_LIST"

#: For a machine without a GPU: Turing to Hopper; the newest one's PTX serves what came later.
_WITHOUT_GPU = (75, 80, 86, 89, 90)

# The names that torch knows, of the generations that its current releases still run on.
_NAMES = {
    "Volta": "7.0+PTX",
    "Turing": "7.5+PTX",
    "Ampere": "8.0;8.6+PTX",
    "Ada": "8.9+PTX",
    "Hopper": "9.0+PTX",
    "Blackwell": "10.0;10.3;12.0;12.1+PTX",
}


@dataclass(frozen=True)
class Architecture:
    """One compute capability to compile for.

    Attributes:
        number: 86 for 8.6.
        suffix: "a" or "f" for the features of just this chip or family.
        binary: machine code, ready to run.
        ptx: code that the driver of a newer GPU translates.
    """

    number: int
    suffix: str = ""
    binary: bool = True
    ptx: bool = False

    def __str__(self) -> str:
        name = dotted(self.number) + self.suffix
        if not self.binary:
            return f"PTX of {name}"
        return f"{name}+PTX" if self.ptx else name

    def flags(self) -> list[str]:
        """Returns nvcc's flags."""
        name = f"{self.number}{self.suffix}"
        kinds = [f"sm_{name}"] * self.binary + [f"compute_{name}"] * self.ptx
        return [f"-gencode=arch=compute_{name},code={kind}" for kind in kinds]


def choose_architectures(
    nvcc: Nvcc,
    environment: Mapping[str, str],
    wanted: Sequence[str] | None = None,
    gpus: Sequence[int] | None = None,
) -> tuple[Architecture, ...]:
    """Chooses what to compile for: as wanted, else as TORCH_CUDA_ARCH_LIST says, else the GPUs.

    Args:
        nvcc: the compiler.
        environment: the variables to read.
        wanted: items as in TORCH_CUDA_ARCH_LIST, such as "8.0" or "9.0+PTX"; "90" is also read.
        gpus: compute capabilities of the GPUs, as 86 for 8.6; None: those of this machine.

    Raises:
        BuildError: an item is malformed or unknown to nvcc, or it is too new for all GPUs.
    """
    text = ";".join(wanted) if wanted is not None else environment.get(VARIABLE, "").strip()
    if wanted is not None or text not in ("", "native"):
        return parse_architectures(text, nvcc)
    found = gpu_capabilities() if gpus is None else gpus
    if not found:
        return _with_ptx({number: Architecture(number) for number in _WITHOUT_GPU}, nvcc)
    return _with_ptx(_for_gpus(found, nvcc.known), nvcc)


def parse_architectures(text: str, nvcc: Nvcc) -> tuple[Architecture, ...]:
    """Reads a list such as "8.0;9.0+PTX" or "7.5 8.6".

    Raises:
        BuildError: an item is malformed or unknown to nvcc.
    """
    items = [item for word in _split(text) for item in _split(_NAMES.get(word, word))]
    merged: dict[tuple[int, str], Architecture] = {}
    for item in items:
        one = _parse_item(item, text, nvcc)
        same = merged.get((one.number, one.suffix), one)
        merged[one.number, one.suffix] = replace(one, ptx=one.ptx or same.ptx)
    if not merged:
        raise BuildError(f"the list of architectures {text!r} is empty", _example())
    return tuple(merged[key] for key in sorted(merged))


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


def _split(text: str) -> list[str]:
    return [word for word in re.split(r"[;\s]+", text) if word]


def _parse_item(item: str, text: str, nvcc: Nvcc) -> Architecture:
    parts = re.fullmatch(r"(\d{1,2})\.?(\d)([af]?)(\+PTX)?", item)
    if parts is None:
        raise BuildError(
            f"architectures {text!r}: {item!r} is not a compute capability such as 8.0 or 9.0+PTX",
            _example(),
        )
    number = 10 * int(parts[1]) + int(parts[2])
    if number not in nvcc.known:
        known = " ".join(dotted(each) for each in nvcc.known)
        raise BuildError(
            f"architectures {text!r}: nvcc {nvcc.version} compiles for {known}, not for {item}",
            f"choose from these in {VARIABLE}, or install another CUDA toolkit",
        )
    return Architecture(number, parts[3], ptx=bool(parts[4]))


def _example() -> str:
    return f'export {VARIABLE}="8.0;9.0+PTX", or unset it'


def _for_gpus(gpus: Sequence[int], known: Sequence[int]) -> dict[int, Architecture]:
    chosen: dict[int, Architecture] = {}
    for gpu in gpus:
        older = [number for number in known if number <= gpu]
        if gpu in known:
            chosen[gpu] = replace(chosen.get(gpu, Architecture(gpu)), binary=True)
        elif older:  # newer than the compiler: its driver translates the PTX of an older one
            chosen.setdefault(older[-1], Architecture(older[-1], binary=False, ptx=True))
            chosen[older[-1]] = replace(chosen[older[-1]], ptx=True)
    if not chosen:
        have = ", ".join(dotted(gpu) for gpu in gpus)
        raise BuildError(
            f"the GPU has compute capability {have}; nvcc compiles for {dotted(known[0])} and up",
            "install a torch and a toolkit of an older CUDA version",
        )
    return chosen


def _with_ptx(chosen: Mapping[int, Architecture], nvcc: Nvcc) -> tuple[Architecture, ...]:
    """Drops what nvcc does not know, and adds the PTX of the newest."""
    usable = [chosen[number] for number in sorted(chosen) if number in nvcc.known]
    if not usable:
        usable = [Architecture(nvcc.known[0])]
    return (*usable[:-1], replace(usable[-1], ptx=True))
