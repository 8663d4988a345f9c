"""Compiles the ops once, keeps the libraries in a cache folder and finds them there again.

The cache holds `<target>-<key>/` with the library and `build.json`, and beside it
`<target>-<key>.lock` and, after a failure, `<target>-<key>.failed.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stylegan_ops.compilation import BUILD_HINT, number_of_jobs, run_ninja
from stylegan_ops.recipe import Recipe, make_recipe
from stylegan_ops.toolchain import BuildError

__all__ = ["BuildError", "State", "build", "cache_folder", "state"]

_CACHE_HINT = "set STYLEGAN_OPS_CACHE to a folder that can be written"
_RECORD = "build.json"


@dataclass(frozen=True)
class State:
    """What is known about the library of a target, without compiling.

    Attributes:
        target: "cpu" or "cuda".
        status: "built"; "missing" (it could be built); "failed" (the last try did); "unavailable"
            (this machine can not build it).
        path: the library, where it is built.
        reason: why it is not built, one line; empty where it is.
        hint: one command or step that helps; empty where it is built.
        details: compiler, version, architectures, key, seconds, as far as known.
    """

    target: str
    status: str
    path: Path | None
    reason: str
    hint: str
    details: dict[str, str] = field(default_factory=dict)


def state(target: str) -> State:
    """Looks up the library of `target` ("cpu" or "cuda") in the cache; compiles nothing.

    Raises:
        ValueError: no such target.
    """
    try:
        recipe = make_recipe(target)
        place = _Place(cache_folder(), recipe)
    except BuildError as error:
        return State(target, "unavailable", None, error.reason, error.hint)
    details = recipe.details()
    path = place.find()
    if path is not None:
        seconds = str(_read_json(place.folder / _RECORD).get("seconds", "unknown"))
        return State(target, "built", path, "", "", {**details, "seconds": seconds})
    failure = place.recorded_failure()
    if failure is not None:
        return State(target, "failed", None, failure.reason, failure.hint, details)
    return State(target, "missing", None, "not compiled yet", BUILD_HINT, details)


def _silent(text: str) -> None:
    """Takes progress that nobody wants to see."""


def build(target: str, progress: Callable[[str], None] = _silent) -> Path:
    """Finds the library of `target` in the cache, else compiles it, also after a recorded failure.

    Several processes may call this at once: one compiles, the others wait and take the result.

    Args:
        target: "cpu" or "cuda".
        progress: called with one line at every step.

    Returns:
        The library.

    Raises:
        ValueError: no such target.
        BuildError: it can not be compiled here, it did not compile, or the cache can not be
            written.
    """
    recipe = make_recipe(target)
    place = _Place(cache_folder(), recipe)
    found = place.find()
    if found is not None:
        return found
    with _explained(place.cache):
        place.cache.mkdir(parents=True, exist_ok=True)
        with _locked(place.lock, progress) as waited:
            found = place.find()
            if found is not None:
                return found
            failure = place.recorded_failure()
            if waited and failure is not None:  # the other process has just tried the same
                raise failure
            return _build_locked(place, progress)


def cache_folder() -> Path:
    """Returns where the libraries are kept; the folder need not exist.

    Raises:
        BuildError: the user has no home folder, and no variable names another one.
    """
    own = os.environ.get("STYLEGAN_OPS_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    folder = user_cache()
    if folder is None:
        raise BuildError("there is no home folder for the cache of the ops", _CACHE_HINT)
    return folder / "ops"


def user_cache() -> Path | None:
    """The project's folder for what can be made again; None for a user without a home."""
    shared = os.environ.get("XDG_CACHE_HOME")
    if shared and Path(shared).is_absolute():  # its standard says to ignore relative ones
        return Path(shared) / "pulse-sr"
    try:
        return Path.home() / ".cache" / "pulse-sr"
    except RuntimeError:
        return None


class _Place:
    """Where one library lies in the cache, with its lock and its record of failure."""

    def __init__(self, cache: Path, recipe: Recipe) -> None:
        self.cache = cache
        self.recipe = recipe
        self.folder = cache / recipe.name
        self.lock = cache / f"{recipe.name}.lock"
        self.failed = cache / f"{recipe.name}.failed.json"

    def find(self) -> Path | None:
        """Returns the library if it is there."""
        library = self.folder / self.recipe.library
        # A method of Path would raise where it may not look.
        return library if os.path.isfile(library) else None

    def recorded_failure(self) -> BuildError | None:
        """Returns why the last try failed."""
        record = _read_json(self.failed)
        lines = record.get("log", [])
        if not isinstance(record.get("reason"), str) or not isinstance(lines, list):
            return None
        log = "\n".join(map(str, lines))
        return BuildError(record["reason"], str(record.get("hint", "")), log)

    def record_failure(self, error: BuildError) -> None:
        """Writes down why it failed, so that not every process tries again."""
        record = {"reason": error.reason, "hint": error.hint, "log": error.log.splitlines()}
        temporary = self.cache / f".{self.recipe.name}.failed.{secrets.token_hex(4)}"
        with contextlib.suppress(OSError):  # then the next process finds out by itself
            temporary.write_text(json.dumps(record, indent=2), encoding="utf-8")
            os.replace(temporary, self.failed)


def _build_locked(place: _Place, progress: Callable[[str], None]) -> Path:
    """Compiles in a temporary folder and renames it, so that a library is complete or absent."""
    recipe, jobs = place.recipe, number_of_jobs()
    for left_over in place.cache.glob(f".{recipe.name}.*"):  # of a process that was killed
        _remove(left_over)
    temporary = place.cache / f".{recipe.name}.{secrets.token_hex(4)}"
    started = time.perf_counter()
    try:
        temporary.mkdir()
        warnings = _compile_recorded(place, temporary, jobs, progress)
        record = {
            **recipe.facts,
            "key": recipe.key,
            "seconds": round(time.perf_counter() - started, 1),
            "warnings": warnings,
        }
        _keep_only(temporary, recipe.library)
        (temporary / _RECORD).write_text(json.dumps(record, indent=2), encoding="utf-8")
        _remove(place.folder)  # without a library in it, or `find` had returned that
        os.rename(temporary, place.folder)
        place.failed.unlink(missing_ok=True)
    finally:
        _remove(temporary)
    progress(f"compiled the {recipe.target} ops in {record['seconds']:.0f} s")
    return place.folder / recipe.library


def _compile_recorded(
    place: _Place, folder: Path, jobs: int, progress: Callable[[str], None]
) -> list[str]:
    """Compiles in `folder`; writes a failure down, and refuses sources that changed meanwhile."""
    try:
        warnings = run_ninja(place.recipe, folder, jobs, progress)
    except BuildError as error:
        place.record_failure(error)
        raise
    # Otherwise what was compiled from new sources would be found under the key of the old ones.
    if place.recipe.digests() != place.recipe.facts["files"]:
        raise BuildError(
            f"the sources of the {place.recipe.target} ops changed while they were compiled",
            BUILD_HINT,
        )
    return warnings


@contextlib.contextmanager
def _locked(path: Path, progress: Callable[[str], None]) -> Iterator[bool]:
    """Holds the lock file, which a process that ends lets go; yields whether another one had it."""
    lock = FileLock(path, thread_local=False)
    waited = False
    try:
        lock.acquire(blocking=False)
    except Timeout:
        waited = True
        progress("waiting for another process, which compiles the same ops")
        lock.acquire()
    try:
        yield waited
    finally:
        lock.release()


@contextlib.contextmanager
def _explained(cache: Path) -> Iterator[None]:
    """Turns errors of the file system into one line."""
    try:
        yield
    except BrokenPipeError:  # whoever reads the progress went away
        raise
    except OSError as error:
        what = error.strerror or type(error).__name__
        raise BuildError(
            f"the cache folder {cache} can not be used: {what}", _CACHE_HINT
        ) from error


def _keep_only(folder: Path, name: str) -> None:
    for path in folder.iterdir():
        if path.name != name:
            _remove(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a file; empty if there is none or it is damaged."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
