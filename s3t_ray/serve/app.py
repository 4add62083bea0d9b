"""The HTTP service on Ray Serve: three applications that share nothing but the run.

| application | path | what it is |
|---|---|---|
| `build` | /v1 | the model: one HTTP side and one model actor per replica |
| `build_deletions` | /v1/deletions | deletions alone: no busy or broken model blocks them |
| `build_front` | / | the page, health and the description of the endpoints; its caretaker keeps the run's scheduler |

`jobs/serve.py` deploys all of them, and so does a RayService manifest. The model runs in its own actor next to the HTTP
side, because the scheduler must reach each copy of the model: a deletion is pruned only when each has confirmed, and
one that cannot is killed. Serve then finds its replica unhealthy and starts another.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, cast

import ray
from ray import serve
from ray.exceptions import RayActorError

from s3t_ray.ensemble.answers import Answer, AnswerEvent, Ended, Failed, Judged, Live, Wish, answer_of
from s3t_ray.ensemble.ledger_watch import LedgerWatch
from s3t_ray.errors import ClusterError
from s3t_ray.plan.resources import A_TRACE
from s3t_ray.run import deletion
from s3t_ray.run.deletion_list import DeletionFilter, DeletionList, ListedDeletion, list_deletions, listed_deletion
from s3t_ray.run.log.issued_proofs import ProvedEntry, proof_for
from s3t_ray.run.reports import DeletionReceipt
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from s3t_ray.runtime.actors import find_scheduler
from s3t_ray.runtime.connect import NAMESPACE, actor_name
from s3t_ray.runtime.ray_metrics import report_ledger
from s3t_ray.serve.access.bearer_tokens import Tokens
from s3t_ray.serve.access.token_guard import App, Guard
from s3t_ray.serve.callbacks.courier import keep_delivering
from s3t_ray.serve.callbacks.receivers import receivers_from_environment
from s3t_ray.serve.caretaker import keep_scheduling
from s3t_ray.serve.coalesced_call import CoalescedCall
from s3t_ray.serve.http import make_deletion_app, make_front_app, make_model_app
from s3t_ray.serve.page.page_models import ServedModel
from s3t_ray.serve.page.run_desk import RunDesk
from s3t_ray.serve.routes.answering import Prompt
from s3t_ray.serve.routes.requests import DeletionRequest
from s3t_ray.serve.service_settings import ServiceSettings

HEALTH_SECONDS = 20.0
MOST_CONNECTIONS = 4096
"""Requests per HTTP process of Serve, including half-sent ones. They wait without a thread. `Admission` and
`BatchEngine` limit how many the model works on, and answer accordingly."""
CONTROL_THREADS = 24
"""Threads of the model's actor, so that prunes, submissions and the event stream do not wait for each other."""
GONE = ClusterError("the model's process has ended", "try again: another one is starting")

_log = logging.getLogger(__name__)


class ModelService:
    """One Serve replica: HTTP in this process, and its own model in an actor (see `answering.ModelBackend`)."""

    async def __init__(self, settings: ServiceSettings) -> None:  # type: ignore[misc]  # Serve awaits it
        self._tokens = Tokens.from_environment()
        self._run = Run.open(settings.run)
        self._heard: dict[str, asyncio.Queue[AnswerEvent]] = {}
        self._replica = self._start_model(settings)
        await self._replica.ready.remote()
        self._listening = asyncio.create_task(self._listen())
        scheduler = find_scheduler(self._run)
        if scheduler is not None:
            try:
                await scheduler.attach_replica.remote(self._name, self._replica)
            except RayActorError:
                _log.info("the scheduler ended meanwhile; the next one finds this replica by its name")

    def __serve_build_asgi_app__(self) -> Guard:
        return make_model_app(self, self._tokens)

    async def check_health(self) -> None:
        """Raises if the model's actor is gone or cannot answer; Serve then replaces the replica."""
        if self._listening.done():
            raise GONE
        await asyncio.wait_for(self._replica.is_up.remote(), HEALTH_SECONDS)

    @property
    def run(self) -> str:
        return self._run.row.name

    async def complete(self, wish: Wish) -> Answer:
        return answer_of([said async for said in self.stream(wish)])

    async def stream(self, wish: Wish) -> AsyncGenerator[AnswerEvent, None]:
        name = secrets.token_hex(8)
        heard = self._heard[name] = asyncio.Queue()
        ended = False
        try:
            await self._ask(self._replica.submit.remote(name, wish))
            while not ended:
                said = await heard.get()
                ended = isinstance(said, Ended | Failed)
                if isinstance(said, Failed):
                    raise said.error
                yield said
        finally:
            del self._heard[name]
            if not ended:
                self._replica.cancel.remote(name)

    async def judge(self, text: str) -> Judged:
        return cast(Judged, await self._ask(self._replica.judge.remote(text)))

    async def tokenise(self, prompt: Prompt, as_written: bool) -> tuple[int, ...]:
        return cast("tuple[int, ...]", await self._ask(self._replica.tokenise.remote(prompt, as_written)))

    async def detokenise(self, ids: Sequence[int]) -> str:
        return cast(str, await self._ask(self._replica.detokenise.remote(tuple(ids))))

    async def _listen(self) -> None:
        """Distribute the model's output to its requests, one batch for all streams at a time."""
        try:
            async for batch in self._replica.heard.options(num_returns="streaming").remote():
                for name, said in await batch:
                    if (queue := self._heard.get(name)) is not None:
                        queue.put_nowait(said)
        finally:
            for queue in self._heard.values():  # end all requests that can no longer be answered
                queue.put_nowait(Failed(GONE))

    async def _ask(self, answer: Any) -> Any:
        if self._listening.done():
            raise GONE
        try:
            return await answer
        except RayActorError as error:
            raise GONE from error

    def _start_model(self, settings: ServiceSettings) -> Any:
        from s3t_ray.ensemble.following_replica import Following

        uri = self._run.location.storage_uri
        # Named before it looks for a scheduler, so that a new scheduler finds it (`actors.find_replicas`).
        self._name = f"{actor_name('replica', uri)}-{secrets.token_hex(4)}"
        trains_on_gpu = self._run.config.workers.gpus_per_rank > 0
        options: dict[str, Any] = {
            "name": self._name,
            "namespace": NAMESPACE,
            "num_cpus": settings.cpus,
            "num_gpus": settings.gpus if settings.gpus is not None else float(trains_on_gpu),
            "max_concurrency": CONTROL_THREADS,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(settings.cpus), "TOKENIZERS_PARALLELISM": "false"}},
        }
        return ray.remote(Following).options(**options).remote(uri, settings.cpus)


class _LedgerService:
    """Deletions and health, from the ledger (see `deletion_routes.DeletionBackend`). Loads no model."""

    def __init__(self, settings: ServiceSettings, *_with: object) -> None:
        self._tokens = Tokens.from_environment()
        self._run = Run.open(settings.run)
        self._wake_once = CoalescedCall(self._wake_scheduler)
        # Ids in a deletion are looked up by keyed digest, so the service needs the keys.
        self._run.ledger.check_key(self._run.keys.key_check)
        self._watch = LedgerWatch(self._run.ledger, lambda position, live: None)
        self._live = Live(-1, ())

    @property
    def run(self) -> str:
        return self._run.row.name

    def live(self) -> Live:
        position = self._watch.live().position
        known = self._live
        if known.version != position:
            chains = [view_shard(self._run, shard).serving for shard in range(self._run.row.shards)]
            stages = tuple(name for chain in chains for name in chain)
            known = self._live = Live(position, tuple(len(chain) for chain in chains), stages)
        return known

    def delete(self, request: DeletionRequest) -> DeletionReceipt:
        receipt = deletion.accept(self._run, request.ids, request.subjects, details=request.details())
        # Do not wait for it: without the head, finding an actor can take a minute, and the receipt is already durable.
        threading.Thread(target=self._wake_once, daemon=True).start()
        return receipt

    def _wake_scheduler(self) -> None:
        """Notify the run's scheduler, if it is in this cluster, of news. It also polls the ledger."""
        scheduler = find_scheduler(self._run)
        if scheduler is not None:
            scheduler.wake.remote()

    def deletion(self, request_id: str) -> ListedDeletion:
        return listed_deletion(self._run, self._run.request_named(request_id))

    def deletions(self, wanted: DeletionFilter) -> DeletionList:
        return list_deletions(self._run, wanted)

    def certificate(self, request_id: str) -> str | None:
        certificate = self._run.ledger.certificate(self._run.request_named(request_id))
        return None if certificate is None else certificate.to_json()

    def proof(self, request_id: str, of: ProvedEntry) -> str | None:
        return proof_for(self._run, request_id, of)


class DeletionService(_LedgerService):
    """Deletions and health in a separate application."""

    def __serve_build_asgi_app__(self) -> Guard:
        return make_deletion_app(self, self._tokens)


class FrontService(_LedgerService):
    """The page, health and the description of the endpoints."""

    def __serve_build_asgi_app__(self) -> App:
        return make_front_app(self, self._tokens, RunDesk(self._run, ServedModel(self._run)))


class Caretaker:
    """Keeps the run's scheduler running (see `caretaker.py`), reports deletions from the ledger, and sends callbacks. A
    service has one."""

    def __init__(self, run_uri: str) -> None:
        self._run = Run.open(run_uri)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, args=(self._run, self._stop), daemon=True)
            for target in (keep_scheduling, report_ledger)
        ]
        self._threads += [
            threading.Thread(target=keep_delivering, args=(self._run, receiver, self._stop), daemon=True)
            for receiver in receivers_from_environment()
        ]
        for thread in self._threads:
            thread.start()

    def check_health(self) -> None:
        """Raises if a thread has ended; Serve then starts another caretaker."""
        if not all(thread.is_alive() for thread in self._threads):
            raise ClusterError("a thread of the caretaker has ended", "see the log of its replica")

    def __del__(self) -> None:
        self._stop.set()


def build(settings: ServiceSettings | Mapping[str, object]) -> serve.Application:
    """The model, for `import_path: s3t_ray.serve.app:build` at MODEL_PATH.

    ConfigError: there are no tokens, or no run. The other two raise it too.
    """
    told = _checked(settings)
    return (
        _http(ModelService)
        .options(name="ModelService", num_replicas=told.replicas, ray_actor_options={"num_cpus": 0})
        .bind(told)
    )


def build_deletions(settings: ServiceSettings | Mapping[str, object]) -> serve.Application:
    """Deletions, for `import_path: s3t_ray.serve.app:build_deletions` at DELETION_PATH."""
    told = _checked(settings)
    return _http(DeletionService).options(name="DeletionService", ray_actor_options=_with_keys(told)).bind(told)


def build_front(settings: ServiceSettings | Mapping[str, object]) -> serve.Application:
    """Page, health, description, for `import_path: s3t_ray.serve.app:build_front` at the root; with the caretaker."""
    told = _checked(settings)
    front = _http(FrontService).options(name="FrontService", ray_actor_options=_with_keys(told))
    if not told.schedule:
        return front.bind(told)
    caretaker = serve.deployment(Caretaker).options(name="Caretaker", ray_actor_options=_with_keys(told))
    return front.bind(told, caretaker.bind(told.run))


def _with_keys(settings: ServiceSettings) -> dict[str, Any]:
    """Placement options for actors that need the run's keys."""
    options: dict[str, Any] = {"num_cpus": 0}
    if settings.keys_resource is not None:
        options["resources"] = {settings.keys_resource: A_TRACE}
    return options


def _checked(settings: ServiceSettings | Mapping[str, object]) -> ServiceSettings:
    told = ServiceSettings.model_validate(settings)
    Tokens.from_environment()
    receivers_from_environment()
    with Run.open(told.run) as run:
        _ = run.row  # raises unless its data was ingested
        return told.model_copy(update={"run": run.location.storage_uri})


def _http(service: type) -> Any:
    return serve.deployment(serve.ingress()(service)).options(
        max_ongoing_requests=MOST_CONNECTIONS,
        health_check_period_s=5,
        health_check_timeout_s=2 * HEALTH_SECONDS,
        graceful_shutdown_timeout_s=10,
    )
