"""The HTTP service as ASGI applications: the model's and the deletions', apart or together.

In: backends (`ModelBackend`, `DeletionBackend`) and the tokens. Out: applications that answer every error as JSON in
OpenAI's format. Knows nothing about Ray: `app.py` passes the real backends, and tests can pass others. Nothing that a
caller sends is logged here. The endpoints are listed in `model_routes.py` and `deletion_routes.py`.
"""

from __future__ import annotations

from typing import Any, Protocol

from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as RouteError
from starlette.requests import Request as HttpRequest
from starlette.responses import RedirectResponse, Response

from s3t_ray import __version__
from s3t_ray.errors import S3TError
from s3t_ray.serve.access.bearer_tokens import Tokens
from s3t_ray.serve.access.token_guard import App, Guard, Receive, Scope, Send
from s3t_ray.serve.http_errors import WrongRun, code_of, message_of, status_of
from s3t_ray.serve.page.page_routes import page_app
from s3t_ray.serve.page.run_desk import Desk
from s3t_ray.serve.routes.answering import ModelBackend
from s3t_ray.serve.routes.deletion_routes import DeletionBackend, deletion_routes
from s3t_ray.serve.routes.description_routes import description_routes
from s3t_ray.serve.routes.model_routes import model_routes
from s3t_ray.serve.routes.openai_format import refusal
from s3t_ray.serve.routes.requests import INSTEAD

MODEL_PATH, DELETION_PATH = "/v1", "/v1/deletions"
"""Paths of the applications; the longest matching path gets a request."""


class Backend(ModelBackend, DeletionBackend, Protocol):
    """Backend of the complete service, if one process is both."""


def make_model_app(backend: ModelBackend, tokens: Tokens) -> Guard:
    """The model alone, mounted at MODEL_PATH."""
    return Guard(_application(model_routes(backend, tokens)), tokens, MODEL_PATH)


def make_deletion_app(backend: DeletionBackend, tokens: Tokens) -> Guard:
    """Deletions and health alone, mounted at DELETION_PATH, so that a busy model cannot block them."""
    return Guard(_application(deletion_routes(backend, tokens)), tokens, DELETION_PATH)


def make_front_app(backend: DeletionBackend, tokens: Tokens, desk: Desk) -> App:
    """The page, health and the description of all endpoints, mounted at the root."""
    routes = deletion_routes(backend, tokens), description_routes(openapi_document)
    return with_page(page_app(desk, tokens), Guard(_application(*routes), tokens))


def with_page(page: App, others: App) -> App:
    """`page` at the root and under /ui, where people sign in; `others` everywhere else."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await others(scope, receive, send)
            return
        root = scope.get("root_path", "")
        path = scope["path"].removeprefix(root)
        if path == "":  # the page loads relative URLs, so its address must end in a slash
            await RedirectResponse(f"{root}/")(scope, receive, send)
        else:
            await (page if path == "/" or path.startswith("/ui/") else others)(scope, receive, send)

    return app


def make_app(backend: Backend, tokens: Tokens) -> Guard:
    """Model and deletions in one application."""
    routes = model_routes(backend, tokens), deletion_routes(backend, tokens), description_routes(openapi_document)
    return Guard(_application(*routes), tokens)


def openapi_document() -> dict[str, Any]:
    """The OpenAPI description of every endpoint."""
    nobody: Any = None  # no route is called
    return _application(model_routes(nobody, nobody), deletion_routes(nobody, nobody)).openapi()


def _application(*routes: APIRouter) -> FastAPI:
    app = FastAPI(
        title="s3t_ray",
        version=__version__,
        description="Fine-tuned models from which records can be deleted. Every endpoint needs a bearer token.",
        openapi_url=None,  # `description_routes` serves both, for all endpoints
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    for each in routes:
        app.include_router(each)
    app.add_exception_handler(S3TError, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_request)
    app.add_exception_handler(RouteError, _refuse_route)
    return app


_UNREADABLE = "the body cannot be read: it is not UTF-8, is nested too deeply, or contains a number that is too long"
"""FastAPI answers 400 by itself only if the JSON parser gives up in another way than by a syntax error."""


async def _refuse(_request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, S3TError)
    return refusal(status_of(error), message_of(error), code_of(error), "run" if isinstance(error, WrongRun) else None)


async def _refuse_request(_request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first: dict[str, Any] = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part != "body")
    message = str(first["msg"]).removeprefix("Value error, ").replace("tuple", "list").replace("Tuple", "List")
    if first["type"] == "json_invalid":
        return refusal(400, f"the body is not JSON: {first['ctx']['error']} at character {field}", "invalid_request")
    if first["type"] == "extra_forbidden":
        message = f"not served here: {INSTEAD.get(field, 'leave it out')}"
    return refusal(400, f"{field or 'body'}: {message}", "invalid_request", field or None)


async def _refuse_route(_request: HttpRequest, error: Exception) -> Response:
    assert isinstance(error, RouteError)
    code = {400: "invalid_request", 403: "not_opened", 405: "method_not_allowed"}.get(error.status_code, "not_found")
    return refusal(error.status_code, _UNREADABLE if error.status_code == 400 else str(error.detail), code)
