"""The door of the HTTP service: no token, no answer; and no body larger than a prompt can be.

In: ASGI requests. Out: the same, to the application behind, or a refusal. It stands before the routes, so that
none can forget it, and looks at the token before a byte of the body is read. Which of the two tokens opens
which route is said where the routes are (`http.py`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from s3t_ray.serve.bearer_tokens import Tokens
from s3t_ray.serve.openai_format import refusal

LARGEST_BODY = 4 * 2**20
"""Bytes: many times the longest context, or some 60,000 ids of a deletion."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Lets a request through to `app` when it carries one of the two tokens."""

    def __init__(self, app: App, tokens: Tokens) -> None:
        self._app = app
        self._tokens = tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the service speaks HTTP, not {scope['type']}")
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        authorization = headers.get(b"authorization", "")
        # Both are looked at, always: the time taken tells nothing.
        if not self._tokens.opens_model(authorization) | self._tokens.opens_deletions(authorization):
            await refusal(401, "a bearer token is needed", "invalid_api_key")(scope, receive, send)
            return
        length = headers.get(b"content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            await refusal(413, f"a body has at most {LARGEST_BODY:,} bytes", "too_large")(scope, receive, send)
            return
        await self._app(scope, _limited(receive), send)


def _limited(receive: Receive) -> Receive:
    """The body, cut off where it passes the limit without having said its length."""
    read = 0

    async def limited() -> MutableMapping[str, Any]:
        nonlocal read
        message = await receive()
        if message["type"] == "http.request":
            read += len(message.get("body", b""))
            if read > LARGEST_BODY:
                return {"type": "http.disconnect"}
        return message

    return limited
