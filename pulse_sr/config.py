"""Settings of a search, checked once at the border, and their TOML form.

`SearchConfig` is what the Python API, the command line and the result files share. It imports
neither torch nor numpy, so that `pulse-sr run --help` can show its defaults.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pulse_sr.errors import UsageError
from pulse_sr.operators.spec import AUTO, OperatorSpec, parse_operator

METHODS = ("phased", "pulse", "ilo", "langevin")
#: Methods that draw samples: all take all their steps.
SAMPLERS = ("langevin",)
PROJECTIONS = ("exact", "soft", "off")
FITS = ("pad", "crop")
ALIGN_MODES = ("auto", "always", "never")
PRECISIONS = ("auto", "fp32", "bf16")

DEFAULT_STEPS = {"phased": 100, "pulse": 100, "ilo": 150, "langevin": 800}
DEFAULT_SLOTS = 8

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True)
class SearchConfig:
    """Settings of one search; every field has the meaning of the option with the same name.

    Attributes:
        samples: how many faces to find for each input, 1 or more.
        seed: the number that every sample's own seed is derived from, 0 or more.
        method: the search, one of `METHODS`.
        strict_pulse: with method "pulse": the original's own behaviour, without the repairs.
        steps: optimiser steps per sample; None is the method's default (`DEFAULT_STEPS`).
        operator: how the input was made from the unknown face, such as "bicubic" or "gaussian:1.6"
            (docs/operators.md); "auto" finds out.
        scale: prior resolution / LR size; None lets the input's size decide.
        project: null-space projection after the search; None chooses (`projection`).
        target_db: LR-PSNR in dB at which a sample stops searching.
        fit: for inputs that are not square or whose size does not fit the prior; None is "pad" for
            the former and a refusal for the latter.
        batch: samples searched at once; None is `DEFAULT_SLOTS` on a CPU, and on a GPU what its
            memory and the work allow.
        device: "auto", "cpu", "cuda" or "cuda:N".
        precision: "auto", "fp32" or "bf16".

    Raises:
        UsageError: a value is of the wrong type or out of its range; the message names the option.
    """

    samples: int = 8
    seed: int = 0
    method: str = "phased"
    strict_pulse: bool = False
    steps: int | None = None
    operator: str = "bicubic"
    scale: int | None = None
    project: str | None = None
    target_db: float = 38.0
    fit: str | None = None
    batch: int | None = None
    device: str = "auto"
    precision: str = "auto"

    def __post_init__(self) -> None:
        _check_integer("samples", self.samples, 1, 100_000)
        _check_integer("seed", self.seed, 0, 2**63 - 1)
        _check_integer("steps", self.steps, 1, 1_000_000, optional=True)
        _check_integer("scale", self.scale, 1, 1024, optional=True)
        _check_integer("batch", self.batch, 1, 4096, optional=True)
        _check_choice("method", self.method, METHODS)
        _check_choice("project", self.project, PROJECTIONS, optional=True)
        _check_choice("fit", self.fit, FITS, optional=True)
        _check_choice("precision", self.precision, PRECISIONS)
        self._check_rest()

    def _check_rest(self) -> None:
        if not isinstance(self.strict_pulse, bool):
            raise _wrong("strict_pulse", "true or false", self.strict_pulse)
        if self.strict_pulse and self.method != "pulse":
            raise UsageError(
                f"--strict-pulse expects --method pulse, got --method {self.method}",
                "add --method pulse",
            )
        if not isinstance(self.operator, str) or not self.operator.strip():
            raise _wrong("operator", "a description such as bicubic", self.operator)
        if self.operator.strip() != AUTO:
            self._check_operator(parse_operator(self.operator))
        if not isinstance(self.device, str) or not _DEVICE.fullmatch(self.device):
            raise _wrong("device", "auto, cpu, cuda or cuda:N", self.device)
        number = isinstance(self.target_db, int | float) and not isinstance(self.target_db, bool)
        if not number or not math.isfinite(self.target_db) or not 1 <= self.target_db <= 100:
            raise _wrong("target_db", "a number of dB between 1 and 100", self.target_db)
        if self.method in SAMPLERS and self.target_db != type(self).target_db:
            raise UsageError(
                f"--target-db has no effect on --method {self.method}: no sample stops early",
                "leave it out; --steps says how long the chains are",
            )
        object.__setattr__(self, "target_db", float(self.target_db))

    def _check_operator(self, spec: OperatorSpec) -> None:
        if not spec.resizes and self.scale not in (None, 1):
            raise UsageError(
                f"--scale {self.scale} does not suit --operator {spec.text!r}: it keeps the size",
                f"--scale 1, or --operator 'bicubic|{spec.text}'",
            )
        if spec.has_jpeg and self.project == "exact":
            raise UsageError(
                f"--project exact cannot meet the JPEG file of --operator {self.operator!r}",
                "--project soft",
            )

    @property
    def _noisy(self) -> bool:
        return self.operator.strip() != AUTO and parse_operator(self.operator).noisy

    @property
    def total_steps(self) -> int:
        """Steps per sample, with the method's default filled in."""
        return DEFAULT_STEPS[self.method] if self.steps is None else self.steps

    @property
    def slots(self) -> int:
        """How many samples are searched at once, with the default of a CPU filled in."""
        return DEFAULT_SLOTS if self.batch is None else self.batch

    def projection(self, *, is_jpeg: bool) -> str:
        """Returns "exact", "soft" or "off": the choice made, or what fits this input.

        Without a choice it is "off" for the strict original (which has no projection), "soft"
        for a JPEG file or an operator with noise, which must not be reproduced, else "exact".
        """
        if self.project is not None:
            return self.project
        if self.strict_pulse:
            return "off"
        return "soft" if is_jpeg or self._noisy else "exact"

    def pixel_options(self) -> dict[str, Any]:
        """Returns what decides a sample's pixels beside the input and the prior.

        `samples` is not among them (sample 3 of 4 is sample 3 of 8), nor is the device: results of
        a GPU and of a CPU may share a run. The slot count is, since it may change the rounding.
        A mask is named by the content of its file.

        Raises:
            UsageError: the mask file can not be read.
        """
        options = asdict(self)
        del options["samples"], options["device"]
        operator = self.operator.strip()
        options["operator"] = AUTO if operator == AUTO else parse_operator(operator).identity()
        options["steps"] = self.total_steps
        options["batch"] = self.slots
        options["project"] = self.project or "auto"
        return options

    def arguments(self) -> list[str]:
        """Returns the command-line arguments that give this configuration (defaults left out)."""
        words: list[str] = []
        for field in fields(self):
            value = getattr(self, field.name)
            if value == field.default:
                continue
            words.append(option_name(field.name))
            if not isinstance(value, bool):
                words.append(
                    str(value).removesuffix(".0") if isinstance(value, float) else str(value)
                )
        return words


def option_name(name: str) -> str:
    """Returns the long option of a field: `target_db` is `--target-db`."""
    return "--" + name.replace("_", "-")


def load_toml(
    path: str | Path, known_keys: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    """Reads options from a TOML file of `name = value` lines.

    Args:
        path: the file.
        known_keys: option name (with `_`) -> the type or types a value may have. In the file
            `target-db` and `target_db` are the same key.

    Returns:
        The values by option name with `_`.

    Raises:
        UsageError: the file is missing or not TOML, a key is unknown (with a suggestion) or has a
            value of another type.
    """
    values: dict[str, Any] = {}
    for key, value in _read_toml(Path(path)).items():
        name = key.replace("-", "_")
        if name not in known_keys:
            raise UsageError(f"{path}: unknown option {key!r}", suggest(name, known_keys))
        if name in values:
            raise UsageError(f"{path}: option {key!r} is given twice", "keep one of the two lines")
        _check_type(path, key, value, known_keys[name])
        values[name] = value
    return values


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns a hint: the nearest known name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0].replace('_', '-')!r}?"
    return "known: " + ", ".join(each.replace("_", "-") for each in names)


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise UsageError(f"could not read --config {path}: {reason}") from error
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"--config {path} is not TOML: {error}", 'write lines such as: method = "phased"'
        ) from error


def _check_type(path: str | Path, key: str, value: Any, kinds: type | tuple[type, ...]) -> None:
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if float in kinds and int not in kinds:
        kinds = (*kinds, int)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise UsageError(
            f"{path}: option {key!r} expects {expected}, got {type(value).__name__} {value!r}"
        )


def _check_integer(
    name: str, value: object, low: int, high: int, *, optional: bool = False
) -> None:
    if optional and value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(name, f"a whole number from {low} to {high}", value)


def _check_choice(
    name: str, value: object, choices: tuple[str, ...], *, optional: bool = False
) -> None:
    if optional and value is None:
        return
    if value not in choices:
        hint = suggest(value, choices) if isinstance(value, str) else ""
        raise _wrong(name, "one of " + ", ".join(choices), value, hint)


def _wrong(name: str, expected: str, actual: object, hint: str = "") -> UsageError:
    return UsageError(f"{option_name(name)} expects {expected}, got {actual!r}", hint)
