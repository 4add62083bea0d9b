"""The formats of answers over HTTP: OpenAI's objects, errors and stream events, as plain JSON values.

In: the ensemble's output. Out: dictionaries for `json`, Starlette responses for refusals. Knows nothing about models,
ledgers or Ray. Each answer includes its provenance: the run, the version and depths of the live set, the stages, and
their fingerprint.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from starlette.responses import JSONResponse

from s3t_ray.ensemble.answers import Answer, Ended, Piece, PromptScored, ScoredToken, Started
from s3t_ray.serve.fingerprint import fingerprint

VERSION_HEADER = "x-s3t-version"
DEPTHS_HEADER = "x-s3t-depths"
FINGERPRINT_HEADER = "x-s3t-fingerprint"
RUN_HEADER = "x-s3t-run"
DONE = b"data: [DONE]\n\n"
RETRY_SECONDS = 2
"""Default seconds to wait after 429 or 503."""


@dataclass(frozen=True)
class Framing:
    """The endpoint and model of one request."""

    kind: Literal["chat", "text"]
    model: str
    run: str
    logprobs: bool = False
    echo: bool = False
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
        """The complete answers. Each prompt counts once per answer in the token usage."""
        name = "chat.completion" if self.kind == "chat" else "text_completion"
        first = answers[0]
        prompt = sum(answer.prompt_tokens for answer in answers)
        said = sum(answer.tokens for answer in answers)
        return {
            **self._frame(name, first.version, first.depths, first.stages),
            "choices": [self._choice(index, answer, first) for index, answer in enumerate(answers)],
            "usage": _usage(prompt, sum(answer.cached_tokens for answer in answers), said),
        }

    def _choice(self, index: int, answer: Answer, first: Answer) -> dict[str, Any]:
        if self.kind == "chat":
            said: dict[str, Any] = {"message": {"role": "assistant", "content": answer.text, "refusal": None}}
            scores: object = _chat_logprobs(answer.scored) if self.logprobs else None
        else:
            prompt = "".join(token.text for token in answer.prompt) if self.echo else ""
            said = {"text": prompt + answer.text}
            scores = _text_logprobs((*answer.prompt, *answer.scored)) if self.logprobs else None
        choice = {"index": index, **said, "logprobs": scores, "finish_reason": answer.finish.value}
        if answer.stages != first.stages:  # a deletion happened between the answers of one request
            choice["s3t"] = self._rests_on(answer.version, answer.depths, answer.stages)
        return choice

    def opening(self, started: Started, index: int) -> bytes:
        """The first event of a stream; nothing for plain text."""
        if self.kind == "text":
            return b""
        return self._chunk(started, index, {"delta": {"role": "assistant", "content": ""}})

    def said(self, started: Started, index: int, said: PromptScored | Piece | Ended) -> bytes:
        """The stream event for one event of one answer."""
        match said:
            case Ended():
                rest = self.said(started, index, Piece(said.text)) if said.text else b""
                last: dict[str, Any] = {"text": ""} if self.kind == "text" else {"delta": {}}
                return rest + self._chunk(started, index, {**last, "finish_reason": said.finish.value})
            case PromptScored():
                text = "".join(token.text for token in said.tokens)
                scores = _text_logprobs(said.tokens) if self.logprobs else None
                return self._chunk(started, index, {"text": text, "logprobs": scores}) if self.echo else b""
            case Piece():
                told: dict[str, Any] = {"text": said.text} if self.kind == "text" else {"delta": {"content": said.text}}
                if self.logprobs:
                    told["logprobs"] = (_chat_logprobs if self.kind == "chat" else _text_logprobs)(said.tokens)
                return self._chunk(started, index, told)

    def used(self, started: Started, prompt: int, cached: int, said: int) -> bytes:
        """The event for `stream_options.include_usage`."""
        name = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        frame = self._frame(name, started.version, started.depths, started.stages)
        return event({**frame, "choices": [], "usage": _usage(prompt, cached, said)})

    def _chunk(self, started: Started, index: int, said: dict[str, Any]) -> bytes:
        name = "chat.completion.chunk" if self.kind == "chat" else "text_completion"
        choice = {"index": index, "logprobs": None, "finish_reason": None, **said}
        frame = self._frame(name, started.version, started.depths, started.stages)
        if not said.get("finish_reason"):  # stage ids are long, so only the last event of each answer has them
            del frame["s3t"]["stages"]
        return event({**frame, "choices": [choice]})

    def _frame(self, name: str, version: int, depths: Sequence[int], stages: Sequence[str]) -> dict[str, Any]:
        return {
            "id": f"{'chatcmpl' if self.kind == 'chat' else 'cmpl'}-{self.id}",
            "object": name,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": fingerprint(stages),
            "s3t": self._rests_on(version, depths, stages),
        }

    def _rests_on(self, version: int, depths: Sequence[int], stages: Sequence[str]) -> dict[str, Any]:
        return {"run": self.run, "version": version, "depths": list(depths), "stages": list(stages)}


def _usage(prompt: int, cached: int, said: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": {"cached_tokens": cached},
    }


def _chat_logprobs(tokens: Sequence[ScoredToken]) -> dict[str, Any]:
    def entry(text: str, logprob: float | None) -> dict[str, Any]:
        return {"token": text, "logprob": logprob, "bytes": list(text.encode())}

    return {
        "content": [
            {**entry(token.text, token.logprob), "top_logprobs": [entry(text, value) for text, value in token.top]}
            for token in tokens
        ],
        "refusal": None,
    }


def _text_logprobs(tokens: Sequence[ScoredToken]) -> dict[str, Any]:
    offsets, at = [], 0
    for token in tokens:
        offsets.append(at)
        at += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_likeliest(token) for token in tokens],
        "text_offset": offsets,
    }


def _likeliest(token: ScoredToken) -> dict[str, float] | None:
    """OpenAI's format: log-probabilities by text, with the token itself. Of tokens with equal text, the likelier."""
    if token.logprob is None:
        return None
    found = {token.text: token.logprob}
    for text, logprob in token.top:
        found[text] = max(logprob, found.get(text, logprob))
    return found


def event(document: object) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def live_headers(run: str, version: int, depths: Sequence[int], stages: Sequence[str]) -> dict[str, str]:
    """Headers with the run and the live set that answered."""
    return {
        VERSION_HEADER: str(version),
        DEPTHS_HEADER: ",".join(str(depth) for depth in depths),
        FINGERPRINT_HEADER: fingerprint(stages),
        RUN_HEADER: run.encode("ascii", "backslashreplace").decode(),
    }


def error_document(status: int, message: str, code: str, parameter: str | None = None) -> dict[str, Any]:
    """OpenAI's error object."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    return {"error": {"message": message, "type": kind, "param": parameter, "code": code}}


def refusal(
    status: int, message: str, code: str, parameter: str | None = None, retry_seconds: int = RETRY_SECONDS
) -> JSONResponse:
    """An error as a response."""
    headers: Mapping[str, str] | None = None
    if status == 401:
        headers = {"www-authenticate": "Bearer"}
    elif status in (429, 503):
        headers = {"retry-after": str(retry_seconds)}
    return JSONResponse(error_document(status, message, code, parameter), status, headers)
