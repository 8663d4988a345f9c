"""The options that have the same name and meaning in every command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from pulse_sr import __version__
from pulse_sr.cli.console import JSON_KEY, VERBOSE_KEY
from pulse_sr.config import PRECISIONS, SearchConfig, load_toml

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}

_F = TypeVar("_F", bound=Callable[..., Any])
_DEFAULTS = SearchConfig()


def version_option(function: _F) -> _F:
    """Adds `--version`."""
    return click.version_option(__version__, prog_name="pulse-sr")(function)


def standard_options(function: _F) -> _F:
    """Adds `-q -v --json --config --version`: parameters quiet, verbose, as_json."""
    return standard_options_but_config(config_option(function))


config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    is_eager=True,
    expose_value=False,
    callback=lambda ctx, param, value: _read_config(ctx, param, value),
    help="TOML file with any of these options; the command line wins.",
)


def standard_options_but_config(function: _F) -> _F:
    """Adds `-q -v --json --version`, for a command whose --config is something else."""
    decorators = [
        click.option("-q", "--quiet", is_flag=True, help="Print errors only."),
        click.option(
            "-v", "--verbose", is_flag=True, callback=_remember(VERBOSE_KEY), help="Say more."
        ),
        click.option(
            "--json",
            "as_json",
            is_flag=True,
            callback=_remember(JSON_KEY),
            help="One JSON document on stdout, nothing else there.",
        ),
        version_option,
    ]
    for decorator in reversed(decorators):
        function = decorator(function)
    return function


def out_option(default: str | None, text: str, *, required: bool = True) -> Callable[[_F], _F]:
    """Adds `-o/--out`; where there is no default, it must be given if `required`."""
    # `default=None` would count as a default: for click, a required option has none.
    presence: dict[str, Any] = {"required": required}
    if default is not None:
        presence = {"default": default, "show_default": True}
    kind = click.Path(file_okay=False, path_type=Path)
    return click.option("-o", "--out", type=kind, metavar="DIR", help=text, **presence)


def missing(name: str) -> click.MissingParameter:
    """The error that says of a parameter of this command that it was not given."""
    context = click.get_current_context()
    param = next(each for each in context.command.params if each.name == name)
    return click.MissingParameter(ctx=context, param=param)


seed_option = click.option(
    "--seed", type=int, default=_DEFAULTS.seed, show_default=True, help="Same seed, same samples."
)
device_option = click.option(
    "--device",
    default=_DEFAULTS.device,
    show_default=True,
    metavar="auto|cpu|cuda[:N]",
    help="Where to compute.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default=_DEFAULTS.precision,
    show_default=True,
    help="Number format of the networks.",
)
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
    if isinstance(param.type, IntegerOrAuto):
        return (int, str)
    if isinstance(param.type, click.types.IntParamType):
        return int
    return float if isinstance(param.type, click.types.FloatParamType) else str


class IntegerOrAuto(click.ParamType):
    """A whole number, or `auto`, which becomes None."""

    name = "auto|N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | None:
        """Converts what the command line or the TOML file gave."""
        if value is None or value == "auto":
            return None
        try:
            return int(value)
        except ValueError:
            self.fail(f"expects a whole number or auto, got {value!r}", param, ctx)
