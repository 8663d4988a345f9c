"""Options: what a command can be told, declared once as the fields of a frozen dataclass.

    @dataclass(frozen=True)
    class DegradeOptions(Options):
        scale: int | None = option(None, "How many times smaller.", whole(1))

From such a field come the option of the command line with its help (`cli.options`), the key of a
TOML file, the check of the value, which is the same wherever the value comes from, and the words
that give it again (`Options.arguments`). This file imports neither torch nor numpy.
"""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from pulse_sr.errors import UsageError, shown
from pulse_sr.files.paths import EITHER, problem_of, problem_of_name

T = TypeVar("T")

_KEY = "option"
#: Of a text and of a list: enough for people, too few to be a burden.
LONGEST_TEXT, _MOST = 255, 100


@dataclass(frozen=True)
class Kind:
    """What the values of an option are, and how they are written.

    Attributes:
        expects: the values in words, for messages.
        accept: takes a value of Python to the value of the field; ValueError for any other.
        metavar: the value in `--help`.
        parse: text to value; ValueError or OverflowError for any other text.
        write: value to text that `parse` reads.
        toml: types that a TOML file may give.
        hint: what to do about a wrong value.
        choices: the only values, if there are few.
    """

    expects: str
    accept: Callable[[Any], Any]
    metavar: str = ""
    parse: Callable[[str], Any] = str
    write: Callable[[Any], str] = str
    toml: type | tuple[type, ...] = str
    hint: str = ""
    choices: tuple[str, ...] = ()

    def read(self, text: str) -> Any:
        """Returns the value that a text stands for; other text stays, for `check` to refuse."""
        try:
            return self.parse(text)
        except (ValueError, OverflowError):
            return text

    def check(self, value: Any, called: str) -> Any:
        """Returns a value as a field holds it.

        Args:
            value: any.
            called: what stands before the message, such as "--samples".

        Raises:
            UsageError: it is of another type, not finite, or out of range.
        """
        try:
            return self.accept(value)
        except (ValueError, OverflowError) as error:
            guess = self.choices and isinstance(value, str)
            because = f" ({error})" if isinstance(error, Unfit) else ""
            raise UsageError(
                f"{called} expects {self.expects}, got {shown(value)}{because}",
                suggest(value, self.choices) if guess else self.hint,
            ) from error


class Unfit(ValueError):
    """A value that is wrong for a reason that is worth telling."""


def of_type(value: Any, *types: type) -> Any:
    """Returns a value of one of some types; a bool is no number, anything else a ValueError."""
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ValueError(value)
    return value


def finite(value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Returns a number from `low` to `high` as float; ValueError for anything else."""
    number = float(of_type(value, int, float))
    if not (math.isfinite(number) and low <= number <= high):
        raise ValueError(value)
    return number


def plain(number: float) -> str:
    """Returns the shortest text of a number: 40.0 is "40"."""
    return repr(number).removesuffix(".0")


def whole(low: int, high: int, *, auto: bool = False) -> Kind:
    """Whole numbers from `low` to `high`; with `auto` the word auto is None."""

    def accept(value: Any) -> int:
        finite(of_type(value, int), low, high)
        return int(value)

    def parse(text: str) -> int | None:
        return None if auto and text == "auto" else int(text)

    expects = f"a whole number from {low} to {high}" + (" or auto" if auto else "")
    return Kind(expects, accept, "auto|N" if auto else "N", parse, toml=(int, str) if auto else int)


def number(low: float, high: float, unit: str = "") -> Kind:
    """Numbers from `low` to `high`, as float."""
    expects = "a number" + (f" of {unit}" if unit else "") + f" from {low} to {high}"
    return Kind(expects, lambda value: finite(value, low, high), "NUMBER", float, plain, float)


def whole_numbers(expects: str, metavar: str, low: int, high: int) -> Kind:
    """Whole numbers from `low` to `high`, as a sorted tuple without repeats; in a text `16,32`."""

    def accept(value: Any) -> tuple[int, ...]:
        if len(of_type(value, tuple)) > _MOST:
            raise Unfit(f"{len(value)} numbers, at most {_MOST}")
        return tuple(sorted({int(finite(of_type(each, int), low, high)) for each in value}))

    return Kind(
        expects,
        accept,
        metavar,
        lambda text: tuple(int(word) for word in text.split(",")),
        lambda value: ",".join(map(str, value)),
    )


def one_of(*choices: str) -> Kind:
    """Some words."""

    def accept(value: Any) -> str:
        if value not in choices:
            raise ValueError(value)
        return str(value)

    shown = f"[{'|'.join(choices)}]"
    return Kind("one of " + ", ".join(choices), accept, shown, choices=choices)


def text(
    metavar: str, pattern: str = ".+", expects: str = "text", longest: int = LONGEST_TEXT
) -> Kind:
    """Text of a form, a regular expression, without control characters."""

    def accept(value: Any) -> str:
        if len(of_type(value, str)) > longest:
            raise Unfit(f"the limit is {longest} characters")
        if not re.fullmatch(pattern, value) or re.search(r"[\0-\x1f\x7f]", value):
            raise ValueError(value)
        return str(value)

    return Kind(expects, accept, metavar)


def path(expects: str, wanted: str = EITHER, *, missing: bool = False) -> Kind:
    """Paths to what is of a kind, see `files.paths`; with `missing` it need not be there."""

    def accept(value: Any) -> Path:
        _check_path(of_type(value, str, Path), wanted, missing)
        return Path(value)

    return Kind(expects, accept, "PATH", hint="check the path")


def named(metavar: str, expects: str = "a name or a path") -> Kind:
    """Names, and paths to files and folders, as text: what a name means is found out later."""

    def accept(value: Any) -> str:
        _check_path(of_type(value, str), EITHER, missing=True)
        return str(value)

    return Kind(expects, accept, metavar)


def _check_path(value: str | Path, wanted: str, missing: bool) -> None:
    problem = problem_of_name(value)
    if not problem and not (missing and not os.path.lexists(value)):
        problem = problem_of(value, wanted)
    if problem:
        raise Unfit(f"it {problem}")


SWITCH = Kind("true or false", lambda value: of_type(value, bool), toml=bool)


@dataclass(frozen=True)
class Option:
    """What a field says of itself.

    Attributes:
        default: the value without the option; None: nothing, which is a value too.
        help: one sentence.
        kind: of its values.
        name: the long option without dashes.
        off: the long option that says the opposite of a switch.
        unset: what None stands for, for the help.
    """

    default: Any
    help: str
    kind: Kind
    name: str = ""
    off: str = ""
    unset: str = ""

    def check(self, value: Any) -> Any:
        """Returns the value as the field holds it.

        Raises:
            UsageError: it is of another type, not finite, or out of range.
        """
        if value is None and self.default is None:
            return None
        return self.kind.check(value, f"--{self.name}")

    def words(self, value: Any) -> list[str]:
        """Returns the words of a command line that give a value; none for the default."""
        if value == self.default:
            return []
        if self.kind is SWITCH:
            return [f"--{self.name if value else self.off}"]
        return [f"--{self.name}", self.kind.write(value)]


def option(
    default: T, help: str, kind: Kind = SWITCH, name: str = "", off: str = "", unset: str = ""
) -> T:
    """Returns a field that is an option, see `Option`; its name is that of the field, if none."""
    return field(default=default, metadata={_KEY: Option(default, help, kind, name, off, unset)})


@dataclass(frozen=True)
class Options:
    """Base of the frozen dataclasses whose fields are options.

    Raises:
        UsageError: a value is of the wrong type or out of its range; the message names the option.
    """

    def __post_init__(self) -> None:
        for name, each in options_of(type(self)).items():
            object.__setattr__(self, name, each.check(getattr(self, name)))

    def arguments(self) -> list[str]:
        """Returns the command-line arguments that give these values (defaults left out)."""
        own = options_of(type(self)).items()
        return [word for name, each in own for word in each.words(getattr(self, name))]

    def of(self, group: type[Options]) -> dict[str, Any]:
        """Returns the values of another class's options, which this one has too."""
        return {name: getattr(self, name) for name in options_of(group)}


def options_of(group: type[Options]) -> dict[str, Option]:
    """Returns the options of a class by the names of their fields."""
    found = {each.name: each.metadata[_KEY] for each in fields(group) if _KEY in each.metadata}
    return {
        name: replace(each, name=each.name or name.replace("_", "-"))
        for name, each in found.items()
    }


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns a hint: the nearest known name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name[:100], names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0].replace('_', '-')!r}?"
    return "known: " + ", ".join(each.replace("_", "-") for each in names)


# The fields that have the same name and meaning in every command.
DEVICE = text("auto|cpu|cuda[:N]", r"auto|cpu|cuda(:\d{1,3})?", "auto, cpu, cuda or cuda:N")
seed_option = partial(option, 0, "Same seed, same samples.", whole(0, 2**63 - 1))
device_option = partial(option, "auto", "Where to compute.", DEVICE)
precision_option = partial(
    option, "auto", "Number format of the networks.", one_of("auto", "fp32", "bf16")
)
overwrite_option = partial(
    option, False, "Do everything again, or skip what is complete.", off="resume"
)


def recursive_option() -> bool:
    """The field `recursive` of commands that take folders."""
    return option(False, "Take the subfolders of folders too.")


def prior_option() -> str | None:
    """Returns the field `prior`."""
    return option(None, "The prior; without it, the bundled one.", named("NAME|PATH"))
