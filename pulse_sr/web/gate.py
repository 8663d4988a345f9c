"""What comes in is limited before gradio sees it, and what goes out says what it may do."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]

#: All that the page needs; everything else that gradio could do (fetch addresses, log in, record,
#: edit its code) is not there.
_PATHS = re.compile(
    r"/|/(assets|static)/.*|/(theme\.css|config/?|favicon\.ico|robots\.txt|manifest\.json)"
    r"|/gradio_api/(file=/.*|upload|upload_progress|queue/(join|data)|heartbeat/\w+|cancel|reset/?"
    r"|startup-events|app_id/?|info/?|run/predict/?)",
    re.DOTALL,
)
UPLOAD = "/gradio_api/upload"
#: The largest body that is no upload, in bytes, and what an upload needs besides its file.
_BODY, _AROUND = 256_000, 64_000
#: Seconds in which a body must have come.
BODY_S = 120.0

_HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' "
    "'unsafe-eval'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cross-origin-opener-policy": "same-origin",
}


class Refused(Exception):
    """A request is not taken.

    Attributes:
        status: of HTTP.
        words: for the visitor.
    """

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status, self.words = status, words


class Gate:
    """An ASGI application around another one.

    Args:
        app: the page.
        upload_bytes: the largest upload.
        body_s: seconds in which a body must have come.
    """

    def __init__(self, app: App, upload_bytes: int, body_s: float = BODY_S) -> None:
        self.app, self.upload_bytes, self.body_s = app, upload_bytes, body_s

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        begun = False

        async def answer(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                message = {**message, "headers": _marked(scope["path"], message["headers"])}
            await send(message)

        try:
            if not _PATHS.fullmatch(scope["path"]):
                raise Refused(404, "There is no such page.")
            await self.app(scope, self._limited(scope, receive), answer)
        except Refused as refused:
            if begun:
                raise
            await _refuse(refused, answer)

    def _limited(self, scope: Message, receive: Receive) -> Receive:
        """The body of a request: not more than is allowed, and not for longer."""
        most, words = _BODY, "The request is too large."
        if scope["path"] == UPLOAD:
            most = self.upload_bytes + _AROUND
            words = f"The upload is too large: this page takes {self.upload_bytes / 1e6:g} MB."
        too_large = Refused(413, words)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > most:
            raise too_large
        ends, seen, complete = time.monotonic() + self.body_s, 0, False

        async def limited() -> Message:
            nonlocal seen, complete
            if complete:  # now this waits until the visitor goes away
                return await receive()
            left = ends - time.monotonic()
            message = await _in_time(receive, left)
            seen += len(message.get("body", b""))
            if seen > most:
                raise too_large
            complete = not message.get("more_body", False)
            return message

        return limited


async def _in_time(receive: Receive, seconds: float) -> Message:
    try:
        return await asyncio.wait_for(receive(), max(seconds, 0.001))
    except TimeoutError as error:
        raise Refused(408, "The upload took too long.") from error


def _marked(path: str, headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    own = dict(_HEADERS)
    if path.startswith("/gradio_api/file="):  # the picture of a person: not for any cache
        own["cache-control"] = "no-store"
    names = {name.encode() for name in own}
    kept = [(name, value) for name, value in headers if name.lower() not in names]
    return kept + [(name.encode(), value.encode()) for name, value in own.items()]


async def _refuse(refused: Refused, send: Send) -> None:
    words = refused.words.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(words)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": words})
