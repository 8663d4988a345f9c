"""`pulse-sr serve`: the page for a browser."""

from __future__ import annotations

import click

from pulse_sr.cli.console import INTERRUPTED, TERMINATED, Console, Terminated, emit_json
from pulse_sr.cli.options import CONTEXT, standard_options, takes
from pulse_sr.web.options import LOOPBACK, ServeOptions


@click.command("serve", context_settings=CONTEXT)
@takes(options=ServeOptions)
@standard_options
def command(options: ServeOptions, console: Console) -> int:
    """Open a page where photos are dropped and faces are found, without a terminal.

    Example: pulse-sr serve --port 7860
    """
    from pulse_sr.web.server import serve

    def ready(address: str) -> None:
        if console.as_json:
            emit_json({"address": address})
        console.line(f"the page is at {address}; Ctrl-C ends it")
        if options.host not in LOOPBACK:
            console.line("everybody who reaches this address can use it: there is no password")

    # The page says to each visitor what becomes of the faces; the terminal names nobody's files.
    console.muted = ("pulse_sr.alignment",)
    console.live("loading the prior")
    try:
        serve(options, ready)
    except KeyboardInterrupt:
        return _ended(console, INTERRUPTED)
    except Terminated:
        return _ended(console, TERMINATED)
    return 0


def _ended(console: Console, code: int) -> int:
    console.line("ended; uploads and results of all visitors are removed")
    return code
