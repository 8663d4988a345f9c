"""The page as a server: its folder, its limits, its end."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from pulse_sr.errors import PulseError, SetupError, UsageError
from pulse_sr.files.lock import LOCK_NAME, lock_run
from pulse_sr.jobs.importing import load_prior
from pulse_sr.priors.bank import bank_of
from pulse_sr.web.options import ServeOptions
from pulse_sr.web.visits import Visits, sweeping

_ROOT = "pulse-sr-serve-"


def serve(options: ServeOptions, ready: Callable[[str], None]) -> None:
    """Serves the page until the process is told to end; then nothing of any visitor is left.

    Args:
        options: where, and the limits.
        ready: called with the address when the page can be opened.

    Raises:
        UsageError, SetupError: the prior can not be loaded, the port is taken, or the extra `web`
            is not installed.
    """
    _require()
    with contextlib.closing(_listen(options.host, options.port)) as listening:
        prior = load_prior(options.prior, options.device)
        bank_of(prior)  # some draw theirs, which the first visitor should not wait for
        with _folder() as root, _environment(root / "cache"):
            visits, ended = Visits(root), threading.Event()
            sweeping(visits, ended)
            try:
                from pulse_sr.web.page import application, run  # they read the environment

                app = application(options, prior, visits)
                run(app, listening, lambda: ready(_address(options.host, listening)))
            finally:
                ended.set()
                visits.close_all()


def _require() -> None:
    if importlib.util.find_spec("gradio") is None:
        raise SetupError("the page needs gradio", "pip install 'pulse-sr[web]'")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        reason = error.strerror or str(error)
        # A name that means nothing is a wrong option, a port that is taken is not.
        kind = UsageError if isinstance(error, socket.gaierror) else SetupError
        raise kind(
            f"{host}:{port} can not be listened on: {reason}", "choose another --port or --host"
        ) from error
    return listening


def _address(host: str, listening: socket.socket) -> str:
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listening.getsockname()[1]}"


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    """A folder that goes with the server; what servers left that were killed goes too."""
    _remove_left()
    root = Path(tempfile.mkdtemp(prefix=_ROOT)).resolve()
    lock = lock_run(root)
    try:
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)
        lock.close()


def _remove_left() -> None:
    """Removes the folders of servers that do not run any more."""
    for root in Path(tempfile.gettempdir()).glob(f"{_ROOT}*"):
        lock: IO[str] | None = None
        with contextlib.suppress(OSError, PulseError):
            if root.is_symlink() or root.stat().st_uid != os.getuid():
                continue
            if not (root / LOCK_NAME).is_file():  # another one is just being made
                continue
            lock = lock_run(root)
            shutil.rmtree(root, ignore_errors=True)
        if lock is not None:
            lock.close()


@contextlib.contextmanager
def _environment(cache: Path) -> Iterator[None]:
    """What gradio reads from the environment, as long as the page is served."""
    own = {
        "GRADIO_TEMP_DIR": str(cache),
        "GRADIO_ANALYTICS_ENABLED": "False",
        "GRADIO_SHARE": "False",
        "GRADIO_MCP_SERVER": "False",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
