"""The Ray actors: thin shells round plain classes. Wrapping happens here and in `worker_groups.py` only."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from s3t_ray.config.load import dump_config
from s3t_ray.errors import ClusterError, LedgerError, S3TError, StoreError, TrainError
from s3t_ray.ledger.values import Fenced
from s3t_ray.plan.fair_shares import Claim
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.reports import Failure, Report, RunningStage
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.run.stored_boundaries import with_boundaries
from s3t_ray.runtime.capacity import Neighbours
from s3t_ray.runtime.connect import NAMESPACE, actor_name
from s3t_ray.runtime.node_requests import NodeRequests
from s3t_ray.runtime.ray_metrics import RayMetrics
from s3t_ray.runtime.worker_groups import RayWorkers
from s3t_ray.scheduler.running_stages import Notes
from s3t_ray.scheduler.scheduler import Scheduler
from s3t_ray.scheduler.shard import Shard

TICK_SECONDS = 0.2
CONFIRM_SECONDS = 30.0
"""A replica that has not confirmed a live set after this long is taken out of service."""
ANSWER_SECONDS = 120.0
"""An owner that has not answered after this long is replaced."""
OWNER_DEATHS = 5
BEAT_SECONDS = 0.5
HUNG_SECONDS = 600.0
"""A scheduler whose round takes longer than this stops beating, so that another may take over."""


class RayShards:
    """One Shard actor a shard, and one for the held-out data (see `scheduler.Shards`)."""

    def __init__(self, run: Run, epoch: int) -> None:
        self._epoch = epoch
        self._uri = run.location.storage_uri
        self._actors = {shard: self._start(shard) for shard in (HOLDOUT_SHARD, *range(run.row.shards))}
        self._purging: dict[ray.ObjectRef, int] = {}

    def views(self) -> dict[int, ShardView]:
        return self._ask(self._actors, lambda owner: owner.view.remote())

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        return self._ask(shards, lambda owner: owner.prune.remote(self._epoch))

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        self._purging[self._actors[shard].purge.remote(self._epoch, stopped)] = shard

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        if not self._purging:
            return {}
        done, _ = ray.wait(list(self._purging), num_returns=len(self._purging), timeout=0)
        results: dict[int, ShardView | Exception] = {}
        for future in done:
            shard = self._purging.pop(future)
            try:
                results[shard] = ray.get(future)
            except Fenced:
                raise
            except (S3TError, RayTaskError) as error:
                results[shard] = error
            except RayError as error:
                self._replace(shard)
                results[shard] = error
        return results

    def _ask(self, shards: Iterable[int], ask: Callable[[Any], ray.ObjectRef]) -> dict[int, ShardView]:
        """Ask these owners side by side; one that dies over it is replaced and asked again."""
        answers: dict[int, ShardView] = {}
        waiting = list(shards)
        for _ in range(OWNER_DEATHS):
            futures = {shard: ask(self._actors[shard]) for shard in waiting}
            waiting = []
            for shard, future in futures.items():
                try:
                    answers[shard] = ray.get(future, timeout=ANSWER_SECONDS)
                except RayTaskError:
                    raise
                except RayError:
                    self._replace(shard)
                    waiting.append(shard)
            if not waiting:
                return answers
        raise ClusterError(
            f"the owners of shards {waiting} died or did not answer {OWNER_DEATHS} times in a row",
            "look at Ray's logs of the Shard actors (memory, lost nodes) and run the same command again: it resumes",
        )

    def _start(self, shard: int) -> Any:
        # No CPU of its own: it reads the ledger and moves files, and must never wait for a trainer.
        # Several calls at once: a prune must not wait for the purge before it.
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 3, "max_concurrency": 4}
        return ray.remote(Shard).options(**options).remote(self._uri, shard)

    def _replace(self, shard: int) -> None:
        """A new owner. The old one is killed first: two must never purge one shard at once."""
        ray.kill(self._actors[shard])
        self._actors[shard] = self._start(shard)


class RayReplicas:
    """The serving replicas that asked to be told (see `scheduler.Replicas`)."""

    def __init__(self) -> None:
        self._replicas: dict[str, Any] = {}
        self._version = 0

    def begin(self, epoch: int) -> None:
        """Versions of this epoch are above all of the earlier ones, which a surviving replica may hold."""
        self._version = epoch << 32

    def attach(self, name: str, replica: Any) -> None:
        """Have `replica` follow the live set from now on."""
        self._replicas[name] = replica

    def set_live(self, chains: Mapping[int, tuple[str, ...]]) -> tuple[str, ...]:
        self._version += 1
        behind = []
        attached = self._replicas.copy()  # another thread may attach one meanwhile
        asked = {name: replica.set_live.remote(self._version, dict(chains)) for name, replica in attached.items()}
        for name, future in asked.items():
            try:
                confirmed = ray.get(future, timeout=CONFIRM_SECONDS) == self._version
            except (StoreError, TrainError):
                # A new stage is damaged or does not fit. What was pruned is out of its service all the same
                # (`Ensemble.set_live` shrinks first), and it goes on with what it has.
                confirmed = True
                behind.append(name)
            except RayError:
                confirmed = False
            if not confirmed:
                # It may still answer from what was pruned: it must not answer at all.
                ray.kill(self._replicas.pop(name))
        return tuple(behind)


class Snapshot(Report):
    """What the scheduler's process knows beyond the ledger."""

    running: tuple[RunningStage, ...]
    idle: bool
    given_up: tuple[Failure, ...]
    trained: int
    tokens: int
    groups: int
    rounds: int
    """Ticks so far: `idle` means something only after the first."""


class SchedulerActor:
    """The named actor of a run. `serve` runs the reconciler until `stop`; other calls answer meanwhile."""

    def __init__(self, run_uri: str, base: str) -> None:
        self._run = Run.open(run_uri)
        self._base = base
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._replicas = RayReplicas()
        self._joined = False
        self._begun = False
        self._neighbours: Neighbours | None = None
        self._failure: S3TError | None = None
        self._over = threading.Event()
        self._round_began = time.monotonic()
        self._snapshot = Snapshot(running=(), idle=False, given_up=(), trained=0, tokens=0, groups=0, rounds=0)

    def serve(self) -> None:
        """Reconcile until `stop`. Raises what ends a scheduler: Fenced, worker groups that cannot start.

        Called again, by a process that follows this scheduler, it ends as the first call ended.
        """
        if self._begun:
            if self._failure is not None:
                raise self._failure
            return
        self._begun = True
        try:
            self._serve()
        except S3TError as error:
            self._failure = error
            raise

    def _serve(self) -> None:
        config = self._run.config
        self._neighbours = neighbours = Neighbours(config)
        shared = config.workers.groups == "auto"
        # As many as asked for, whatever room there is now: nodes that were lost may come back.
        count = neighbours.first() if config.workers.groups == "auto" else config.workers.groups
        epoch = self._run.ledger.take_lease(actor_name("scheduler", config.storage.uri))
        threading.Thread(target=self._beat, args=(epoch,), daemon=True).start()
        self._replicas.begin(epoch)
        for name, replica in find_replicas(self._run).items():  # they followed a predecessor
            self._replicas.attach(name, replica)
        metrics = RayMetrics(config.name)
        notes = Notes(self._run.ledger, epoch)
        workers = RayWorkers(with_boundaries(self._run), self._base, count)
        requests = NodeRequests(config)
        try:
            scheduler = Scheduler(self._run, epoch, workers, RayShards(self._run, epoch), self._replicas)
            rounds = 0
            while not self._stop.is_set():
                with self._lock:
                    joined, self._joined = self._joined, False
                if joined:
                    scheduler.refresh_replicas()
                scheduler.tick(TICK_SECONDS)
                rounds += 1
                self._round_began = time.monotonic()
                self._snapshot = self._look(scheduler, workers, rounds)
                demand = neighbours.look(self._snapshot.idle, workers.count, lambda: scheduler.sequences_to_train)
                if shared and demand is not None:
                    workers.resize(demand.groups, requests.take(demand.groups - workers.count))
                    requests.ask(demand.missing)
                metrics.look(self._run.ledger, scheduler.views, self._snapshot)
                notes.look(self._snapshot.running)
                if not self._snapshot.running:
                    self._stop.wait(TICK_SECONDS)
        finally:
            self._over.set()
            requests.close()
            workers.close()

    def _beat(self, epoch: int) -> None:
        """Say that this scheduler is alive, however long a round of it takes, until it is over, hung or fenced."""
        while not self._over.wait(BEAT_SECONDS) and time.monotonic() - self._round_began < HUNG_SECONDS:
            try:
                self._run.ledger.beat(epoch)
            except Fenced:
                return  # its next round will see that too
            except LedgerError:
                continue

    def snapshot(self) -> Snapshot:
        """What it does now; answers while a tick is on its way."""
        return self._snapshot

    def claim(self) -> Claim | None:
        """What this run claims of the cluster, for the schedulers of the others; None: it has not begun."""
        return None if self._neighbours is None or self._over.is_set() else self._neighbours.claim

    def serves(self, config_yaml: str) -> bool:
        """Whether this scheduler runs under exactly this config."""
        return dump_config(self._run.config) == config_yaml

    def attach_replica(self, name: str, replica: Any) -> None:
        """Have a serving replica follow the live set; it has it after the next tick."""
        with self._lock:
            self._replicas.attach(name, replica)
            self._joined = True

    def stop(self) -> None:
        """End `serve` after the tick that is on its way."""
        self._stop.set()

    def _look(self, scheduler: Scheduler, workers: RayWorkers, rounds: int) -> Snapshot:
        errors = {failure.stage_id: failure for failure in self._run.ledger.failures()}
        return Snapshot(
            running=workers.running(),
            idle=scheduler.idle,
            given_up=tuple(
                Failure(stage_id=name, error=errors[name].error, attempts=errors[name].attempts)
                for name in sorted(scheduler.retries.given_up & errors.keys())
            ),
            trained=scheduler.outcome.trained,
            tokens=scheduler.outcome.tokens,
            groups=workers.count,
            rounds=rounds,
        )


def start_scheduler(run: Run, detached: bool) -> tuple[Any, ray.ObjectRef]:
    """Start the run's scheduler actor: (handle, its end). ValueError: there is one of this run in the cluster."""
    name = actor_name("scheduler", run.location.storage_uri)
    options: dict[str, Any] = {
        "name": name,
        "namespace": NAMESPACE,
        "num_cpus": 0,
        "max_concurrency": 8,
        # It signs and resolves with the run's keys, which lie where it is started from; elsewhere only
        # when that node is gone, and then only where the keys folder is shared.
        "scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True),
    }
    if detached:
        options["lifetime"] = "detached"
    # One call of `serve` at a time: a second one waits for the first, and so learns when it ends.
    actor_class = ray.remote(concurrency_groups={"serve": 1})(SchedulerActor)
    actor = actor_class.options(**options).remote(run.location.storage_uri, str(run.base))
    return actor, end_of(actor)


def end_of(actor: Any) -> ray.ObjectRef:
    """Resolves, or raises, when this scheduler ends. It begins here, if whoever made it died before that."""
    return actor.serve.options(concurrency_group="serve").remote()


def find_replicas(run: Run) -> dict[str, Any]:
    """The run's serving replicas in this cluster by name. Whoever begins to serve has its name first and looks
    for a scheduler then; a scheduler looks for names after it has its own: they cannot miss each other."""
    prefix = actor_name("replica", run.location.storage_uri)
    found = {}
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(prefix):
            with contextlib.suppress(ValueError):  # it died meanwhile
                found[actor["name"]] = ray.get_actor(actor["name"], namespace=NAMESPACE)
    return found


def find_scheduler(run: Run) -> Any | None:
    """The run's scheduler actor in this cluster; None when there is none."""
    try:
        return ray.get_actor(actor_name("scheduler", run.location.storage_uri), namespace=NAMESPACE)
    except ValueError:
        return None
