"""Helpers of the HTTP service's tests for sending requests."""

from __future__ import annotations

import json
from typing import Any

from starlette.testclient import TestClient

ASK, ERASE = "model-token-0123456789", "erase-token-0123456789"
CHAT: dict[str, Any] = {"model": "alpaca", "messages": [{"role": "user", "content": "Hi"}]}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def ask(client: TestClient, path: str = "/v1/chat/completions", **body: Any) -> Any:
    return client.post(path, json=body, headers=bearer(ASK))


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]
