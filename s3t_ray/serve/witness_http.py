"""A witness over HTTP, with the protocol of c2sp.org/tlog-witness.

In: a Witness. Out: an ASGI application. Requests carry no secret: a checkpoint that the log did not sign is refused.

| endpoint | answer |
|---|---|
| POST /add-checkpoint | the cosignature, or the reason for refusing |
| GET /{sha256 of the origin}/checkpoint | the newest checkpoint that was cosigned |
"""

from __future__ import annotations

import re

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from s3t_ray.tlog.witness import TEXT_TYPE, Witness

MOST_BODY_BYTES = 64 * 1024
"""Room for 63 hashes and a checkpoint with dozens of signatures."""

_ORIGIN_HASH = re.compile(r"[0-9a-f]{64}")


def witness_app(witness: Witness) -> Starlette:
    """The application of this witness."""

    async def add_checkpoint(request: HttpRequest) -> Response:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > MOST_BODY_BYTES:
                return PlainTextResponse(f"a request has at most {MOST_BODY_BYTES} bytes\n", 413)
        try:
            text = body.decode()
        except UnicodeDecodeError:
            return PlainTextResponse("the request is not UTF-8\n", 400)
        reply = await run_in_threadpool(witness.add_checkpoint, text)
        return Response(reply.body, reply.status, {"content-type": reply.content_type})

    async def checkpoint(request: HttpRequest) -> Response:
        name = request.path_params["origin_hash"]
        found = await run_in_threadpool(witness.checkpoint, name) if _ORIGIN_HASH.fullmatch(name) else None
        if found is None:
            return PlainTextResponse("no checkpoint of that log was cosigned here\n", 404)
        return Response(found, media_type=TEXT_TYPE)

    return Starlette(
        routes=[
            Route("/add-checkpoint", add_checkpoint, methods=["POST"]),
            Route("/{origin_hash}/checkpoint", checkpoint, methods=["GET"]),
        ]
    )
