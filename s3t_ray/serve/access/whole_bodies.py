"""Passes a request on only once its body has arrived, in Ray Serve's HTTP proxy.

Serve's proxy hands a request to its replica at once, and every later piece of the body costs a call between the two
processes. A thousand callers that send a byte per second each are a thousand calls per second, and every other body
waits for over a second (`benchmarks/service_load.py`). Here a piece costs an append. `Guard` has the same limits for
clusters whose proxy lacks this middleware.

Ray loads it through the environment variable `CALLBACK`, which must be set where Ray is started.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any

from starlette.middleware import Middleware

from s3t_ray.serve.access.token_guard import BODY_SECONDS, LARGEST_BODY, App, Receive, Scope, Send
from s3t_ray.serve.routes.openai_format import refusal

CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
CALLBACK_PATH = f"{__name__}.middlewares"
MOST_HELD = 256 * 2**20
"""Maximum bytes of all incomplete bodies in one proxy. Tokens are not checked yet, so anyone can send them."""


def middlewares() -> list[Middleware]:
    """What Ray Serve's proxy calls to obtain its middleware."""
    return [Middleware(WholeBodies)]


class WholeBodies:
    """ASGI middleware that collects each body. Refuses what is too large (413), too slow (408) or too much (503)."""

    def __init__(self, app: App, seconds: float = BODY_SECONDS, most_held: int = MOST_HELD) -> None:
        self._app = app
        self._seconds = seconds
        self._most_held = most_held
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value for name, value in scope["headers"]} if scope["type"] == "http" else {}
        length = headers.get(b"content-length", b"0")
        if length == b"0" and b"transfer-encoding" not in headers:
            await self._app(scope, receive, send)
            return
        if not length.isdigit() or int(length) > LARGEST_BODY:
            await _too_large()(scope, receive, send)
            return
        body = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                refused = await self._collect(body, receive)
        except TimeoutError:
            told = f"the body did not arrive within {self._seconds:.0f} s; send it again"
            refused = refusal(408, told, "request_timeout")
        finally:
            self._held -= len(body)
        if refused is None:
            await self._app(scope, _replayed(bytes(body), receive), send)
        elif refused is not _GONE:
            await refused(scope, receive, send)

    async def _collect(self, body: bytearray, receive: Receive) -> Any:
        """Fill `body`. Returns a refusal, `_GONE` if the caller has left, or None if the body is complete."""
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return _GONE
            piece = message.get("body", b"")
            body += piece
            self._held += len(piece)
            if len(body) > LARGEST_BODY:
                return _too_large()
            if not message.get("more_body", False):
                return None
            if self._held > self._most_held:
                return refusal(503, "too many requests are being sent at once; try again", "overloaded")


_GONE = object()


def _too_large() -> Any:
    return refusal(413, f"a body has at most {LARGEST_BODY:,} bytes", "too_large")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The complete body as one message, then whatever follows (the caller's disconnection)."""
    told = False

    async def replayed() -> MutableMapping[str, Any]:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
