"""How each library of ops is compiled: sources, flags, what it links to, and its key in the cache.

The key covers everything that changes the result but no paths of torch, so that environments with
the same versions share a library.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stylegan_ops.architectures import (
    VARIABLE,
    choose_architectures,
    gencode_flags,
    gpu_capabilities,
)
from stylegan_ops.toolchain import (
    BuildError,
    Compiler,
    Nvcc,
    TorchBuild,
    find_compiler,
    find_cudart,
    find_ninja,
    find_nvcc,
    find_torch,
)

TARGETS = ("cpu", "cuda")

_CXX_FLAGS = ("-std=c++17", "-O3", "-fPIC", "-Wall", "-Wextra")
# Sums may be contracted and reordered per lane, but NaN and infinity keep their meaning.
_CPU_FLAGS = ("-ffp-contract=fast", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd")
_NVCC_FLAGS = ("-std=c++17", "-O3", "--threads", "1", "-Xcompiler", "-fPIC")
# The stable ABI of torch 2.10, so that no header offers what that release lacks.
_BINDING = "binding.cpp"
_BINDING_FLAGS = ("-DTORCH_TARGET_VERSION=0x020a000000000000",)
_CUDA_BINDING_FLAGS = ("-DPSR_CUDA", "-DUSE_CUDA")

_CPU_LIBRARIES = ("-ltorch", "-ltorch_cpu", "-lc10")
_CUDA_LIBRARIES = ("-ltorch", "-ltorch_cpu", "-ltorch_cuda", "-lc10", "-lc10_cuda")


@dataclass(frozen=True)
class Unit:
    """One source file and how it is compiled.

    Attributes:
        source: the file.
        rule: "cxx" or "nvcc".
        flags: the part of the command that belongs to the key.
        includes: folders of headers that are not ours.
    """

    source: Path
    rule: str
    flags: tuple[str, ...]
    includes: tuple[Path, ...] = ()

    def words(self) -> list[str]:
        """Returns all arguments but the source; foreign headers give no warnings."""
        return [*self.flags, *(w for folder in self.includes for w in ("-isystem", str(folder)))]


@dataclass(frozen=True)
class Recipe:
    """All that is needed to compile one library.

    Attributes:
        target: "cpu" or "cuda".
        folder: where sources and headers lie.
        units: the sources.
        link_flags: the linker's arguments after the objects.
        link_paths: libraries given by path, which do not belong to the key.
        cxx: the C++ compiler, which also links.
        nvcc: the CUDA compiler, for the target "cuda".
        ninja: the program that runs the compilers.
        torch: what is linked against.
        architectures: for which CPU or GPUs, in words.
    """

    target: str
    folder: Path
    units: tuple[Unit, ...]
    link_flags: tuple[str, ...]
    link_paths: tuple[str, ...]
    cxx: Compiler
    nvcc: Nvcc | None
    ninja: Path
    torch: TorchBuild
    architectures: str

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """Everything that the library depends on, for the key and for `build.json`."""
        return {
            "target": self.target,
            "files": self.digests(),
            "flags": {unit.source.name: list(unit.flags) for unit in self.units},
            "link": list(self.link_flags),
            "torch": self.torch.version,
            "cxx11_abi": self.torch.cxx11_abi,
            "machine": platform.machine(),
            "compiler": shlex.join(self.cxx.command),
            "compiler_version": self.cxx.version,
            "native": self.cxx.native_meaning if self.target == "cpu" else "",
            "nvcc_version": self.nvcc.version if self.nvcc else "",
            "architectures": self.architectures,
        }

    @functools.cached_property
    def key(self) -> str:
        """The sha256 of `facts`."""
        return hashlib.sha256(json.dumps(self.facts, sort_keys=True).encode()).hexdigest()

    @property
    def name(self) -> str:
        """The name of the library's folder in the cache."""
        return f"{self.target}-{self.key[:16]}"

    @property
    def library(self) -> str:
        """The file name of the library."""
        return f"libstylegan_ops_{self.target}.so"

    def digests(self) -> dict[str, str]:
        """Returns the sha256 of each source and header as it is now."""
        files = *(unit.source for unit in self.units), *sorted(self.folder.glob("*.h"))
        return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    def details(self) -> dict[str, str]:
        """Compiler, version, architectures and key, for people."""
        compiler, version = shlex.join(self.cxx.command), self.cxx.version
        if self.nvcc is not None:
            compiler, version = str(self.nvcc.path), self.nvcc.version
        return {
            "compiler": compiler,
            "version": version,
            "architectures": self.architectures,
            "key": self.key[:16],
        }


def make_recipe(target: str) -> Recipe:
    """Describes how to compile `target` on this machine.

    Args:
        target: "cpu" or "cuda", the latter for the GPUs that TORCH_CUDA_ARCH_LIST names, else for
            those of this machine.

    Raises:
        ValueError: no such target.
        BuildError: a compiler, torch's CUDA or a source is missing.
    """
    if target not in TARGETS:
        raise ValueError(f"the target is {target!r}, expected one of {', '.join(TARGETS)}")
    folder, cpu_sources, cuda_sources = _sources()
    return _cpu(folder, cpu_sources) if target == "cpu" else _cuda(folder, cuda_sources)


def ninja_text(recipe: Recipe) -> str:
    """Returns the ninja file that compiles `recipe` in the working directory."""
    link = (*recipe.link_paths, *recipe.link_flags)
    lines = [
        "ninja_required_version = 1.5",
        f"cxx = {_command(recipe.cxx.command)}",
        *_rule("cxx", "$cxx -MD -MF $out.d $flags -c $in -o $out", deps="gcc"),
        *_rule("link", f"$cxx -shared $in -o $out {_command(link)}", says="linking"),
    ]
    if recipe.nvcc is not None:
        lines.append(f"nvcc = {_command([str(recipe.nvcc.path)])}")
        lines += _rule("nvcc", "$nvcc -MD -MF $out.d $flags -c $in -o $out", deps="gcc")
    objects = [f"{unit.source.name}.o" for unit in recipe.units]
    for unit, name in zip(recipe.units, objects, strict=True):
        lines.append(f"build {_path(name)}: {unit.rule} {_path(str(unit.source))}")
        lines.append(f"  flags = {_command(unit.words())}")
    lines.append(f"build {_path(recipe.library)}: link {' '.join(map(_path, objects))}")
    return "\n".join([*lines, ""])


def _sources() -> tuple[Path, tuple[str, ...], tuple[str, ...]]:
    try:
        import cuda_kernels
    except ImportError as error:
        raise BuildError(
            "the package cuda_kernels, with the sources of the ops, is not installed",
            "reinstall pulse-sr",
        ) from error
    return cuda_kernels.FOLDER, cuda_kernels.CPU_SOURCES, cuda_kernels.CUDA_SOURCES


def _cpu(folder: Path, sources: Sequence[str]) -> Recipe:
    _check_platform(folder, sources)
    cxx, torch = find_compiler(), find_torch()
    native = (cxx.native_flag,) if cxx.native_flag else ()
    flags = (*_CXX_FLAGS, *native, *_CPU_FLAGS)
    units = tuple(_cxx_unit(folder / name, flags, torch) for name in sources)
    return Recipe(
        target="cpu",
        folder=folder,
        units=units,
        link_flags=(*_link_checks(), *_CPU_LIBRARIES),
        link_paths=(f"-L{torch.folder / 'lib'}",),
        cxx=cxx,
        nvcc=None,
        ninja=find_ninja(),
        torch=torch,
        architectures="this CPU" if native else f"any {platform.machine()}",
    )


def _cuda(folder: Path, sources: Sequence[str]) -> Recipe:
    _check_platform(folder, sources)
    torch = find_torch()
    if torch.cuda is None:
        raise BuildError(
            f"torch {torch.version} is a build without CUDA", "install a CUDA build of torch"
        )
    cxx, nvcc = find_compiler(), find_nvcc(torch.cuda)
    wanted = os.environ.get(VARIABLE, "").strip()
    chosen = choose_architectures(nvcc, wanted, gpu_capabilities())
    gencode = (flag for each in chosen for flag in gencode_flags(each))
    flags = (*_NVCC_FLAGS, *_host_compiler(cxx), *gencode)
    units = [
        Unit(folder / name, "nvcc", flags)
        if name.endswith(".cu")
        else _cxx_unit(folder / name, (*_CXX_FLAGS, *_CUDA_BINDING_FLAGS), torch, nvcc.includes)
        for name in sources
    ]
    return Recipe(
        target="cuda",
        folder=folder,
        units=tuple(units),
        link_flags=(*_link_checks(), *_CUDA_LIBRARIES),
        link_paths=(f"-L{torch.folder / 'lib'}", str(find_cudart(torch, nvcc))),
        cxx=cxx,
        nvcc=nvcc,
        ninja=find_ninja(),
        torch=torch,
        architectures=", ".join(chosen),
    )


def _cxx_unit(
    source: Path, flags: tuple[str, ...], torch: TorchBuild, toolkit: tuple[Path, ...] = ()
) -> Unit:
    if source.name != _BINDING:
        return Unit(source, "cxx", flags, toolkit)
    abi = f"-D_GLIBCXX_USE_CXX11_ABI={int(torch.cxx11_abi)}"
    includes = (torch.folder / "include", *toolkit)
    return Unit(source, "cxx", (*flags, *_BINDING_FLAGS, abi), includes)


def _check_platform(folder: Path, sources: Sequence[str]) -> None:
    if sys.platform == "win32":
        raise BuildError("the ops are compiled on Linux and macOS, not on Windows", "use WSL")
    absent = [name for name in sources if not (folder / name).is_file()]
    if absent:
        raise BuildError(f"{folder} lacks {', '.join(absent)}", "reinstall pulse-sr")


def _link_checks() -> tuple[str, ...]:
    """Returns the flag that makes a missing symbol an error of the link, not of the load."""
    return ("-Wl,--no-undefined",) if sys.platform == "linux" else ()


def _host_compiler(cxx: Compiler) -> tuple[str, ...]:
    # A launcher such as ccache is no host compiler for nvcc; it takes its own default then.
    return ("-ccbin", cxx.command[0]) if len(cxx.command) == 1 else ()


def _rule(name: str, command: str, deps: str = "", says: str = "$in") -> list[str]:
    # $in and $out are quoted by ninja itself.
    lines = [f"rule {name}", f"  command = {command}", f"  description = {says}"]
    return [*lines, f"  deps = {deps}", "  depfile = $out.d"] if deps else lines


def _command(words: Sequence[str]) -> str:
    """Quotes words for the shell and for ninja."""
    return shlex.join(words).replace("$", "$$")


def _path(name: str) -> str:
    return name.replace("$", "$$").replace(" ", "$ ").replace(":", "$:")
