"""Compilers that are small shell scripts, and a source set for them to compile."""

from __future__ import annotations

import sys
import types
from pathlib import Path

_ANSWERS = """#!/bin/sh
case "$*" in
  *--version*) echo "{version}"; exit 0;;
  *-dM*) echo "#define FAKE {native}"; exit 0;;
esac
echo "$0 $*" >> "{log}"
{before}
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
echo object > "$out"
"""

_NVCC = """#!/bin/sh
case "$*" in
  *--version*) echo "Cuda compilation tools, release 0, V{version}"; exit 0;;
  *--list-gpu-arch*) for each in {known}; do echo compute_$each; done; exit 0;;
  *--dryrun*)
    here=$(cd "$(dirname "$0")" && pwd)
    echo "#\\$ TOP=$here/.." >&2
    echo "#\\$ INCLUDES=\\"-I$here/../include\\"  " >&2
    echo "#\\$ LIBRARIES=  \\"-L$here/../lib/stubs\\" \\"-L$here/../lib\\"" >&2
    exit 0;;
esac
echo "$0 $*" >> "{log}"
while [ $# -gt 0 ]; do [ "$1" = -o ] && out=$2; shift; done
echo object > "$out"
"""


def script(path: Path, text: str) -> Path:
    """Writes a program."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def make_cxx(
    path: Path, version: str = "fake c++ 1.0", native: str = "1", before: str = ""
) -> Path:
    """A C++ compiler that logs its calls to `<path>.log`, runs `before`, and writes its output."""
    log = f"{path}.log"
    return script(path, _ANSWERS.format(version=version, native=native, log=log, before=before))


def calls(program: Path) -> list[str]:
    """Returns the command lines that a fake compiler was called with."""
    log = Path(f"{program}.log")
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def make_toolkit(root: Path, version: str = "13.0.88", known: str = "75 80 86 89 90 100") -> Path:
    """A CUDA toolkit with all its parts; returns its nvcc."""
    for part in ("crt/host_config.h", "cuda_runtime.h", "nv/target"):
        (root / "include" / part).parent.mkdir(parents=True, exist_ok=True)
        (root / "include" / part).touch()
    script(root / "nvvm" / "bin" / "cicc", "#!/bin/sh\n")
    (root / "lib").mkdir(exist_ok=True)
    nvcc = root / "bin" / "nvcc"
    return script(nvcc, _NVCC.format(version=version, known=known, log=f"{nvcc}.log"))


def install_sources(monkeypatch, folder: Path, cpu: dict[str, str], cuda: dict[str, str]) -> Path:
    """Replaces the package `cuda_kernels` by files with these texts."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in {**cpu, **cuda}.items():
        (folder / name).write_text(text, encoding="utf-8")
    package = types.ModuleType("cuda_kernels")
    package.FOLDER = folder
    package.CPU_SOURCES = tuple(name for name in cpu if not name.endswith(".h"))
    package.CUDA_SOURCES = tuple(name for name in cuda if not name.endswith(".h"))
    monkeypatch.setitem(sys.modules, "cuda_kernels", package)
    return folder


def clean_environment(monkeypatch, cache: Path) -> None:
    """Sets the cache, and unsets what would choose compilers or GPUs."""
    monkeypatch.setenv("STYLEGAN_OPS_CACHE", str(cache))
    for name in ("CXX", "CUDA_HOME", "CUDA_PATH", "MAX_JOBS", "TORCH_CUDA_ARCH_LIST"):
        monkeypatch.delenv(name, raising=False)
