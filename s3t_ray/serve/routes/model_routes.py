"""The model over HTTP: OpenAI's endpoints, and a few that evaluation tools and classifiers need.

In: a `ModelBackend` and the tokens. Out: routes.

| endpoint | answer |
|---|---|
| GET /v1/models, /v1/models/{id} | the run's name |
| POST /v1/chat/completions, /v1/completions | answers, complete or as server-sent events |
| POST /v1/classifications | labels with their probabilities (classification runs) |
| POST /v1/tokenize, /v1/detokenize | the token ids of a prompt; the text of token ids |

All need the model's token.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter, Depends, HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response

from s3t_ray.ensemble.answers import Judged
from s3t_ray.errors import DataError
from s3t_ray.serve.access.bearer_tokens import Tokens
from s3t_ray.serve.http_errors import NoSuchModel, check_run
from s3t_ray.serve.routes.answering import Admission, ModelBackend, all_of, respond
from s3t_ray.serve.routes.openai_format import RUN_HEADER, Framing, live_headers
from s3t_ray.serve.routes.requests import ChatRequest, ClassifyRequest, CompletionRequest, TokeniseRequest


def model_routes(backend: ModelBackend, tokens: Tokens) -> APIRouter:
    """The routes of the table above."""
    admission = Admission()

    def opened(request: HttpRequest) -> None:
        if not tokens.opens_model(request.headers.get("authorization", "")):
            raise HTTPException(403, "this token gives access to deletions, not to the model")

    def check(model: str | None, run: str | None, request: HttpRequest) -> None:
        check_run(run or request.headers.get(RUN_HEADER), backend.run)
        if model is not None and model != backend.run:
            raise NoSuchModel(f"this service serves model {backend.run!r}, not {model!r}", "use that model's name")

    routes = APIRouter(dependencies=[Depends(opened)])

    @routes.get("/v1/models")
    async def models() -> Response:
        return JSONResponse({"object": "list", "data": [_model(backend.run)]})

    @routes.get("/v1/models/{model:path}")
    async def model(model: str, request: HttpRequest) -> Response:
        check(model, None, request)
        return JSONResponse(_model(backend.run))

    @routes.post("/v1/chat/completions")
    async def chat(asked: ChatRequest, request: HttpRequest) -> Response:
        check(asked.model, asked.run, request)
        return await respond(
            backend, admission, asked, asked.wishes(), Framing("chat", backend.run, backend.run, asked.logprobs)
        )

    @routes.post("/v1/completions")
    async def complete(asked: CompletionRequest, request: HttpRequest) -> Response:
        check(asked.model, asked.run, request)
        framing = Framing("text", backend.run, backend.run, asked.logprobs is not None, asked.echo)
        return await respond(backend, admission, asked, asked.wishes(), framing)

    @routes.post("/v1/classifications")
    async def classify(asked: ClassifyRequest, request: HttpRequest) -> Response:
        check(asked.model, asked.run, request)
        admission.enter(len(asked.texts()))
        try:
            judged = await all_of([backend.judge(text) for text in asked.texts()])
        finally:
            admission.leave(len(asked.texts()))
        return _judged(backend.run, judged)

    @routes.post("/v1/tokenize")
    async def tokenise(asked: TokeniseRequest, request: HttpRequest) -> Response:
        check(asked.model, None, request)
        if (asked.prompt is None) == (asked.messages is None):
            raise DataError("either a prompt or messages are required", "give exactly one of them")
        told = tuple(message.plain() for message in asked.messages or ())
        ids = await backend.tokenise(told if asked.prompt is None else asked.prompt, asked.as_written)
        return JSONResponse({"tokens": list(ids), "count": len(ids)})

    @routes.post("/v1/detokenize")
    async def detokenise(asked: TokeniseRequest, request: HttpRequest) -> Response:
        check(asked.model, None, request)
        if asked.tokens is None:
            raise DataError("no tokens were given", "give token ids in the field tokens")
        return JSONResponse({"prompt": await backend.detokenise(asked.tokens)})

    return routes


def _judged(run: str, judged: Sequence[Judged]) -> Response:
    first = judged[0]
    return JSONResponse(
        {
            "object": "list",
            "model": run,
            "data": [
                {"index": index, "label": each.answer, "probabilities": dict(each.labels)}
                for index, each in enumerate(judged)
            ],
            "usage": {"prompt_tokens": sum(each.tokens for each in judged)},
            "s3t": {
                "run": run,
                "version": first.version,
                "depths": list(first.depths),
                "stages": list(first.stages),
            },
        },
        headers=live_headers(run, first.version, first.depths, first.stages),
    )


def _model(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "s3t_ray"}
