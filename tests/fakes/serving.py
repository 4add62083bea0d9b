"""Fakes for serving: a backend of the HTTP service without a model, and worker groups with random adapters."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Iterable, Sequence

import numpy as np
from safetensors.numpy import save

from s3t_ray.ensemble.answers import (
    Answer,
    AnswerEvent,
    Ended,
    Finish,
    Judged,
    Live,
    Piece,
    PromptScored,
    ScoredToken,
    Started,
    Wish,
    answer_of,
)
from s3t_ray.errors import S3TError, UnknownRecords
from s3t_ray.ledger.values import NoSuchDeletion
from s3t_ray.run.deletion_list import DeletionFilter, DeletionList, ListedDeletion
from s3t_ray.run.log.issued_proofs import ProvedEntry
from s3t_ray.run.office_words import DropOutcome, OpenDsrStatus
from s3t_ray.run.reports import DeletionReceipt
from s3t_ray.serve.routes.answering import Prompt
from s3t_ray.serve.routes.requests import DeletionRequest
from s3t_ray.store.layout import MANIFEST, stage_folder
from s3t_ray.store.manifest import ADAPTER_CONFIG, ADAPTER_FILE, write_manifest
from s3t_ray.store.store import Store
from s3t_ray.train.job import StageJob, StageResult
from tests.fakes import FakeWorkers
from tests.fakes.manifests import manifest_of

AT = "2026-01-02T03:04:05+00:00"


class FakeBackend:
    """Answers `says`, or raises `fails` if it is set."""

    def __init__(self, says: Iterable[str] = ("Hel", "lo")) -> None:
        self.run = "alpaca"
        self.says = tuple(says)
        self.events: list[AnswerEvent | S3TError] | None = None
        self.fails: S3TError | None = None
        self.wishes: list[Wish] = []
        self.deleted: list[DeletionRequest] = []
        self.closed = 0
        self.certified: str | None = None
        self.listed: DeletionFilter | None = None

    def live(self) -> Live:
        self._fail()
        return Live(7, (3, 1), ("a", "b"))

    async def complete(self, wish: Wish) -> Answer:
        return answer_of([said async for said in self.stream(wish)])

    async def stream(self, wish: Wish) -> AsyncGenerator[AnswerEvent, None]:
        self.wishes.append(wish)
        scored = wish.params.logprobs is not None
        prompt = tuple(ScoredToken(at, f"p{at}", None if at == 0 else -1.0 * at, ()) for at in range(3))
        try:
            self._fail()
            pieces: list[AnswerEvent | S3TError] = [
                Started(7, (3, 1), ("a", "b"), prompt_tokens=5, cached_tokens=3),
                *((PromptScored(prompt),) if wish.params.prompt_logprobs else ()),
                *(
                    Piece(text, (ScoredToken(at, text, -0.5, ((text, -0.5), ("x", -2.0))),) if scored else ())
                    for at, text in enumerate(self.says)
                ),
                Ended(Finish.LENGTH, tokens=2),
            ]
            for event in pieces if self.events is None else self.events:
                if isinstance(event, S3TError):
                    raise event
                await asyncio.sleep(0)
                yield event
        finally:
            self.closed += 1

    async def judge(self, text: str) -> Judged:
        self._fail()
        return Judged("good", (("good", 0.75), ("bad", 0.25)), 7, (3, 1), ("a", "b"), len(text.split()))

    async def tokenise(self, prompt: Prompt, as_written: bool) -> tuple[int, ...]:
        return (1, *range(2, 2 + len(prompt))) if as_written else (9,)

    async def detokenise(self, ids: Sequence[int]) -> str:
        return " ".join(str(token) for token in ids)

    def delete(self, request: DeletionRequest) -> DeletionReceipt:
        self._fail()
        if "nobody" in request.ids:
            raise UnknownRecords("the run does not hold 'nobody'", "check the spelling")
        self.deleted.append(request)
        return DeletionReceipt(
            request_id="req-1",
            accepted_at=AT,
            records=len(request.ids),
            already_deleted=0,
            unknown_ids=(),
            unknown_subjects=(),
            stages_pruned=("s1",),
            repeated=False,
            shards=(),
        )

    def deletions(self, wanted: DeletionFilter) -> DeletionList:
        self.listed = wanted
        return DeletionList(deletions=(self.deletion("req-1"),), more=False)

    def deletion(self, request_id: str) -> ListedDeletion:
        if request_id != "req-1":
            raise NoSuchDeletion(f"there is no deletion {request_id!r}", "take the id from its receipt")
        return ListedDeletion(
            request_id=request_id,
            state="purged",
            records=1,
            hits=((0, 1, 1),),
            accepted_at=AT,
            age_seconds=2.0,
            number=7,
            opendsr_status=OpenDsrStatus.COMPLETED,
            drop_outcome=DropOutcome.DELETED,
        )

    def certificate(self, request_id: str) -> str | None:
        return self.certified

    def proof(self, request_id: str, of: ProvedEntry) -> str | None:
        return None if self.certified is None else f"proof of the {of} of {request_id}"

    def _fail(self) -> None:
        if self.fails is not None:
            raise self.fails


class LoraWorkers(FakeWorkers):
    """Trains nothing, but publishes adapters that the ensemble can load: random, drawn from the stage's id."""

    def __init__(self, store: Store, layers: int, hidden: int, per_group: int, rank: int) -> None:
        super().__init__(store)
        self._layers, self._hidden, self._per_group, self._rank = layers, hidden, per_group, rank

    def _publish(self, job: StageJob) -> StageResult:
        depth = len(job.slices)
        dice = np.random.default_rng(int(job.stage_id[:12], 16))
        weights = {}
        for layer in range(self._layers - depth * self._per_group, self._layers - (depth - 1) * self._per_group):
            name = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
            for part, shape in (("A", (self._rank, self._hidden)), ("B", (self._hidden, self._rank))):
                weights[f"{name}.lora_{part}.weight"] = dice.normal(size=shape, scale=0.5).astype(np.float32)
        settings = {"r": self._rank, "lora_alpha": 8, "use_rslora": True, "bias": "none", "target_modules": ["o_proj"]}
        files = {ADAPTER_FILE: save(weights), ADAPTER_CONFIG: json.dumps(settings).encode()}
        digests = {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}
        manifest = manifest_of(job, digests)
        self._store.publish(stage_folder(job.stage_id), {**files, MANIFEST: write_manifest(manifest)}, marker=MANIFEST)
        self.trained.append(job)
        return StageResult(job.stage_id, digests[ADAPTER_FILE], 0, 0, 0, None, None, 0.0)
