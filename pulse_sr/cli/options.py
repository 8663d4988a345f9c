"""How a command gets its options: those of dataclasses, and those that every command has."""

from __future__ import annotations

import functools
import os
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.shell_completion import CompletionItem

from pulse_sr import __version__
from pulse_sr.cli.console import JSON_KEY, VERBOSE_KEY, Console
from pulse_sr.errors import UsageError, first_line, shown
from pulse_sr.files.paths import FILE, check_out, read_text
from pulse_sr.files.remote import is_url
from pulse_sr.options import (
    SWITCH,
    Kind,
    Option,
    Options,
    options_of,
    path,
    suggest,
)

#: Of a --config file.
_MOST_BYTES = 2**20

if TYPE_CHECKING:
    from pulse_sr.jobs.staging import Stage

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_F = TypeVar("_F", bound=Callable[..., Any])


def takes(**groups: type[Options]) -> Callable[[_F], Callable[..., Any]]:
    """Adds the options of dataclasses to a command, which gets one of each by its keyword."""

    def decorate(function: _F) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            made = {
                keyword: group(**{name: values.pop(name) for name in options_of(group)})
                for keyword, group in groups.items()
            }
            return function(**made, **values)

        every = [each for group in groups.values() for each in options_of(group).items()]
        for name, option in reversed(every):
            _add(command, name, option)
        return command

    return decorate


def _add(function: Callable[..., Any], name: str, option: Option) -> None:
    words, shown = f"--{option.name}", option.unset
    more: dict[str, Any] = {"is_flag": True}
    if option.kind is SWITCH and option.off:
        words, shown = f"{words}/--{option.off}", option.name if option.default else option.off
    elif option.kind is not SWITCH:
        kind = OptionType(option.kind)
        more = {"type": kind, "metavar": kind.name}
        if option.default not in (None, ()):
            shown = option.kind.write(option.default)
    text = option.help + (f"  [default: {shown}]" if shown else "")
    click.option(words, name, default=option.default, help=text, **more)(function)


class OptionType(click.ParamType):
    """The text of an option as its value; other text stays, for the dataclass to refuse."""

    def __init__(self, kind: Kind) -> None:
        self.kind, self.name = kind, kind.metavar

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Converts what the command line or the TOML file gave."""
        return self.kind.read(value) if isinstance(value, str) else value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Returns the choices that begin so, or asks the shell for files."""
        if "PATH" in self.name:
            return [CompletionItem(incomplete, type="file")]
        return [CompletionItem(each) for each in self.kind.choices if each.startswith(incomplete)]


class Checked(OptionType):
    """The same for a parameter that no dataclass has: what is wrong is refused here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Converts and checks."""
        called = param.opts[-1] if isinstance(param, click.Option) else self.name
        return self.kind.check(super().convert(value, param, ctx), called)


#: The folder of the results, which is there or can be made.
OUT = Kind("a folder", lambda value: check_out(value, "-o "), "DIR")
#: The same, or a URL, which stays a text.
PLACE = replace(OUT, accept=lambda value: value if is_url(value) else OUT.accept(value))


#: Training data: a pattern of archives is the name of no file.
DATA = path("images or archives", missing=True)


def path_argument(name: str, metavar: str, wanted: str, **more: Any) -> Callable[[_F], _F]:
    """Adds an argument that is the path of what is there and is of a kind (`files.paths`)."""
    kind = Checked(replace(path(f"{wanted} that exists", wanted), metavar=metavar))
    return click.argument(name, type=kind, metavar=metavar, **more)


def version_option(function: _F) -> _F:
    """Adds `--version`."""
    return click.version_option(__version__, prog_name="pulse-sr")(function)


def standard_options(function: _F) -> Callable[..., Any]:
    """Adds `-q -v --json --config --version`; the command gets a `console` that obeys them."""
    config = click.option(
        "--config",
        type=Checked(path("a TOML file", FILE)),
        metavar="FILE.toml",
        is_eager=True,
        expose_value=False,
        callback=_read_config,
        help="TOML file with any of these options; the command line wins.",
    )
    return standard_options_but_config(config(function))


def standard_options_but_config(function: _F) -> Callable[..., Any]:
    """The same for a command whose --config is something else."""

    @functools.wraps(function)
    def command(*, quiet: bool, verbose: bool, as_json: bool, **values: Any) -> Any:
        # Under torchrun the first process speaks for all; errors come from whoever has one.
        quiet = quiet or os.environ.get("RANK", "0") != "0"
        return function(console=Console(quiet=quiet, verbose=verbose, as_json=as_json), **values)

    decorators = [
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
        click.option(
            "-v",
            "--verbose",
            is_flag=True,
            is_eager=True,
            callback=_remember(VERBOSE_KEY),
            help="Say more.",
        ),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            is_eager=True,  # errors of the other options are told as it says
            callback=_remember(JSON_KEY),
            help="One JSON document on stdout, nothing else there.",
        ),
        version_option,
    ]
    for decorator in reversed(decorators):
        decorator(command)
    return command


def out_option(
    default: str | None, text: str, *, required: bool = True, urls: bool = False
) -> Callable[[_F], _F]:
    """Adds `-o/--out`; where there is no default, it must be given if `required`."""
    # `default=None` would count as a default: for click, a required option has none.
    presence: dict[str, Any] = {"required": required}
    if default is not None:
        presence = {"default": default, "show_default": True}
    kind = Checked(PLACE if urls else OUT)
    return click.option("-o", "--out", type=kind, metavar="DIR", help=text, **presence)


def stage_of(
    inputs: Sequence[str], out: Path | str, console: Console, *, recursive: bool, dry_run: bool
) -> Stage:
    """Fetches what is at URLs; at the end of the command the results are sent."""
    from pulse_sr.jobs.staging import Stage

    stage = Stage.of(inputs, out, recursive=recursive)
    context = click.get_current_context()
    context.call_on_close(lambda: stage.close(complete=not dry_run))
    console.named = stage.named
    return stage


def missing(name: str) -> click.MissingParameter:
    """The error that says of a parameter of this command that it was not given."""
    context = click.get_current_context()
    param = next(each for each in context.command.params if each.name == name)
    return click.MissingParameter(ctx=context, param=param)


dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print the settings and what would be done; write nothing."
)


def _remember(key: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        ctx.meta[key] = value
        return value

    return callback


def _read_config(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Makes the values of the TOML file the defaults of this command's options."""
    if value is None:
        return
    options = {name: each for each in ctx.command.params for name in _long_names(each)}
    values = load_toml(value, {name: _kinds(each) for name, each in options.items()})
    defaults = dict(ctx.default_map or {})
    for name, given in values.items():
        option = options[name]
        negated = f"--{name.replace('_', '-')}" in option.secondary_opts
        defaults[str(option.name)] = (not given) if negated else given
    ctx.default_map = defaults


def _long_names(param: click.Parameter) -> list[str]:
    if not isinstance(param, click.Option) or param.name in ("config", "help", "version"):
        return []
    names = [*param.opts, *param.secondary_opts]
    return [name[2:].replace("-", "_") for name in names if name.startswith("--")]


def _kinds(param: click.Parameter) -> type | tuple[type, ...]:
    if isinstance(param, click.Option) and param.is_flag:
        return bool
    return param.type.kind.toml if isinstance(param.type, OptionType) else str


def load_toml(
    path: str | Path, known_keys: Mapping[str, type | tuple[type, ...]]
) -> dict[str, Any]:
    """Reads `name = value` lines, each of a known name (with `-` or `_`) and one of its types.

    Raises:
        UsageError: the file is missing or not TOML, a key is unknown (with a suggestion) or has a
            value of another type.
    """
    values: dict[str, Any] = {}
    for key, value in _read_toml(Path(path)).items():
        name = key.replace("-", "_")
        if name not in known_keys:
            raise UsageError(f"{path}: unknown option {shown(key)}", suggest(name, known_keys))
        if name in values:
            raise UsageError(
                f"{path}: option {shown(key)} is given twice", "keep one of the two lines"
            )
        _check_type(path, key, value, known_keys[name])
        values[name] = value
    return values


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(read_text(path, _MOST_BYTES, called="--config "))
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        raise UsageError(
            f"--config {path} is not TOML: {first_line(error)}",
            'write lines such as: method = "phased"',
        ) from error


def _check_type(path: str | Path, key: str, value: Any, kinds: type | tuple[type, ...]) -> None:
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    if float in kinds and int not in kinds:
        kinds = (*kinds, int)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(kind.__name__ for kind in kinds)
        raise UsageError(
            f"{path}: option {shown(key)} expects {expected}, "
            f"got {type(value).__name__} {shown(value)}"
        )
