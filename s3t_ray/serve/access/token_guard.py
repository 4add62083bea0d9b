"""The guard of the HTTP service: requires a token, and limits the size of bodies.

In: ASGI requests. Out: the same, passed to the application behind, or a refusal. It runs before the routes, so no route
can forget it, and checks the token before it reads any of the body. `http.py` says which token opens which route.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from s3t_ray.serve.access.bearer_tokens import Tokens
from s3t_ray.serve.routes.openai_format import refusal

LARGEST_BODY = 4 * 2**20
"""Maximum bytes: many times the longest context, or about 60,000 ids in a deletion."""

BODY_SECONDS = 30.0
"""Seconds in which the entire body must arrive, so that an endless one cannot hold resources."""

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class Guard:
    """Passes a request to `app` if it has a valid token with quota left.

    `mounted_at`: where a server mounts the application; its routes are relative to the root of the service.
    """

    def __init__(self, app: App, tokens: Tokens, mounted_at: str = "") -> None:
        self._app = app
        self._tokens = tokens
        self._mounted_at = mounted_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"the service speaks HTTP, not {scope['type']}")
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        authorization = headers.get(b"authorization", "")
        holder = self._tokens.holder(authorization)
        if holder is None:
            await refusal(401, "a bearer token is required", "invalid_api_key")(scope, receive, send)
            return
        wait = self._tokens.spend(holder)
        if wait:
            told = f"this token may send {holder.requests_per_minute} requests per minute"
            seconds = math.ceil(wait)
            await refusal(429, told, "rate_limit_exceeded", retry_seconds=seconds)(scope, receive, send)
            return
        length = headers.get(b"content-length", "0")
        if not length.isdigit() or int(length) > LARGEST_BODY:
            await refusal(413, f"a body has at most {LARGEST_BODY:,} bytes", "too_large")(scope, receive, send)
            return
        root = scope.get("root_path", "").removesuffix(self._mounted_at)
        await self._app({**scope, "root_path": root}, _limited(receive), send)


def _limited(receive: Receive) -> Receive:
    """The body, cut off if it exceeds the limit without a declared length, or takes too long."""
    read, whole = 0, False
    until = asyncio.get_running_loop().time() + BODY_SECONDS

    async def limited() -> MutableMapping[str, Any]:
        nonlocal read, whole
        if whole:  # now waiting for the caller to disconnect
            return await receive()
        try:
            async with asyncio.timeout_at(until):
                message = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            whole = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > LARGEST_BODY:
                return {"type": "http.disconnect"}
        return message

    return limited
