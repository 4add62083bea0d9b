"""The HTTP service: OpenAI's endpoints over the live ensemble, and deletions with receipts.

In: a `Backend` and the tokens. Out: an ASGI application. Knows no Ray: `app.py` gives it the real
backend, tests may give it another. Nothing that a caller sends is logged here.

| endpoint | token | answer |
|---|---|---|
| GET /healthz | model | the live set, once the ledger has confirmed it |
| GET /v1/models | model | the run's name |
| POST /v1/chat/completions, /v1/completions | model | an answer, whole or as server-sent events |
| POST /v1/deletions | deletions | 202 and the receipt: from then on it cannot be lost |
| GET /v1/deletions/{id} | deletions | where it stands |
| GET /v1/deletions/{id}/certificate | deletions | the signed certificate, once it is restored |
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as RouteError
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from s3t_ray.ensemble.answers import Completion, Ended, Live, Piece, Started, Wish
from s3t_ray.errors import ClusterError, ConfigError, DataError, S3TError, UnknownRecords
from s3t_ray.ledger.values import NoSuchDeletion
from s3t_ray.run.reports import DeletionReceipt, DeletionStatus
from s3t_ray.serve.bearer_tokens import Tokens
from s3t_ray.serve.openai_format import DONE, Framing, error_document, event, live_headers, refusal
from s3t_ray.serve.requests import ChatRequest, CompletionRequest, DeletionRequest, Sampling
from s3t_ray.serve.token_guard import Guard

MOVED_ON = "a deletion took stages of this answer out of service: what came so far is void, ask again"


class Backend(Protocol):
    """What the service stands on. Raises S3TError; its classes decide the status code."""

    @property
    def model(self) -> str:
        """Name under which the run answers."""
        ...

    async def live(self) -> Live: ...

    async def complete(self, wish: Wish) -> Completion: ...

    def stream(self, wish: Wish) -> AsyncGenerator[Started | Piece | Ended, None]:
        """Closed when the caller of the service goes away."""
        ...

    def delete(self, request: DeletionRequest) -> DeletionReceipt:
        """Blocks until the deletion is durable."""
        ...

    def deletion(self, request_id: str) -> DeletionStatus: ...

    def certificate(self, request_id: str) -> str | None:
        """Canonical JSON; None: not yet."""
        ...


def make_app(backend: Backend, tokens: Tokens) -> Guard:
    """The whole service as an ASGI application."""
    app = FastAPI(openapi_url=None, redirect_slashes=False)
    app.include_router(_model_routes(backend, tokens))
    app.include_router(_deletion_routes(backend, tokens))
    app.add_exception_handler(S3TError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_request)
    app.add_exception_handler(RouteError, _refuse_route)
    return Guard(app, tokens)


def _model_routes(backend: Backend, tokens: Tokens) -> APIRouter:
    def opened(request: HttpRequest) -> None:
        if not tokens.opens_model(request.headers.get("authorization", "")):
            raise HTTPException(403, "this token opens deletions, not the model")

    routes = APIRouter(dependencies=[Depends(opened)])

    @routes.get("/healthz")
    async def health() -> Response:
        live = await backend.live()
        told = {"status": "ok", "model": backend.model, "version": live.version, "depths": list(live.depths)}
        return JSONResponse(told, headers=live_headers(live.version, live.depths))

    @routes.get("/v1/models")
    async def models() -> Response:
        entry = {"id": backend.model, "object": "model", "created": 0, "owned_by": "s3t_ray"}
        return JSONResponse({"object": "list", "data": [entry]})

    @routes.post("/v1/chat/completions")
    async def chat(asked: ChatRequest) -> Response:
        return await _answer(backend, asked, asked.wish(), Framing("chat", backend.model))

    @routes.post("/v1/completions")
    async def complete(asked: CompletionRequest) -> Response:
        return await _answer(backend, asked, asked.wish(), Framing("text", backend.model))

    return routes


def _deletion_routes(backend: Backend, tokens: Tokens) -> APIRouter:
    def opened(request: HttpRequest) -> None:
        if not tokens.opens_deletions(request.headers.get("authorization", "")):
            raise HTTPException(403, "this token opens the model, not deletions")

    routes = APIRouter(prefix="/v1/deletions", dependencies=[Depends(opened)])

    # Plain functions: they run in threads, for the ledger blocks.
    @routes.post("")
    def delete(asked: DeletionRequest) -> Response:
        receipt = backend.delete(asked)
        where = {"location": f"/v1/deletions/{receipt.request_id}"}
        return JSONResponse(receipt.model_dump(mode="json"), 202, where)

    @routes.get("/{request_id}")
    def status(request_id: str) -> Response:
        return JSONResponse(backend.deletion(request_id).model_dump(mode="json"))

    @routes.get("/{request_id}/certificate")
    def certificate(request_id: str) -> Response:
        state = backend.deletion(request_id).state
        text = backend.certificate(request_id)
        if text is None:
            return refusal(404, f"deletion {request_id} is {state}: its certificate comes with restored", "not_yet")
        return Response(text, media_type="application/json")

    return routes


async def _answer(backend: Backend, asked: Sampling, wish: Wish, framing: Framing) -> Response:
    if asked.model != backend.model:
        return refusal(404, f"this service answers as {backend.model!r}", "model_not_found", "model")
    if not asked.stream:
        completion = await backend.complete(wish)
        answer = completion.answer
        return JSONResponse(framing.whole(completion), headers=live_headers(answer.version, answer.depths))
    events = backend.stream(wish)
    started, first = await _opening(events)
    return StreamingResponse(
        _stream(events, started, first, framing),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", **live_headers(started.version, started.depths)},
    )


async def _opening(events: AsyncIterator[Started | Piece | Ended]) -> tuple[Started, Piece | Ended]:
    """What answers, and what it says first. A refusal comes before that: a status code then, not a broken stream."""
    started: Started | None = None
    async for said in events:
        if not isinstance(said, Started):
            assert started is not None
            return started, said
        started = said
    raise ClusterError("the model's answer ended before it began", "ask again")


async def _stream(
    events: AsyncGenerator[Started | Piece | Ended, None], started: Started, first: Piece | Ended, framing: Framing
) -> AsyncIterator[bytes]:
    """Server-sent events of one answer. Once a piece is out, an answer that begins anew ends with an error:
    a client that only appends would mix two models."""
    try:
        yield framing.opening(started) + framing.said(started, first)
        async for said in events:
            if isinstance(said, Started):
                yield event(error_document(503, MOVED_ON, "live_set_changed")) + DONE
                return
            yield framing.said(started, said)
    except S3TError as error:
        broken = error_document(_status_of(error), "the service cannot go on with this answer", _code_of(error))
        yield event(broken) + DONE
    finally:
        await events.aclose()


async def _refuse(_request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, S3TError)
    status = _status_of(error)
    # What went wrong inside is for the log of the operator, who reads it where it was raised.
    message = f"{error.problem}; {error.fix}" if status < 500 else "the service cannot answer now"
    return refusal(status, message, _code_of(error))


async def _refuse_request(_request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part != "body")
    return refusal(400, f"{field or 'body'}: {first['msg']}", "invalid_request", field or None)


async def _refuse_route(_request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RouteError)
    return refusal(error.status_code, str(error.detail), "not_opened" if error.status_code == 403 else "not_found")


def _status_of(error: S3TError) -> int:
    match error:
        case UnknownRecords() | NoSuchDeletion():
            return 404
        case ConfigError() | DataError():
            return 400
        case _:
            return 503


def _code_of(error: S3TError) -> str:
    return {404: "not_found", 400: "invalid_request"}.get(_status_of(error), "unavailable")
