"""A client of the HTTP service with nothing but the standard library."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any


@dataclass(frozen=True)
class Reply:
    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)

    def events(self) -> list[Any]:
        """Server-sent events, without the closing [DONE]."""
        lines = [line.removeprefix("data: ") for line in self.text.split("\n\n") if line]
        assert lines[-1] == "[DONE]", self.text
        return [json.loads(line) for line in lines[:-1]]


@dataclass(frozen=True)
class Client:
    port: int
    token: str | None

    def ask(self, method: str, path: str, **body: Any) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=120)
        headers = {} if self.token is None else {"Authorization": f"Bearer {self.token}"}
        sent = json.dumps(body) if body else None
        try:
            connection.request(method, path, sent, {**headers, "Content-Type": "application/json"})
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, told, answer.read().decode())
        finally:
            connection.close()
