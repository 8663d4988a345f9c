"""Runs the compilers, and says in one line why compiling failed."""

from __future__ import annotations

import logging
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from stylegan_ops.recipe import Recipe
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


def compile_library(
    recipe: Recipe, folder: Path, jobs: int, progress: Callable[[str], None]
) -> list[str]:
    """Compiles `recipe` in `folder`, so many sources at once; returns what the compilers said.

    Raises:
        BuildError: a compiler or the linker failed.
    """
    running: list[subprocess.Popen[str]] = []
    lines: list[str] = []
    count = len(recipe.units) + 1

    def run(command: Sequence[str]) -> tuple[int, list[str]]:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "LC_ALL": "C"},  # messages are searched for English words
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        running.append(process)
        output, _ = process.communicate()
        return process.returncode, output.splitlines()

    def finish(number: int, name: str, code: int, said: list[str]) -> None:
        if code != 0:
            raise _failure(recipe, said, code)
        lines.extend(said)
        progress(f"compiling the {recipe.target} ops: {number} of {count} ({name})")

    progress(f"compiling the {recipe.target} ops")
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(run, recipe.command(unit)): unit for unit in recipe.units}
        for number, future in enumerate(as_completed(futures), start=1):
            finish(number, futures[future].source.name, *future.result())
        finish(count, "linking", *run(recipe.link_command()))
    finally:  # no compiler goes on after a failure or an interruption
        pool.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()
        pool.shutdown()
    for line in lines:
        _log.debug("%s", line)
    return lines


def _failure(recipe: Recipe, lines: list[str], code: int) -> BuildError:
    text = "\n".join(lines)
    errors = [line for line in lines if _CAUSE.search(line)]
    cause = errors[0] if errors else f"a compiler ended with exit code {code}"
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
