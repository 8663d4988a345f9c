"""Finds what compiles the ops: the C++ compiler, nvcc with its toolkit, ninja, torch's libraries.

Nothing is compiled here, and every question to a compiler is asked once a process.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_CXX_NAMES = ("c++", "g++", "clang++")
_PROBE_SECONDS = 60

#: What nvcc needs beside itself -> the PyPI package that brings it.
_TOOLKIT_HEADERS = {
    "crt/host_config.h": "nvidia-cuda-crt",
    "cuda_runtime.h": "nvidia-cuda-runtime",
    "nv/target": "nvidia-cuda-cccl",
}


class BuildError(RuntimeError):
    """The ops can not be compiled.

    Attributes:
        reason: what happened to which thing, one line.
        hint: one command or step that helps; empty if there is none.
        log: the last lines of the compiler, or empty.
    """

    def __init__(self, reason: str, hint: str = "", log: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.log = log


@dataclass(frozen=True)
class Compiler:
    """A C++ compiler.

    Attributes:
        command: how it is called, often one word.
        version: the first line of its `--version`.
        native_flag: the flag for this machine's CPU; empty where the compiler refuses it.
        native_meaning: digest of the macros that the compiler defines with that flag.
    """

    command: tuple[str, ...]
    version: str
    native_flag: str
    native_meaning: str


@dataclass(frozen=True)
class Nvcc:
    """A CUDA compiler and the toolkit that it belongs to.

    Attributes:
        path: the program, perhaps a wrapper outside the toolkit.
        version: such as "13.0.88".
        root: the toolkit's folder, as nvcc itself tells it.
        includes: folders of the toolkit's headers.
        libraries: folders of the toolkit's libraries.
        known: compute capabilities it compiles for, as 75 for 7.5, in rising order.
    """

    path: Path
    version: str
    root: Path
    includes: tuple[Path, ...]
    libraries: tuple[Path, ...]
    known: tuple[int, ...]


@dataclass(frozen=True)
class TorchBuild:
    """What the compiled ops link against.

    Attributes:
        version: torch's version.
        cuda: the CUDA version of this build, such as "13.2"; None for a build without CUDA.
        cxx11_abi: whether its `std::string` is the one of the C++11 ABI.
        folder: where `include` and `lib` are.
    """

    version: str
    cuda: str | None
    cxx11_abi: bool
    folder: Path


def find_torch() -> TorchBuild:
    """Describes the torch that this process uses."""
    import torch

    return TorchBuild(
        version=str(torch.__version__),
        cuda=torch.version.cuda,
        cxx11_abi=bool(torch.compiled_with_cxx11_abi()),
        folder=Path(torch.__file__).resolve().parent,
    )


def find_compiler() -> Compiler:
    """Finds the C++ compiler: CXX, else c++, g++ or clang++ on PATH.

    Raises:
        BuildError: there is none, or the one that CXX names does not answer.
    """
    named = _words(os.environ.get("CXX", ""))
    if named:
        found = _resolved(named)
        compiler = _probe_compiler(found) if found else None
        if compiler is None:
            problem = f"{found[0]} does not answer --version" if found else "it is not on PATH"
            raise BuildError(
                f"CXX names {shlex.join(named)}, but {problem}",
                "set CXX to a C++ compiler, or unset it",
            )
        return compiler
    for name in _CXX_NAMES:
        found = _resolved([name])
        compiler = _probe_compiler(found) if found else None
        if compiler is not None:
            return compiler
    install = "xcode-select --install" if sys.platform == "darwin" else "apt-get install g++"
    raise BuildError(
        f"no C++ compiler: looked at CXX and for {', '.join(_CXX_NAMES)} on PATH", install
    )


def find_ninja() -> Path:
    """Finds ninja: the one of the PyPI package `ninja`, else the one on PATH.

    Raises:
        BuildError: there is none.
    """
    if importlib.util.find_spec("ninja") is not None:
        import ninja

        program = Path(getattr(ninja, "BIN_DIR", "")) / "ninja"
        if program.is_file():
            return program
    found = shutil.which("ninja")
    if found is None:
        raise BuildError("no ninja, neither the PyPI package nor on PATH", "pip install ninja")
    return Path(found)


def nvcc_candidates(cuda: str) -> list[Path]:
    """Lists the places of nvcc, the preferred first.

    Args:
        cuda: the CUDA version of torch; PyPI's packages have a folder for its major version.
    """
    roots = [os.environ[name] for name in ("CUDA_HOME", "CUDA_PATH") if os.environ.get(name)]
    on_path = shutil.which("nvcc")
    places = [Path(root) / "bin" / "nvcc" for root in roots]
    places += [Path(on_path)] if on_path else []
    places.append(Path("/usr/local/cuda/bin/nvcc"))
    places += [folder / f"cu{_major(cuda)}" / "bin" / "nvcc" for folder in nvidia_packages()]
    return list(dict.fromkeys(places))


def find_nvcc(cuda: str) -> Nvcc:
    """Finds an nvcc that fits torch: the first one of the same major version that is complete.

    Args:
        cuda: the CUDA version of torch, such as "13.2".

    Raises:
        BuildError: none fits; the reason is that of the most preferred one that exists.
    """
    problems = []
    for path in nvcc_candidates(cuda):
        if not path.is_file():
            continue
        found = _probe_nvcc(path)
        problem = _why_unusable(path, found, cuda)
        if found is not None and not problem:
            return found
        problems.append(problem)
    nothing = "no nvcc: looked at CUDA_HOME, PATH, /usr/local/cuda and PyPI's CUDA packages"
    raise BuildError(problems[0] if problems else nothing, install_hint(cuda))


def find_cudart(torch: TorchBuild, toolkit: Nvcc) -> Path:
    """Finds the shared CUDA runtime: the one that came with torch, else the toolkit's.

    Raises:
        BuildError: there is none.
    """
    major = _major(torch.cuda or "")
    name = f"libcudart.so.{major}"
    folders = nvidia_packages()
    places = [folder / f"cu{major}" / "lib" / name for folder in folders]
    places += [folder / "cuda_runtime" / "lib" / name for folder in folders]
    places.append(torch.folder / "lib" / name)
    places += [folder / "libcudart.so" for folder in toolkit.libraries]
    for place in places:
        if place.is_file():
            return place
    raise BuildError(
        f"no {name}, neither beside torch nor in {toolkit.root}",
        f"pip install 'nvidia-cuda-runtime=={torch.cuda}.*'",
    )


def nvidia_packages() -> list[Path]:
    """Returns the folders named `nvidia` in which PyPI's CUDA packages lie."""
    spec = importlib.util.find_spec("nvidia")
    return [Path(each) for each in (spec and spec.submodule_search_locations) or ()]


def install_hint(cuda: str) -> str:
    """Returns how to install a CUDA compiler for a torch of CUDA version `cuda`."""
    if int(_major(cuda)) < 13:  # PyPI has no nvcc for these
        return f"install the CUDA {cuda} toolkit and set CUDA_HOME to its folder"
    # Of torch's own minor version, so that the headers that torch brought fit the compiler.
    names = "nvidia-cuda-nvcc", "nvidia-cuda-crt", "nvidia-nvvm", "nvidia-cuda-runtime"
    pinned = " ".join(f"'{name}=={cuda}.*'" for name in names)
    return f"pip install {pinned} nvidia-cuda-cccl"


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise BuildError(f"CXX={command!r} is no command: {error}", "correct CXX") from error


def _resolved(words: Sequence[str]) -> tuple[str, ...] | None:
    program = shutil.which(words[0])
    return (program, *words[1:]) if program else None


@functools.lru_cache
def _probe_compiler(command: tuple[str, ...]) -> Compiler | None:
    """Asks a compiler for its version and for what this machine's CPU means to it."""
    version = _ask([*command, "--version"])
    if not version:
        return None
    arm = platform.machine().lower() in ("aarch64", "arm64")
    flag = "-mcpu=native" if arm else "-march=native"
    macros = "-E", "-dM", "-x", "c++", os.devnull
    meaning = _ask([*command, flag, *macros])
    if meaning is None:
        flag, meaning = "", _ask([*command, *macros]) or ""
    lines = "\n".join(sorted(meaning.splitlines()))
    return Compiler(
        command=command,
        version=version.splitlines()[0].strip(),
        native_flag=flag,
        native_meaning=hashlib.sha256(lines.encode()).hexdigest()[:16],
    )


@functools.lru_cache
def _probe_nvcc(path: Path) -> Nvcc | None:
    """Asks nvcc for its version, its toolkit and what it compiles for; None: no answer."""
    version = re.search(r"\bV(\d+\.\d+\.\d+)", _ask([str(path), "--version"]) or "")
    known = re.findall(r"^compute_(\d+)$", _ask([str(path), "--list-gpu-arch"]) or "", re.M)
    if not version or not known:
        return None
    # The file need not exist. A wrapper script's own folder would say nothing about the toolkit.
    told = _ask([str(path), "--dryrun", "-v", "x.cu"], errors=True) or ""
    facts = dict(re.findall(r"^#\$ (\w+)=(.*)$", told, re.M))
    root = Path(facts.get("TOP") or path.resolve().parents[1]).resolve()
    return Nvcc(
        path=path,
        version=version[1],
        root=root,
        includes=_folders(facts.get("INCLUDES", "") + " " + facts.get("SYSTEM_INCLUDES", "")),
        libraries=_folders(facts.get("LIBRARIES", "")),
        known=tuple(sorted({int(each) for each in known})),
    )


def _folders(words: str) -> tuple[Path, ...]:
    """Reads `"-I/a" "-isystem" "/b" "-L/c"` as printed by nvcc."""
    names = [re.sub(r"^-(I|L|isystem)", "", word) for word in shlex.split(words)]
    return tuple(Path(name).resolve() for name in names if name)


def _why_unusable(path: Path, found: Nvcc | None, cuda: str) -> str:
    """Returns one line, or nothing where `found` can compile for a torch of that CUDA version."""
    if found is None:
        return f"{path} does not answer --version and --list-gpu-arch as nvcc does"
    if _major(found.version) != _major(cuda):
        return f"{path} is of CUDA {found.version}, but torch was built with CUDA {cuda}"
    missing = _missing_parts(found)
    return f"{path} lacks {', '.join(missing)}" if missing else ""


def _missing_parts(toolkit: Nvcc) -> list[str]:
    """Names what is not installed of a toolkit that says where its parts should be."""
    missing = []
    compiler = toolkit.root / "nvvm" / "bin" / "cicc"
    if compiler.parents[1].is_dir() or _from_pypi(toolkit):
        missing += [] if compiler.is_file() else ["nvvm/bin/cicc (nvidia-nvvm)"]
    if not toolkit.includes:  # a distribution's toolkit, with its headers in /usr/include
        return missing
    for header, package in _TOOLKIT_HEADERS.items():
        if not any((folder / header).is_file() for folder in toolkit.includes):
            missing.append(f"{header} ({package})")
    return missing


def _from_pypi(toolkit: Nvcc) -> bool:
    return toolkit.root.parent.name == "nvidia"


def _major(version: str) -> str:
    return version.split(".")[0]


def _ask(command: Sequence[str], errors: bool = False) -> str | None:
    """Returns what a program prints (`errors`: on stderr); None when it fails or hangs."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PROBE_SECONDS,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    if errors:
        return done.stderr
    return done.stdout if done.returncode == 0 else None
