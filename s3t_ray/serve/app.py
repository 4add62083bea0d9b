"""The HTTP service on Ray Serve: `build` is what `jobs/serve.py` and a RayService manifest deploy.

In: which run, how many replicas. Out: a Serve application. A Serve replica is the HTTP side; the model
lives in an actor of its own beside it, because the scheduler must reach each copy of the model by itself:
a deletion is pruned only when each has confirmed, and one that cannot is killed. Serve then finds its
replica unhealthy and starts another.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import AsyncGenerator, Mapping
from typing import Any, cast

import ray
from ray import serve
from ray.exceptions import RayActorError

from s3t_ray.ensemble.answers import Completion, Ended, Live, Piece, Started, Wish
from s3t_ray.errors import ClusterError
from s3t_ray.plan.resources import A_TRACE
from s3t_ray.run import deletion
from s3t_ray.run.reports import DeletionReceipt, DeletionStatus
from s3t_ray.run.run import Run
from s3t_ray.run.status import deletion_status
from s3t_ray.runtime.actors import find_scheduler
from s3t_ray.runtime.connect import NAMESPACE, actor_name
from s3t_ray.runtime.ray_metrics import report_ledger
from s3t_ray.serve.bearer_tokens import Tokens
from s3t_ray.serve.caretaker import keep_scheduling
from s3t_ray.serve.http import make_app
from s3t_ray.serve.requests import DeletionRequest
from s3t_ray.serve.service_settings import ServiceSettings
from s3t_ray.serve.token_guard import Guard

HEALTH_SECONDS = 20.0
AT_ONCE = 16
"""Answers that one replica works on at a time; QUEUED more wait, further ones get 503."""
QUEUED = 64
CONTROL_THREADS = 8
"""Of the model's actor, beyond those for answers: a prune must not queue behind them."""

_log = logging.getLogger(__name__)


class HttpService:
    """One Serve replica: HTTP on this side, a model of its own on the other (see `http.Backend`)."""

    async def __init__(self, settings: ServiceSettings, *_with: object) -> None:  # type: ignore[misc]  # Serve awaits it
        self._tokens = Tokens.from_environment()
        self._run = Run.open(settings.run)
        self._check_keys()
        self._replica = self._start_model(settings)
        await self._replica.ready.remote()
        scheduler = find_scheduler(self._run)
        if scheduler is not None:
            try:
                await scheduler.attach_replica.remote(self._name, self._replica)
            except RayActorError:
                _log.info("the scheduler ended meanwhile; the next one finds this replica by its name")

    def __serve_build_asgi_app__(self) -> Guard:
        return make_app(self, self._tokens)

    async def check_health(self) -> None:
        """Raises when the model's actor is gone or cannot answer: Serve replaces the replica then."""
        await asyncio.wait_for(self._replica.is_up.remote(), HEALTH_SECONDS)

    @property
    def model(self) -> str:
        return self._run.row.name

    async def live(self) -> Live:
        return cast(Live, await self._ask(self._replica.ready.remote()))

    async def complete(self, wish: Wish) -> Completion:
        return cast(Completion, await self._ask(self._replica.complete.remote(wish)))

    async def stream(self, wish: Wish) -> AsyncGenerator[Started | Piece | Ended, None]:
        request, ended = secrets.token_hex(8), False
        events = self._replica.stream.options(num_returns="streaming").remote(request, wish)
        try:
            async for event in events:
                yield cast("Started | Piece | Ended", await self._ask(event))
            ended = True
        finally:
            if not ended:
                self._replica.cancel.remote(request)

    def delete(self, request: DeletionRequest) -> DeletionReceipt:
        receipt = deletion.accept(self._run, request.ids, request.subjects)
        scheduler = find_scheduler(self._run)
        if scheduler is not None:
            scheduler.wake.remote()  # nobody waits for it: the receipt is out of danger, and the scheduler looks anyway
        return receipt

    def deletion(self, request_id: str) -> DeletionStatus:
        return deletion_status(self._run.ledger.deletion(request_id))

    def certificate(self, request_id: str) -> str | None:
        certificate = self._run.ledger.certificate(request_id)
        return None if certificate is None else certificate.to_json()

    async def _ask(self, answer: Any) -> Any:
        try:
            return await answer
        except RayActorError as error:
            raise ClusterError("the model's process has ended", "ask again: another one is started") from error

    def _check_keys(self) -> None:
        """Ids in a deletion are looked up by their keyed digest: without the keys there is no service."""
        self._run.ledger.check_key(self._run.keys.key_check)

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
            "max_concurrency": AT_ONCE + CONTROL_THREADS,
            "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(settings.cpus), "TOKENIZERS_PARALLELISM": "false"}},
        }
        return ray.remote(Following).options(**options).remote(uri, settings.cpus)


class Caretaker:
    """Keeps the run's scheduler (see `caretaker.py`), and reports what the ledger says of deletions; one a service."""

    def __init__(self, run_uri: str) -> None:
        self._run = Run.open(run_uri)
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=target, args=(self._run, self._stop), daemon=True)
            for target in (keep_scheduling, report_ledger)
        ]
        for thread in self._threads:
            thread.start()

    def check_health(self) -> None:
        """Raises when a thread has ended: Serve starts another caretaker then."""
        if not all(thread.is_alive() for thread in self._threads):
            raise ClusterError("a thread of the caretaker has ended", "see the log of its replica")

    def __del__(self) -> None:
        self._stop.set()


def build(settings: ServiceSettings | Mapping[str, object]) -> serve.Application:
    """The application, for `import_path: s3t_ray.serve.app:build`. Raises ConfigError: no tokens, or no run there."""
    told = ServiceSettings.model_validate(settings)
    Tokens.from_environment()
    with Run.open(told.run) as run:
        told = told.model_copy(update={"run": run.location.storage_uri})
        _ = run.row  # its data must have been read
    light: dict[str, Any] = {"num_cpus": 0}
    if told.keys_resource is not None:
        light["resources"] = {told.keys_resource: A_TRACE}
    service = serve.deployment(serve.ingress()(HttpService)).options(
        name="HttpService",
        num_replicas=told.replicas,
        max_ongoing_requests=AT_ONCE,
        max_queued_requests=QUEUED,
        ray_actor_options=light,
        health_check_period_s=5,
        health_check_timeout_s=2 * HEALTH_SECONDS,
        graceful_shutdown_timeout_s=10,
    )
    if not told.schedule:
        return service.bind(told)
    caretaker = serve.deployment(Caretaker).options(name="Caretaker", ray_actor_options=light)
    return service.bind(told, caretaker.bind(told.run))
