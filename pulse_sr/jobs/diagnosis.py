"""What this installation is made of, what works, and what repairs the rest.

`collect` returns plain data for a terminal or a bug report. Nothing is compiled or changed but by
`build_ops`.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import pulse_sr
from pulse_sr.errors import first_line
from pulse_sr.files.digest import file_sha256

#: What the commands import, and what adds to some of them.
_NEEDED = (
    *(
        "torch",
        "numpy",
        "scipy",
        "pillow",
        "pillow-heif",
        "opencv-python",
        "matplotlib",
        "imagehash",
    ),
    *("click", "jinja2", "msgspec", "safetensors"),
)
_OPTIONAL = ("torchvision", "lpips", "face-alignment", "ninja", "pytorch-optimizer", "scikit-image")
_CPU_FILE = Path("/proc/cpuinfo")
_DRIVER_FILE = Path("/proc/driver/nvidia/version")

_REINSTALL = "reinstall pulse-sr"


@dataclass(frozen=True)
class Problem:
    """Something that is missing or damaged.

    Attributes:
        what: one line.
        repair: one command or step.
        needed: whether pulse-sr does not work without it.
    """

    what: str
    repair: str
    needed: bool = False


@dataclass(frozen=True)
class Built:
    """What became of one library of ops.

    Attributes:
        target: "cpu" or "cuda".
        path: the library; None where there is none.
        reason: why there is none, one line.
        hint: what helps.
        log: the last lines of the compiler.
        failed: whether it should have been possible.
    """

    target: str
    path: Path | None
    reason: str = ""
    hint: str = ""
    log: str = ""
    failed: bool = False


def collect() -> dict[str, Any]:
    """Describes versions, devices, compilers, compiled ops, priors and packages.

    Returns:
        A document that JSON can hold; `problems` lists what is missing, each with its repair.
    """
    packages = {name: _version(name) for name in (*_NEEDED, *_OPTIONAL)}
    problems = [
        Problem(f"the package {name} is not installed", f"pip install {name}", name in _NEEDED)
        for name, version in packages.items()
        if version is None
    ]
    document: dict[str, Any] = {
        "schema": 1,
        "versions": {"pulse-sr": pulse_sr.__version__, "python": platform.python_version()},
        "machine": {"platform": platform.platform(), "cpu": cpu_model(), "cores": _cores()},
        "packages": packages,
    }
    try:
        import torch

        versions = {"torch": torch.__version__, "cuda": torch.version.cuda}
        threads = torch.get_num_threads()
    except Exception as error:  # half of it may be there, or one of its libraries not load
        if packages["torch"] is not None:
            what = f"torch can not be imported: {first_line(error)}"
            problems.append(Problem(what, "reinstall torch", needed=True))
    else:
        document["versions"] |= versions
        document["machine"]["threads"] = threads
        problems += _add_torch_parts(document)
    document["problems"] = [asdict(problem) for problem in dict.fromkeys(problems)]
    return document


def build_ops(progress: Callable[[str], None]) -> Iterator[Built]:
    """Compiles the ops for the CPU, and for CUDA where there is a usable toolkit.

    Args:
        progress: called with one line at every step.

    Yields:
        One result for each library, as soon as it is known.
    """
    from stylegan_ops import build

    for target in ("cpu", "cuda"):
        state = build.state(target)
        if target == "cuda" and state.status == "unavailable":
            yield Built(target, None, state.reason, state.hint)
            continue
        try:
            yield Built(target, build.build(target, progress))
        except build.BuildError as error:
            yield Built(target, None, error.reason, error.hint, error.log, failed=True)


def cpu_model() -> str:
    """Returns the name of the processor, as far as the system tells."""
    try:
        text = _CPU_FILE.read_text(encoding="utf-8")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return model[1].strip() if model else platform.processor() or platform.machine()


def _add_torch_parts(document: dict[str, Any]) -> list[Problem]:
    """Adds what can be asked only where torch works; returns what is wrong there."""
    from stylegan_ops.library import implementations

    document["devices"] = _devices()
    document["driver"] = _driver()
    document["compilers"] = _compilers(document["versions"]["cuda"])
    document["cache"], problems = _cache()
    document["libraries"] = libraries = _libraries()
    document["ops"] = implementations()
    problems += _library_problems(libraries, has_gpu=bool(document["devices"]))
    document["priors"], prior_problems = _priors()
    return problems + prior_problems


def _devices() -> list[dict[str, Any]]:
    import torch

    found = []
    for i in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        facts = torch.cuda.get_device_properties(i)
        found.append(
            {
                "device": f"cuda:{i}",
                "name": facts.name,
                "memory_gb": round(facts.total_memory / 2**30, 1),
                "capability": f"{facts.major}.{facts.minor}",
            }
        )
    return found


def _driver() -> str | None:
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8")
    except OSError:
        return None
    version = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", text)
    return version[1] if version else None


def _compilers(cuda: str | None) -> dict[str, dict[str, str]]:
    """Returns path and version of each, or the problem."""
    from stylegan_ops import toolchain

    def cxx() -> dict[str, str]:
        found = toolchain.find_compiler()
        return {"path": " ".join(found.command), "version": found.version}

    def nvcc() -> dict[str, str]:
        if cuda is None:
            return {"problem": "not looked for: torch is a build without CUDA"}
        found = toolchain.find_nvcc(cuda)
        return {"path": str(found.path), "version": found.version, "toolkit": str(found.root)}

    def ninja() -> dict[str, str]:
        return {"path": str(toolchain.find_ninja())}

    answers = {}
    for name, ask in (("c++", cxx), ("nvcc", nvcc), ("ninja", ninja)):
        try:
            answers[name] = ask()
        except toolchain.BuildError as error:
            answers[name] = {"problem": error.reason}
    return answers


def _cache() -> tuple[str | None, list[Problem]]:
    from stylegan_ops.build import BuildError, cache_folder

    try:
        return str(cache_folder()), []
    except BuildError as error:
        return None, [Problem(error.reason, error.hint)]


def _libraries() -> dict[str, dict[str, Any]]:
    from stylegan_ops.build import state

    libraries = {}
    for target in ("cpu", "cuda"):
        facts = asdict(state(target))
        libraries[target] = facts | {"path": facts["path"] and str(facts["path"])}
    return libraries


def _library_problems(libraries: Mapping[str, Mapping[str, Any]], has_gpu: bool) -> list[Problem]:
    problems = []
    for target, facts in libraries.items():
        # A machine without a GPU lacks nothing when it has no CUDA ops.
        if facts["status"] == "built" or (target == "cuda" and not has_gpu):
            continue
        reason = facts["reason"]
        what = reason if target in reason.split() else f"no compiled {target} ops: {reason}"
        problems.append(Problem(what, facts["hint"]))
    return problems


def _priors() -> tuple[list[dict[str, str]], list[Problem]]:
    """Compares the bundled priors with their checksums."""
    from pulse_sr.errors import SetupError
    from pulse_sr.models import registry

    try:
        bundled = registry.bundled()
    except SetupError as error:
        return [], [Problem(error.message, error.hint, needed=True)]
    rows, problems = [], []
    for name, entry in bundled.items():
        status = _checksum_status(registry.FOLDERS["prior"] / entry["file"], entry["sha256"])
        rows.append({"name": name, "sha256": entry["sha256"], "status": status})
        if status != "good":
            problems.append(Problem(f"the bundled prior {name} is {status}", _REINSTALL, True))
    return rows, problems


def _checksum_status(file: Path, expected: str) -> str:
    try:
        digest = file_sha256(file)
    except OSError as error:
        return "missing" if isinstance(error, FileNotFoundError) else "unreadable"
    return "good" if digest == expected else f"damaged (sha256 {digest[:12]}...)"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cores() -> int:
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return len(affinity(0)) if affinity else os.cpu_count() or 1
