"""Answers one request to the model: admits or refuses it, complete or as a stream, with one answer or many.

In: a `ModelBackend`, wishes and their framing. Out: a response. If an answer restarts after its first tokens, the
stream ends with an error, because a client that only appends would mix two models.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from s3t_ray.ensemble.answers import Answer, AnswerEvent, Ended, Failed, Judged, Started, Wish
from s3t_ray.errors import ClusterError, DataError, Overloaded, S3TError
from s3t_ray.serve.http_errors import code_of, status_of
from s3t_ray.serve.routes.openai_format import DONE, Framing, error_document, event, live_headers
from s3t_ray.serve.routes.requests import MOST_ANSWERS, Sampling

MOVED_ON = "a deletion took stages of this answer out of service: discard what was received so far, and try again"
MOST_OPEN = 512
"""Maximum open answers per HTTP process; a request beyond it gets 429."""

Prompt = str | tuple[dict[str, str], ...] | tuple[int, ...]
Indexed = tuple[int, AnswerEvent]
"""An event, and the index of its answer in the request."""

T = TypeVar("T")


class ModelBackend(Protocol):
    """Backend of the model's endpoints. Raises S3TError, whose class determines the status code."""

    @property
    def run(self) -> str:
        """Name of the run, and of its model."""
        ...

    async def complete(self, wish: Wish) -> Answer: ...

    def stream(self, wish: Wish) -> AsyncGenerator[AnswerEvent, None]:
        """The events of one answer. Closed if the caller disconnects."""
        ...

    async def judge(self, text: str) -> Judged: ...

    async def tokenise(self, prompt: Prompt, as_written: bool) -> tuple[int, ...]: ...

    async def detokenise(self, ids: Sequence[int]) -> str: ...


class Admission:
    """Counts the open answers in this process, up to `most`. For one event loop."""

    def __init__(self, most: int = MOST_OPEN) -> None:
        self._most = most
        self._open = 0

    def enter(self, answers: int) -> None:
        """Reserve room for answers. Overloaded: there is none. Otherwise `leave` must follow."""
        if self._open + answers > self._most:
            raise Overloaded(f"{self._open} answers are open; the maximum is {self._most}", "try again in a moment")
        self._open += answers

    def leave(self, answers: int) -> None:
        self._open -= answers


async def respond(
    backend: ModelBackend, admission: Admission, asked: Sampling, wishes: Sequence[Wish], framing: Framing
) -> Response:
    """The response with the answers `wishes` of the request `asked`. Raises S3TError before it starts."""
    if len(wishes) > MOST_ANSWERS:
        raise DataError(f"{len(wishes)} answers were requested; the maximum is {MOST_ANSWERS}", "send several requests")
    admission.enter(len(wishes))
    if not asked.stream:
        try:
            answers = await all_of([backend.complete(wish) for wish in wishes])
        finally:
            admission.leave(len(wishes))
        first = answers[0]
        headers = live_headers(framing.run, first.version, first.depths, first.stages)
        return JSONResponse(framing.whole(answers), headers=headers)
    events = _merged([backend.stream(wish) for wish in wishes])

    async def leave() -> None:
        admission.leave(len(wishes))
        await events.aclose()

    try:
        started, opening = await _opening(events)
    except BaseException:
        await leave()
        raise
    return _Streamed(
        _Stream(framing, asked.stream_options.include_usage, len(wishes)).run(events, opening),
        headers={
            "cache-control": "no-store",
            **live_headers(framing.run, started.version, started.depths, started.stages),
        },
        leave=leave,
    )


async def all_of(asked: Sequence[Coroutine[Any, Any, T]]) -> list[T]:
    """All results, or the first error, after which the others are cancelled."""
    tasks = [asyncio.ensure_future(each) for each in asked]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _merged(streams: Sequence[AsyncGenerator[AnswerEvent, None]]) -> AsyncGenerator[Indexed, None]:
    """The events of all answers as they arrive, until each has ended. Raises the first error."""
    if len(streams) == 1:
        try:
            async for said in streams[0]:
                yield 0, said
        finally:
            await streams[0].aclose()
        return
    heard: asyncio.Queue[Indexed | None] = asyncio.Queue()

    async def listen(index: int, stream: AsyncGenerator[AnswerEvent, None]) -> None:
        try:
            async for said in stream:
                heard.put_nowait((index, said))
        except S3TError as error:
            heard.put_nowait((index, Failed(error)))
        finally:
            await stream.aclose()
            heard.put_nowait(None)

    tasks = [asyncio.create_task(listen(index, stream)) for index, stream in enumerate(streams)]
    try:
        left = len(tasks)
        while left:
            each = await heard.get()
            if each is None:
                left -= 1
            else:
                yield each
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _opening(events: AsyncIterator[Indexed]) -> tuple[Started, list[Indexed]]:
    """Events up to the first tokens. A refusal comes before them, as a status code instead of a broken stream."""
    opening: list[Indexed] = []
    async for index, said in events:
        if isinstance(said, Failed):
            raise said.error
        opening.append((index, said))
        if not isinstance(said, Started):
            started = next(each for at, each in reversed(opening) if at == index and isinstance(each, Started))
            return started, opening
    raise ClusterError("the model's answer ended before it started", "try again")


class _Streamed(StreamingResponse):
    """Calls `leave` at the end, even if the caller disconnects before the first token. In that case the body never
    starts, so cleanup inside it would not run."""

    media_type = "text/event-stream"

    def __init__(
        self, body: AsyncGenerator[bytes, None], headers: Mapping[str, str], leave: Callable[[], Awaitable[None]]
    ) -> None:
        super().__init__(body, headers=headers)
        self._body = body
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._body.aclose()
            await self._leave()


class _Stream:
    """The server-sent events of one request."""

    def __init__(self, framing: Framing, usage: bool, answers: int) -> None:
        self._framing = framing
        self._usage = usage
        self._answers = answers
        self._started: dict[int, Started] = {}
        self._spoken: set[int] = set()
        self._said = 0  # tokens

    async def run(
        self, events: AsyncGenerator[Indexed, None], opening: Sequence[Indexed]
    ) -> AsyncGenerator[bytes, None]:
        try:
            ended = 0
            first = b"".join([self._event(index, said) for index, said in opening])
            ended += sum(isinstance(said, Ended) for _, said in opening)
            yield first
            async for index, said in events:
                if isinstance(said, Failed):
                    raise said.error
                if isinstance(said, Started) and index in self._spoken:
                    yield event(error_document(503, MOVED_ON, "live_set_changed")) + DONE
                    return
                ended += isinstance(said, Ended)
                yield self._event(index, said)
            if ended < self._answers:
                raise ClusterError("the model's answer ended before it was complete", "try again")
            yield (self._used() if self._usage else b"") + DONE
        except S3TError as error:
            broken = error_document(status_of(error), "the service cannot continue this answer", code_of(error))
            yield event(broken) + DONE

    def _event(self, index: int, said: AnswerEvent) -> bytes:
        assert not isinstance(said, Failed)
        if isinstance(said, Started):
            self._started[index] = said
            return b""
        opening = b"" if index in self._spoken else self._framing.opening(self._started[index], index)
        self._spoken.add(index)
        self._said += said.tokens if isinstance(said, Ended) else 0
        return opening + self._framing.said(self._started[index], index, said)

    def _used(self) -> bytes:
        started = list(self._started.values())
        prompt = sum(each.prompt_tokens for each in started)
        cached = sum(each.cached_tokens for each in started)
        return self._framing.used(started[0], prompt, cached, self._said)
