"""The command line: a lazy group, so that `pulse-sr --help` imports neither torch nor numpy.

To add a command, write `cli/<name>.py` with a click command and add one line to `COMMANDS`. A
command's function returns its exit code (None is 0) and raises `PulseError` for what the user
should read.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Mapping, Sequence
from types import FrameType
from typing import Any

import click

from pulse_sr.cli.console import (
    INTERRUPTED,
    JSON_KEY,
    TERMINATED,
    VERBOSE_KEY,
    Terminated,
    emit_json,
    give_up,
    print_error,
    say,
)
from pulse_sr.cli.options import CONTEXT, version_option
from pulse_sr.errors import PulseError, describe_error, shown
from pulse_sr.options import suggest

#: name -> (module:attribute, short help). The help stands here so that listing imports nothing.
COMMANDS = {
    "run": ("pulse_sr.cli.run:command", "Find high-res faces that downscale to each input."),
    "align": ("pulse_sr.cli.align:command", "Find faces in photos, crop and rotate them."),
    "train-prior": ("pulse_sr.cli.train_prior:command", "Train a prior on a folder of images."),
    "train-sr": ("pulse_sr.cli.train_sr:command", "Train a supervised network on photos."),
    "upscale": ("pulse_sr.cli.upscale:command", "Enlarge pictures with a supervised network."),
    "compare": ("pulse_sr.cli.compare:command", "Bicubic, supervised, latent search side by side."),
    "eval": ("pulse_sr.cli.eval:command", "Measure results against their references."),
    "prior": ("pulse_sr.cli.prior:command", "List priors and show what they are."),
    "degrade": ("pulse_sr.cli.degrade:command", "Make low-res test inputs with a known operator."),
    "check-op": ("pulse_sr.cli.check_op:command", "Rank the operators that turn HR into LR."),
    "serve": ("pulse_sr.cli.serve:command", "Open the page for a browser."),
    "bench": ("pulse_sr.cli.bench:command", "Measure pulse-sr against a plain implementation."),
    "doctor": ("pulse_sr.cli.doctor:command", "Show what is installed, what works, what repairs."),
}

#: Seconds after which a signal that came while something was imported is tried again.
_IMPORT_PAUSE = 0.05
_RESUMES = "what is finished is kept; the same command resumes"


class LazyGroup(click.Group):
    """Imports a command only when it is used, and turns errors into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports one command."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        found: click.Command = getattr(importlib.import_module(module), attribute)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Finds the command, or says which ones there are."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            known = suggest(args[0], COMMANDS)
            raise click.UsageError(f"no command {shown(args[0])}; {known}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands from the table, importing none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command; our own errors and unexpected ones become lines and an exit code."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            return _report(ctx.meta, error)

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs the command line and exits with the codes of `docs/interface.md`."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        before = _catch_stops()
        # Remarks on the metadata of a file are not for the user.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            sys.exit(super().main(args, prog_name, complete_var, False, **extra) or 0)
        except click.exceptions.NoArgsIsHelpError as error:
            error.show()
            sys.exit(error.exit_code)
        except click.ClickException as error:
            print_error(error.format_message(), _usage_hint(error))
            sys.exit(error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            print_error("interrupted", _RESUMES)
            sys.exit(INTERRUPTED)
        except Terminated:
            print_error("terminated", _RESUMES)
            sys.exit(TERMINATED)
        except Exception as error:  # help and version on a stdout that can not be written
            give_up(sys.stdout)
            sys.exit(_report({}, error))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _report(meta: Mapping[str, Any], error: Exception) -> int:
    """Prints an error as two lines (with -v also the traceback); returns the exit code."""
    if meta.get(VERBOSE_KEY):
        say("".join(traceback.format_exception(error)))
    message, hint, code = describe_error(error)
    print_error(message, hint)
    if meta.get(JSON_KEY):
        with contextlib.suppress(PulseError):  # stdout is what is broken
            emit_json({"error": message, "hint": hint, "exit_code": code})
    return code


def _usage_hint(error: click.ClickException) -> str:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help" if context is not None else "pulse-sr --help"


def _catch_stops() -> dict[int, Any]:
    """Makes SIGTERM raise `Terminated`, and it and SIGINT wait for the end of an import.

    What is raised inside an import may come out as an error of the package, or as the absence of
    something that it could do without.

    Returns:
        the old handlers; none outside the main thread. A SIGINT that is ignored stays so.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    stops: dict[int, type[BaseException]] = {signal.SIGTERM: Terminated}
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        stops[signal.SIGINT] = KeyboardInterrupt

    def stop(number: int, frame: FrameType | None) -> None:
        if not _is_importing(frame):
            raise stops[number]
        again = threading.Timer(_IMPORT_PAUSE, lambda: os.kill(os.getpid(), number))
        again.daemon = True
        again.start()

    return {number: signal.signal(number, stop) for number in stops}


def _is_importing(frame: FrameType | None) -> bool:
    """Whether an import runs that began inside `main`, which may itself be called by one."""
    for each, _ in traceback.walk_stack(frame):
        if each.f_code is LazyGroup.main.__code__:
            return False
        if each.f_globals.get("__name__") == "importlib._bootstrap":
            return True
    return False


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@version_option
def main() -> None:
    """High-res faces whose downscaling matches a low-res photo, from a StyleGAN prior.

    The faces are synthetic: plausible reconstructions, not the person.
    """
