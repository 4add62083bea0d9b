"""The middleware of Serve's proxy: a request reaches the application with its whole body, or is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from ray.serve._private.http_util import call_function_from_import_path, validate_http_proxy_callback_return

from s3t_ray.serve.access.token_guard import LARGEST_BODY
from s3t_ray.serve.access.whole_bodies import CALLBACK_PATH, WholeBodies

NEVER = object()
"""In a body: nothing more is sent."""


class Behind:
    """The application: notes what it is sent, and answers 200."""

    def __init__(self) -> None:
        self.heard: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.heard.append(await receive())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def ask(app: Any, pieces: Sequence[object], headers: Sequence[tuple[bytes, bytes]] | None = None) -> list[int]:
    """Send a body in `pieces`. Returns the status codes that come back."""
    left = list(pieces)
    codes: list[int] = []

    async def receive() -> dict[str, Any]:
        piece = left.pop(0) if left else None
        if piece is NEVER:
            await asyncio.Event().wait()
        if piece is None:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            codes.append(message["status"])

    scope = {"type": "http", "headers": [(b"Content-Length", b"9")] if headers is None else list(headers)}
    await app(scope, receive, send)
    return codes


def test_pieces_arrive_as_one() -> None:
    behind = Behind()
    assert asyncio.run(ask(WholeBodies(behind), [b"ab", b"c", b"", b"de"])) == [200]
    assert behind.heard == [{"type": "http.request", "body": b"abcde", "more_body": False}]


def test_a_request_without_a_body_passes_at_once() -> None:
    behind = Behind()
    for headers in ([], [(b"content-length", b"0")]):
        assert asyncio.run(ask(WholeBodies(behind), [None], headers)) == [200]
    assert [each["type"] for each in behind.heard] == ["http.disconnect"] * 2
    chunked = [(b"transfer-encoding", b"chunked")]
    assert asyncio.run(ask(WholeBodies(behind, seconds=0.05), [b"a", NEVER], chunked)) == [408]


def test_what_is_too_large_or_too_slow_never_reaches_the_application() -> None:
    behind = Behind()
    app = WholeBodies(behind, seconds=0.05)
    assert asyncio.run(ask(app, [b" " * LARGEST_BODY, b" "])) == [413]
    declared = [(b"content-length", str(LARGEST_BODY + 1).encode())]
    assert asyncio.run(ask(WholeBodies(behind, seconds=60), [NEVER], declared)) == [413], "refused before it is sent"
    assert asyncio.run(ask(app, [b"a", NEVER])) == [408]
    assert asyncio.run(ask(app, [b"a", None])) == []  # the caller has left
    assert behind.heard == []


def test_all_incomplete_bodies_together_are_bounded() -> None:
    behind = Behind()

    async def crowd() -> list[list[int]]:
        app = WholeBodies(behind, seconds=0.2, most_held=10)
        slow = asyncio.create_task(ask(app, [b"12345678", NEVER]))
        await asyncio.sleep(0.01)
        codes = [await ask(app, [b"123", b"4"]), await ask(app, [b"whole at once"])]
        codes.append(await slow)
        codes.append(await ask(app, [b"123", b"4"]))  # its share is free again
        return codes

    assert asyncio.run(crowd()) == [[503], [200], [408], [200]]
    assert [each["body"] for each in behind.heard] == [b"whole at once", b"1234"]


def test_serve_s_proxy_takes_it_from_its_path() -> None:
    """As Ray's proxy does at its start; the path is what `s3t serve` sets."""
    (middleware,) = validate_http_proxy_callback_return(call_function_from_import_path(CALLBACK_PATH))
    assert middleware.cls is WholeBodies


def test_an_error_of_the_application_is_not_swallowed() -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("broken")

    app = WholeBodies(broken)
    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(ask(app, [b"a"]))
    assert app._held == 0
