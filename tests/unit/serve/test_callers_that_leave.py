"""A caller that disconnects at any time does not occupy a slot of the service."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from s3t_ray.serve.access.bearer_tokens import DELETE_TOKEN, SERVE_TOKEN, Tokens
from s3t_ray.serve.access.token_guard import App
from s3t_ray.serve.http import make_model_app
from s3t_ray.serve.routes import model_routes
from s3t_ray.serve.routes.answering import Admission
from tests.fakes.serving import FakeBackend
from tests.unit.serve.asking import ASK, CHAT, ERASE


async def leave_early(app: App, spec_version: str) -> list[str]:
    """Ask for a stream and leave before its first byte; what was sent. By 2.4 a server tells with an error."""
    told = [{"type": "http.request", "body": json.dumps({**CHAT, "stream": True}).encode(), "more_body": False}]
    sent = []

    async def receive() -> Any:
        return told.pop() if told else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if spec_version == "2.4":
            raise OSError("the caller has gone")
        await asyncio.sleep(0)
        sent.append(message["type"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "method": "POST",
        "path": "/v1/chat/completions",
        "raw_path": b"/v1/chat/completions",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(b"authorization", f"Bearer {ASK}".encode()), (b"content-type", b"application/json")],
    }
    if spec_version == "2.4":
        with pytest.raises(ClientDisconnect):
            await app(scope, receive, send)
    else:
        await app(scope, receive, send)
    return sent


@pytest.mark.parametrize("spec_version", ["2.3", "2.4"])
def test_a_caller_who_leaves_before_the_first_word_keeps_no_place(
    backend: FakeBackend, monkeypatch: pytest.MonkeyPatch, spec_version: str
) -> None:
    admission = Admission(1)
    monkeypatch.setattr(model_routes, "Admission", lambda: admission)
    app = make_model_app(backend, Tokens.from_environment({SERVE_TOKEN: ASK, DELETE_TOKEN: ERASE}))
    sent = asyncio.run(leave_early(app, spec_version))
    assert "http.response.body" not in sent, "the caller left before"
    admission.enter(1)  # raises Overloaded when the place is kept
    assert backend.closed == 1
