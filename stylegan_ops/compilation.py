"""Runs ninja, and says in one line why compiling failed."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

from stylegan_ops.recipe import Recipe, ninja_text
from stylegan_ops.toolchain import BuildError

_log = logging.getLogger(__name__)

#: What compiles the ops again, also after a failure.
BUILD_HINT = "pulse-sr doctor --build"

_LOG_LINES = 40

# The line that says why: of a compiler, of nvcc, of the linker. Not the command, whose paths may
# hold any word.
_CAUSE = re.compile(r"\b(error|fatal)\s*:|undefined (reference|symbol)|cannot find -l", re.I)

# What compilers print -> what helps.
_KNOWN_FAILURES = {
    r"No space left on device": f"free some space, then {BUILD_HINT}",
    r"unsupported (GNU|clang) version": f"set CXX to an older compiler, then {BUILD_HINT}",
    r"Killed|out of memory": f"MAX_JOBS=1 {BUILD_HINT}",
}


def run_ninja(
    recipe: Recipe, folder: Path, jobs: int, progress: Callable[[str], None]
) -> list[str]:
    """Compiles `recipe` in `folder`; returns what the compilers said.

    Raises:
        BuildError: a compiler or the linker failed.
    """
    (folder / "build.ninja").write_text(ninja_text(recipe), encoding="utf-8")
    command = [str(recipe.ninja), "-j", str(jobs)]
    # Messages are searched for words, so they must be English; the status for its numbers.
    environment = {**os.environ, "LC_ALL": "C", "NINJA_STATUS": "[%f/%t] "}
    progress(f"compiling the {recipe.target} ops")
    lines: list[str] = []
    with subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                step = re.match(r"\[(\d+)/(\d+)\] (.*)", line)
                if step:
                    name = Path(step[3].split()[0]).name if step[3].strip() else ""
                    progress(f"compiling the {recipe.target} ops: {step[1]} of {step[2]} ({name})")
                else:
                    lines.append(line.rstrip())
        except BaseException:
            process.terminate()  # no compiler goes on after an interruption
            raise
    if process.returncode != 0:
        raise _failure(recipe, lines, process.returncode)
    for line in lines:
        _log.debug("%s", line)
    return lines


def _failure(recipe: Recipe, lines: list[str], code: int) -> BuildError:
    text = "\n".join(lines)
    errors = [line for line in lines if _CAUSE.search(line)]
    cause = errors[0] if errors else f"ninja ended with exit code {code}"
    cause = cause.replace(f"{recipe.folder}{os.sep}", "").strip()[:200]
    hints = [hint for words, hint in _KNOWN_FAILURES.items() if re.search(words, text)]
    return BuildError(
        f"the {recipe.target} ops did not compile: {cause}",
        hints[0] if hints else f"repair what the compiler says, then {BUILD_HINT}",
        "\n".join(lines[-_LOG_LINES:]),
    )


def number_of_jobs() -> int:
    """Returns MAX_JOBS, else the number of cores, at most 4.

    Raises:
        BuildError: MAX_JOBS is not a whole number from 1.
    """
    text = os.environ.get("MAX_JOBS", "")
    if text:
        if not text.isdecimal() or int(text) < 1:
            raise BuildError(
                f"MAX_JOBS is {text!r}, expected a whole number from 1", "unset MAX_JOBS"
            )
        return int(text)
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return min(4, len(affinity(0)) if affinity else os.cpu_count() or 1)
