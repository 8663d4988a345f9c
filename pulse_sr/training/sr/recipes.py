"""Recipes as TOML files: those that come with the package, and a user's own."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from importlib import resources
from typing import Any

from pulse_sr.errors import UsageError, first_line, shown
from pulse_sr.files.paths import problem_of_name, read_text
from pulse_sr.options import suggest
from pulse_sr.training.sr.config import Phase, SrConfig

_FOLDER = resources.files("pulse_sr.training.sr") / "presets"
#: Of a recipe file.
_MOST_BYTES = 2**20
#: What a field of each type may hold in a file, and how that is called.
_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a text"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "float | None": ((int, float), "a number"),
    "tuple[float, ...]": ((list,), "a list of numbers"),
    "tuple[float, float]": ((list,), "two numbers such as [0.9, 0.999]"),
    "tuple[Phase, ...]": ((list,), "tables such as [[phases]]"),
    "Mapping[str, float]": ((dict,), "names with numbers such as { l1 = 1.0 }"),
    "Mapping[str, Any]": ((dict,), "a table"),
}


def preset_names() -> list[str]:
    """The recipes of the package, sorted by name."""
    return sorted(entry.name[:-5] for entry in _FOLDER.iterdir() if entry.name.endswith(".toml"))


def read_recipe(name: str) -> SrConfig:
    """A recipe by its name, or from a TOML file.

    Raises:
        UsageError: there is no such recipe or file; it is not TOML; a key is unknown or missing,
            or a value is wrong. The message names the file.
    """
    known = preset_names()
    if name in known:
        text = (_FOLDER / f"{name}.toml").read_text("utf-8")
    elif name.endswith(".toml") or problem_of_name(name) or os.path.lexists(name):
        text = read_text(name, _MOST_BYTES, called="recipe ")
    else:
        raise UsageError(f"no recipe {name!r}", suggest(name, known))
    try:
        return _recipe(tomllib.loads(text))
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise UsageError(f"recipe {name} is not TOML: {first_line(error)}") from error
    except UsageError as error:
        raise UsageError(f"recipe {name}: {error.message}", error.hint) from error


def _recipe(values: Mapping[str, Any]) -> SrConfig:
    checked = _checked(SrConfig, values, "")
    phases = []
    for number, phase in enumerate(checked.get("phases", ()), 1):
        if not isinstance(phase, dict):
            raise UsageError("phases are tables", "[[phases]]")
        phases.append(Phase(**_checked(Phase, phase, f"phase {number}: ")))
    return SrConfig(**checked | {"phases": tuple(phases)})


def _checked(kind: type[SrConfig] | type[Phase], values: Mapping[str, Any], where: str) -> Any:
    """The values of a dataclass, each of the type that its field has.

    Raises:
        UsageError: for a key that is unknown or missing, or a value of another type.
    """
    known = {field.name: field for field in fields(kind)}
    for key, value in values.items():
        if key not in known:
            raise UsageError(f"{where}unknown key {shown(key)}", suggest(key, known))
        if not _fits(str(known[key].type), value):
            words = _KINDS[str(known[key].type)][1]
            raise UsageError(f"{where}{key} expects {words}, got {shown(value)}")
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise UsageError(f"{where}{name} is missing")
    return {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}


def _fits(kind: str, value: Any) -> bool:
    allowed: Any = _KINDS[kind][0]
    if isinstance(value, bool) or not isinstance(value, allowed):
        return False
    if kind == "tuple[float, float]" and len(value) != 2:
        return False
    numbers: Iterable[Any] = ()
    if kind.startswith("tuple[float"):
        numbers = value
    elif kind == "Mapping[str, float]":
        numbers = value.values()
    return all(isinstance(n, int | float) and not isinstance(n, bool) for n in numbers)
