"""The page as an application: its parts, which event goes where, and the gate around it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import fastapi
import gradio as gr
import uvicorn
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pulse_sr.priors.base import Prior
from pulse_sr.web.gate import App, Gate
from pulse_sr.web.handlers import Handlers
from pulse_sr.web.layout import STYLE, lay_out, script, theme
from pulse_sr.web.options import LOOPBACK, ServeOptions
from pulse_sr.web.visits import Visits

#: Connections at the same time; seconds that open ones have when the server ends.
_CONNECTIONS, _GRACE_S = 512, 2


def build(options: ServeOptions, prior: Prior, visits: Visits) -> tuple[gr.Blocks, Handlers]:
    """Returns the page and what answers its events."""
    with gr.Blocks(title="pulse-sr", analytics_enabled=False, fill_width=False) as blocks:
        parts = lay_out(prior, options)
        handlers = Handlers(parts, prior, options, visits)
        _connect(handlers)
        blocks.unload(handlers.leave)
    blocks.queue(max_size=options.queue, default_concurrency_limit=1, api_open=False)
    return blocks, handlers


def _connect(handlers: Handlers) -> None:
    parts = handlers.parts
    everything = [
        each for name, each in vars(parts).items() if name not in ("upload", "operator", "samples")
    ]
    quiet: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
    looking = parts.upload.upload(
        handlers.look,
        parts.upload,
        everything,
        concurrency_id="look",
        **quiet,
    )
    looking.failure(handlers.refused, None, everything, queue=False, **quiet)
    parts.upload.clear(handlers.clear, None, everything, queue=False, **quiet)
    chosen = (parts.faces, parts.side, parts.operator, parts.samples, parts.method, parts.seed)
    clicked = parts.find.click(handlers.queued, None, everything, queue=False, **quiet)
    searching = clicked.then(
        handlers.search, list(chosen), everything, concurrency_id="search", **quiet
    )
    searching.failure(handlers.search_refused, None, everything, queue=False, **quiet)
    stopping = parts.stop.click(
        handlers.stop, None, everything, cancels=[searching], queue=False, **quiet
    )
    stopping.then(handlers.stopped, None, everything, queue=False, **quiet)
    parts.face.input(handlers.choose_face, parts.face, everything, queue=False, **quiet)
    parts.gallery.select(handlers.choose_sample, parts.face, everything, queue=False, **quiet)


def application(options: ServeOptions, prior: Prior, visits: Visits) -> App:
    """Returns the page as an ASGI application.

    Args:
        options: the limits.
        prior: the generator, for everybody.
        visits: who is there; gradio keeps uploads in its cache.
    """
    gr.set_static_paths([str(visits.folder)])  # served as they lie there, without a copy
    blocks, _ = build(options, prior, visits)
    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        server_name=options.host,
        footer_links=[],
        run_history=False,
        show_error=True,
        max_file_size=options.upload_bytes,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        mcp_server=False,
        theme=theme(),
        css_paths=STYLE,
        head=script(options),
    )
    inner: App = app  # type: ignore[assignment]
    if options.host in LOOPBACK:  # another site's name for this address is not ours
        inner = TrustedHostMiddleware(app, [*LOOPBACK, "[::1]"])  # type: ignore[assignment]
    return Gate(inner, options.upload_bytes)


class _Server(uvicorn.Server):
    """Tells when it listens."""

    ready: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts to listen."""
        await super().startup(sockets)
        self.ready()


def run(app: App, listening: socket.socket, ready: Callable[[], None]) -> None:
    """Serves an application until the process is told to end."""
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=_CONNECTIONS,
        timeout_graceful_shutdown=_GRACE_S,
    )
    server = _Server(config)
    server.ready = ready
    server.run(sockets=[listening])
