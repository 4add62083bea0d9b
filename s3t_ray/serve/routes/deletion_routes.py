"""Deletions and health over HTTP.

In: a `DeletionBackend` and the tokens. Out: routes. None of them waits for the model.

| endpoint | token | answer |
|---|---|---|
| GET /healthz | any | whether the ledger can be read, and what it says is live |
| GET /v1/deletions?... | deletions | those that pass a filter: the fields of `DeletionFilter` |
| POST /v1/deletions | deletions | 202 and the receipt: from then on it cannot be lost |
| GET /v1/deletions/{id} | deletions | where it stands |
| GET /v1/deletions/{id}/certificate | deletions | the newest signed certificate: interim once purged, then final |
| GET /v1/deletions/{id}/proof | deletions | proof that the certificate stands in the published log |
| GET /v1/deletions/{id}/receipt-proof | deletions | the same of the receipt |
"""

from __future__ import annotations

from typing import Annotated, Protocol

from fastapi import APIRouter, Depends, HTTPException, Query
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from s3t_ray.ensemble.answers import Live
from s3t_ray.run.deletion_list import DeletionFilter, DeletionList, ListedDeletion
from s3t_ray.run.log.issued_proofs import ProvedEntry
from s3t_ray.run.reports import DeletionReceipt
from s3t_ray.serve.access.bearer_tokens import Tokens
from s3t_ray.serve.http_errors import check_run
from s3t_ray.serve.routes.openai_format import RUN_HEADER, live_headers, refusal
from s3t_ray.serve.routes.requests import DeletionRequest


class DeletionBackend(Protocol):
    """Backend of deletions. Raises S3TError, whose class determines the status code. Each call may block."""

    @property
    def run(self) -> str:
        """Name of the run."""
        ...

    def live(self) -> Live:
        """The live set according to the ledger."""
        ...

    def delete(self, request: DeletionRequest) -> DeletionReceipt:
        """Blocks until the deletion is durable."""
        ...

    def deletion(self, request_id: str) -> ListedDeletion: ...

    def deletions(self, wanted: DeletionFilter) -> DeletionList: ...

    def certificate(self, request_id: str) -> str | None:
        """The newest certificate as canonical JSON; None: there is none yet."""
        ...

    def proof(self, request_id: str, of: ProvedEntry) -> str | None:
        """Proof of inclusion (text of a c2sp.org/tlog-proof); None: not in the published log yet."""
        ...


def deletion_routes(backend: DeletionBackend, tokens: Tokens) -> APIRouter:
    """The routes of the table above."""

    def opened(request: HttpRequest) -> None:
        if not tokens.opens_deletions(request.headers.get("authorization", "")):
            raise HTTPException(403, "this token gives access to the model, not to deletions")

    routes = APIRouter()
    guarded = APIRouter(prefix="/v1/deletions", dependencies=[Depends(opened)])

    @routes.get("/healthz")
    def health() -> Response:
        live = backend.live()
        told = {"status": "ok", "run": backend.run, "version": live.version, "depths": list(live.depths)}
        return JSONResponse(told, headers=live_headers(backend.run, live.version, live.depths, live.stages))

    @guarded.get("")
    def deletions(wanted: Annotated[DeletionFilter, Query()]) -> Response:
        return JSONResponse({"run": backend.run, **backend.deletions(wanted).model_dump(mode="json")})

    @guarded.post("")
    def delete(asked: DeletionRequest, request: HttpRequest) -> Response:
        check_run(asked.run or request.headers.get(RUN_HEADER), backend.run)
        asked.details()  # refuse an invalid date before anything is deleted
        receipt = backend.delete(asked)
        where = {"location": f"{request.url.path}/{receipt.request_id}"}
        return JSONResponse({"run": backend.run, **receipt.model_dump(mode="json")}, 202, where)

    @guarded.get("/{request_id}")
    def status(request_id: str) -> Response:
        return JSONResponse({"run": backend.run, **backend.deletion(request_id).model_dump(mode="json")})

    @guarded.get("/{request_id}/certificate")
    def certificate(request_id: str) -> Response:
        state = backend.deletion(request_id).state
        text = backend.certificate(request_id)
        if text is None:
            return refusal(
                404, f"deletion {request_id} is {state}: its first certificate is issued when it is purged", "not_yet"
            )
        return Response(text, media_type="application/json")

    @guarded.get("/{request_id}/proof", response_class=PlainTextResponse)
    def proof(request_id: str) -> Response:
        """Proof, as a text (c2sp.org/tlog-proof), that the newest certificate stands in the run's published log.

        It shows nothing of other deletions but hashes. `s3t check-certificate CERTIFICATE --proof FILE` checks it.
        """
        return _proof(request_id, ProvedEntry.CERTIFICATE)

    @guarded.get("/{request_id}/receipt-proof", response_class=PlainTextResponse)
    def receipt_proof(request_id: str) -> Response:
        """Proof, as a text (c2sp.org/tlog-proof), that the receipt stands in the run's published log."""
        return _proof(request_id, ProvedEntry.RECEIPT)

    def _proof(request_id: str, of: ProvedEntry) -> Response:
        state = backend.deletion(request_id).state
        text = backend.proof(request_id, of)
        if text is None:
            told = f"deletion {request_id} is {state}: its {of} is not in the published log yet; ask again in a moment"
            return refusal(404, told, "not_yet")
        return PlainTextResponse(text)

    routes.include_router(guarded)
    return routes
