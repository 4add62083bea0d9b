"""The page at `/` and its requests: status, history, deletions, certificates, and a comparison with the base.

In: a `Desk` and access rules. Out: an ASGI application. The page itself contains no data and needs no token. All its
requests need one, through a session cookie (`page_door.py`) or an Authorization header. It loads nothing from other
origins, and its content security policy forbids that.

| endpoint | opens with | answer |
|---|---|---|
| GET / | nothing | the page |
| POST, DELETE /ui/session | a token | signs in (a second token adds to the first), signs out |
| GET /ui/status, /ui/history | any token | reports |
| GET /ui/deletions/{id}/certificate, /ui/public.pem | any token | what an auditor needs |
| POST /ui/deletions/preview, /ui/deletions | deletions | what it would hit; the receipt |
| POST /ui/ask | model | two answers |
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable
from importlib.resources import files
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from s3t_ray.errors import ConfigError, DataError, LedgerError, Overloaded, S3TError, UnknownRecords
from s3t_ray.run.deletion_list import OfficeRequest
from s3t_ray.run.reports import Report
from s3t_ray.serve.access.token_guard import BODY_SECONDS, LARGEST_BODY
from s3t_ray.serve.page.page_door import PageDoor, Visitor, from_own_page
from s3t_ray.serve.page.page_sessions import Access
from s3t_ray.serve.page.run_desk import Desk

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_ASSETS = {"index.html": "text/html", "page.css": "text/css", "page.js": "text/javascript"}


class PageDeletion(OfficeRequest):
    """The names in the form, and the details of the request."""

    ids: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()


class PageQuestion(Report):
    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: str = Field(min_length=1, max_length=20_000)


class PageToken(Report):
    """The token that sign-in sends once."""

    token: str = Field(min_length=1, max_length=4096)


Asked = TypeVar("Asked", bound=Report)
Handler = Callable[[HttpRequest], Awaitable[Response]]
Known = Callable[[HttpRequest, Visitor], Awaitable[Response]]


def page_app(desk: Desk, access: Access) -> Starlette:
    """The application."""
    door = PageDoor(access)

    def reads(handler: Known) -> Handler:
        return _answered(_known(door, handler))

    def opens(kind: Literal["model", "deletions"], handler: Known) -> Handler:
        return _answered(_known(door, _allowed(door, kind, handler)))

    async def status(_: HttpRequest, visitor: Visitor) -> Response:
        found = await run_in_threadpool(desk.status)
        may: dict[str, Any] = {"answers": desk.asker is not None and visitor.asks, "deletes": visitor.deletes}
        if visitor.deletes:  # details of requests are not for visitors with model access only
            may["references"] = await run_in_threadpool(desk.references)
        return _json({**found.model_dump(mode="json"), **may})

    async def history(_: HttpRequest, __: Visitor) -> Response:
        return _json((await run_in_threadpool(desk.history)).model_dump(mode="json"))

    async def certificate(request: HttpRequest, _: Visitor) -> Response:
        text = await run_in_threadpool(desk.certificate, request.path_params["request_id"])
        return Response(text, media_type="application/json", headers=_HEADERS)

    async def public_key(_: HttpRequest, __: Visitor) -> Response:
        return Response(await run_in_threadpool(desk.public_key), media_type="application/x-pem-file", headers=_HEADERS)

    async def preview(request: HttpRequest, _: Visitor) -> Response:
        asked = await _deletion(request)
        return _json((await run_in_threadpool(desk.preview, asked.ids, asked.subjects)).model_dump(mode="json"))

    async def accept(request: HttpRequest, _: Visitor) -> Response:
        asked = await _deletion(request)
        receipt = await run_in_threadpool(desk.accept, asked.ids, asked.subjects, asked.details())
        return _json(receipt.model_dump(mode="json"), 202)

    async def ask(request: HttpRequest, _: Visitor) -> Response:
        if desk.asker is None:
            raise ConfigError("this page was started without the model", "start it with `s3t ui RUN --ask`")
        asked = _parsed(PageQuestion, await _body(request))
        return _json((await run_in_threadpool(desk.asker.ask, asked.prompt)).model_dump(mode="json"))

    return Starlette(
        routes=[
            Route("/", _asset("index.html")),
            Route("/ui/page.css", _asset("page.css")),
            Route("/ui/page.js", _asset("page.js")),
            Route("/ui/session", _answered(_signing_in(door)), methods=["POST"]),
            Route("/ui/session", _answered(_signing_out(door)), methods=["DELETE"]),
            Route("/ui/status", reads(status)),
            Route("/ui/history", reads(history)),
            Route("/ui/public.pem", reads(public_key)),
            Route("/ui/deletions/{request_id}/certificate", reads(certificate)),
            Route("/ui/deletions/preview", opens("deletions", preview), methods=["POST"]),
            Route("/ui/deletions", opens("deletions", accept), methods=["POST"]),
            Route("/ui/ask", opens("model", ask), methods=["POST"]),
        ]
    )


def _answered(handler: Handler) -> Handler:
    """Turn our errors into responses."""

    async def answer(request: HttpRequest) -> Response:
        try:
            return await handler(request)
        except S3TError as error:
            return _refused(_status_of(error), error.problem, error.fix)

    return answer


def _known(door: PageDoor, handler: Known) -> Handler:
    async def answer(request: HttpRequest) -> Response:
        visitor = door.visitor(request)
        return await handler(request, visitor) if visitor.reads else _refused(401, "a token is required")

    return answer


def _allowed(door: PageDoor, kind: Literal["model", "deletions"], handler: Known) -> Known:
    async def answer(request: HttpRequest, visitor: Visitor) -> Response:
        if not any(kind in holder.opens for holder in visitor.holders):
            return _refused(403, "this token does not give access to that", "sign in with a token that does")
        wait = door.wait(visitor, kind)
        if wait:
            return _refused(429, "this token's quota is used up", f"try again in {math.ceil(wait)} s")
        return await handler(request, visitor)

    return answer


def _signing_in(door: PageDoor) -> Handler:
    async def sign_in(request: HttpRequest) -> Response:
        if not from_own_page(request):
            return _refused(403, "sign-in is possible only from the page itself", "open the page and sign in there")
        answer = door.sign_in(request, _parsed(PageToken, await _body(request)).token.strip())
        return _refused(401, "that token does not give access to this service") if answer is None else answer

    return sign_in


def _signing_out(door: PageDoor) -> Handler:
    async def sign_out(request: HttpRequest) -> Response:
        if not from_own_page(request):
            return _refused(403, "sign-out is possible only from the page itself", "open the page and sign out there")
        return door.sign_out(request)

    return sign_out


def _asset(name: str) -> Handler:
    data = (files("s3t_ray.serve") / "page" / name).read_bytes()

    async def asset(_: HttpRequest) -> Response:
        return Response(data, media_type=_ASSETS[name], headers=_HEADERS)

    return asset


async def _deletion(request: HttpRequest) -> PageDeletion:
    asked = _parsed(PageDeletion, await _body(request))
    if not asked.ids and not asked.subjects:
        raise DataError("the deletion names no record and no person", "give at least one record id or person")
    return asked


async def _body(request: HttpRequest) -> Any:
    body = b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > LARGEST_BODY:
                    fix = "send it in parts, or use `s3t delete`"
                    raise DataError(f"a request has at most {LARGEST_BODY:,} bytes", fix)
    except (TimeoutError, ClientDisconnect) as error:
        raise DataError(f"the body did not arrive within {BODY_SECONDS:.0f} s", "send it again") from error
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
        case Overloaded():
            return 429
        case LedgerError():
            return 409
        case _:
            return 503
