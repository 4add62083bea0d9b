"""The page at `/` and what it asks for: status, history, deletions, certificates, one answer beside the base's.

In: a `Desk` and who may do what. Out: an ASGI application. The page itself holds no data and needs no token; everything
that it asks for does. It loads nothing from elsewhere, and its policy forbids it to.

| endpoint | opens with | answer |
|---|---|---|
| GET / | nothing | the page |
| GET /ui/status, /ui/history | any token | reports |
| GET /ui/deletions/{id}/certificate, /ui/public.pem | any token | what an auditor needs |
| POST /ui/deletions/preview, /ui/deletions | deletions | what it would hit; the receipt |
| POST /ui/ask | model | two answers |
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Protocol, TypeVar

from pydantic import ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from s3t_ray.errors import ConfigError, DataError, LedgerError, S3TError, UnknownRecords
from s3t_ray.run.reports import Report
from s3t_ray.serve.run_desk import Desk

LARGEST_BODY = 4 * 2**20
"""Bytes: some 60,000 ids of a deletion."""

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_ASSETS = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


class Access(Protocol):
    """Who may do what, by the Authorization header."""

    def opens_model(self, authorization: str) -> bool: ...

    def opens_deletions(self, authorization: str) -> bool: ...


class PageDeletion(Report):
    """What the form names."""

    ids: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()


class PageQuestion(Report):
    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1, max_length=20_000)


Asked = TypeVar("Asked", bound=Report)
Handler = Callable[[HttpRequest], Awaitable[Response]]


def page_app(desk: Desk, access: Access) -> Starlette:
    """The application."""

    def guarded(may: Callable[[str], bool], handler: Handler) -> Handler:
        async def answer(request: HttpRequest) -> Response:
            authorization = request.headers.get("authorization", "")
            if not may(authorization):
                known = _reads(access, authorization)
                return _refused(
                    403 if known else 401, "this token does not open that" if known else "a token is needed"
                )
            try:
                return await handler(request)
            except S3TError as error:
                return _refused(_status_of(error), error.problem, error.fix)

        return answer

    def reads(handler: Handler) -> Handler:
        return guarded(lambda authorization: _reads(access, authorization), handler)

    async def status(_: HttpRequest) -> Response:
        found = await run_in_threadpool(desk.status)
        return _json({**found.model_dump(mode="json"), "answers": desk.answers})

    async def history(_: HttpRequest) -> Response:
        return _json((await run_in_threadpool(desk.history)).model_dump(mode="json"))

    async def certificate(request: HttpRequest) -> Response:
        text = await run_in_threadpool(desk.certificate, request.path_params["request_id"])
        return Response(text, media_type="application/json", headers=_HEADERS)

    async def public_key(_: HttpRequest) -> Response:
        return Response(await run_in_threadpool(desk.public_key), media_type="application/x-pem-file", headers=_HEADERS)

    async def preview(request: HttpRequest) -> Response:
        asked = await _deletion(request)
        return _json((await run_in_threadpool(desk.preview, asked.ids, asked.subjects)).model_dump(mode="json"))

    async def accept(request: HttpRequest) -> Response:
        asked = await _deletion(request)
        receipt = await run_in_threadpool(desk.accept, asked.ids, asked.subjects)
        return _json(receipt.model_dump(mode="json"), 202)

    async def ask(request: HttpRequest) -> Response:
        if not desk.answers:
            raise ConfigError("this page was started without the model", "start it with `s3t ui RUN --ask`")
        asked = _parsed(PageQuestion, await _body(request))
        return _json((await run_in_threadpool(desk.ask, asked.prompt)).model_dump(mode="json"))

    return Starlette(
        routes=[
            Route("/", _asset("index.html")),
            Route("/ui/page.css", _asset("page.css")),
            Route("/ui/page.js", _asset("page.js")),
            Route("/ui/status", reads(status)),
            Route("/ui/history", reads(history)),
            Route("/ui/public.pem", reads(public_key)),
            Route("/ui/deletions/{request_id}/certificate", reads(certificate)),
            Route("/ui/deletions/preview", guarded(access.opens_deletions, preview), methods=["POST"]),
            Route("/ui/deletions", guarded(access.opens_deletions, accept), methods=["POST"]),
            Route("/ui/ask", guarded(access.opens_model, ask), methods=["POST"]),
        ]
    )


def _reads(access: Access, authorization: str) -> bool:
    # Both are looked at, always: the time taken tells nothing.
    return access.opens_model(authorization) | access.opens_deletions(authorization)


def _asset(name: str) -> Handler:
    data = (files("s3t_ray.serve") / "page" / name).read_bytes()

    async def asset(_: HttpRequest) -> Response:
        return Response(data, media_type=_ASSETS[name], headers=_HEADERS)

    return asset


async def _deletion(request: HttpRequest) -> PageDeletion:
    asked = _parsed(PageDeletion, await _body(request))
    if not asked.ids and not asked.subjects:
        raise DataError("the deletion names nobody and nothing", "give at least one record id or person")
    return asked


async def _body(request: HttpRequest) -> Any:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise DataError(f"a request has at most {LARGEST_BODY:,} bytes", "send it in parts, or use `s3t delete`")
    try:
        return json.loads(body)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"the body is not JSON: {error}", "send a JSON object") from error


def _parsed(kind: type[Asked], body: Any) -> Asked:
    try:
        return kind.model_validate_json(json.dumps(body))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise DataError(f"{field or 'the body'}: {first['msg']}", "correct it and send it again") from error


def _json(document: Any, status: int = 200) -> JSONResponse:
    return JSONResponse(document, status, _HEADERS)


def _refused(status: int, problem: str, fix: str = "") -> JSONResponse:
    return _json({"problem": problem, "fix": fix}, status)


def _status_of(error: S3TError) -> int:
    match error:
        case UnknownRecords():
            return 404
        case ConfigError() | DataError():
            return 400
        case LedgerError():
            return 409
        case _:
            return 503
