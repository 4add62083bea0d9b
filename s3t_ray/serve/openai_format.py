"""The shapes of answers over HTTP: OpenAI's objects, errors and stream events, as plain JSON values.

In: what the ensemble said. Out: dictionaries for `json`, Starlette responses for refusals. Knows no model, no
ledger and no Ray. The version and the depths of the live set stand in every answer, in a field and in headers.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import JSONResponse

from s3t_ray.ensemble.answers import Completion, Ended, Finish, Piece, Started

VERSION_HEADER = "x-s3t-version"
DEPTHS_HEADER = "x-s3t-depths"
DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True)
class Framing:
    """Which of the two endpoints answers, and for which model; one a request."""

    kind: Literal["chat", "text"]
    model: str
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, completion: Completion) -> dict[str, Any]:
        """The answer in one piece."""
        answer = completion.answer
        said: dict[str, Any] = (
            {"message": {"role": "assistant", "content": answer.text}} if self.kind == "chat" else {"text": answer.text}
        )
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        return {
            **self._frame(name, answer.version, answer.depths),
            "choices": [{"index": 0, **said, "logprobs": None, "finish_reason": answer.finish.value}],
            "usage": {
                "prompt_tokens": completion.prompt_tokens,
                "completion_tokens": answer.tokens,
                "total_tokens": completion.prompt_tokens + answer.tokens,
            },
        }

    def opening(self, started: Started) -> bytes:
        """The first event of a stream; nothing for plain text."""
        if self.kind == "text":
            return b""
        return self._chunk(started, {"delta": {"role": "assistant", "content": ""}}, None)

    def said(self, started: Started, said: Piece | Ended) -> bytes:
        """A stream event with the next piece of text, or the last two events of the stream."""
        text = said.text if isinstance(said, Piece) else ""
        told = {"text": text} if self.kind == "text" else {"delta": {"content": text} if text else {}}
        if isinstance(said, Ended):
            return self._chunk(started, told, said.finish) + DONE
        return self._chunk(started, told, None)

    def _chunk(self, started: Started, said: dict[str, Any], finish: Finish | None) -> bytes:
        name = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        reason = None if finish is None else finish.value
        choice = {"index": 0, **said, "logprobs": None, "finish_reason": reason}
        return event({**self._frame(name, started.version, started.depths), "choices": [choice]})

    def _frame(self, name: str, version: int, depths: Sequence[int]) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.kind == 'chat' else 'cmpl'}-{self.id}",
            "object": name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": f"s3t-{version}",
            "s3t": {"version": version, "depths": list(depths)},
        }


def event(document: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def live_headers(version: int, depths: Sequence[int]) -> dict[str, str]:
    """Headers that tell which live set answered."""
    return {VERSION_HEADER: str(version), DEPTHS_HEADER: ",".join(str(depth) for depth in depths)}


def error_document(status: int, message: str, code: str, parameter: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def refusal(status: int, message: str, code: str, parameter: str | None = None) -> JSONResponse:
    """An error as a response."""
    headers = {"www-authenticate": "Bearer"} if status == 401 else {"retry-after": "2"} if status == 503 else None
    return JSONResponse(error_document(status, message, code, parameter), status, headers)
