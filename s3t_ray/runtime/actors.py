"""The Ray actors: thin shells round plain classes.

Wrapping happens here, in `shard_owners.py` and in `worker_groups.py` only.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from s3t_ray.config.load import dump_config
from s3t_ray.errors import LedgerError, S3TError, StoreError, TrainError
from s3t_ray.ledger.values import Fenced, RunningStage
from s3t_ray.plan.fair_shares import Claim
from s3t_ray.plan.resources import shortage
from s3t_ray.run.reports import Failure, Report
from s3t_ray.run.run import Run
from s3t_ray.run.stored_boundaries import with_boundaries
from s3t_ray.run.waiting import note_waiting
from s3t_ray.runtime.capacity import Neighbours
from s3t_ray.runtime.connect import NAMESPACE, actor_name, nodes
from s3t_ray.runtime.node_requests import NodeRequests
from s3t_ray.runtime.ray_metrics import RayMetrics
from s3t_ray.runtime.shard_owners import RayShards
from s3t_ray.runtime.worker_groups import RayWorkers
from s3t_ray.scheduler.running_stages import Notes
from s3t_ray.scheduler.scheduler import Scheduler
from s3t_ray.scheduler.trainable import first_sequences

_log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
CONFIRM_SECONDS = 30.0
"""A replica that has not confirmed a live set after this long is taken out of service."""
BEAT_SECONDS = 0.5
HUNG_SECONDS = 600.0
"""A scheduler whose round takes longer than this stops beating, so that another may take over."""


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
    waiting_groups: int = 0
    """Worker groups that cannot start for want of nodes, or of room on them."""
    rounds: int
    """Ticks so far: `idle` means something only after the first."""


class SchedulerActor:
    """The named actor of a run. `serve` runs the reconciler until `stop`; other calls answer meanwhile."""

    def __init__(self, run_uri: str, base: str) -> None:
        self._run = Run.open(run_uri)
        self._base = base
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._waiting: str | None = None
        self._waiting_groups = 0
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
        count = neighbours.first(lambda: first_sequences(self._run))
        epoch = self._run.ledger.take_lease(actor_name("scheduler", config.storage.uri))
        threading.Thread(target=self._beat, args=(epoch,), daemon=True).start()
        self._replicas.begin(epoch)
        for name, replica in find_replicas(self._run).items():  # they followed a predecessor
            self._replicas.attach(name, replica)
        metrics = RayMetrics(config.name)
        notes = Notes(self._run.ledger, epoch)
        workers = RayWorkers(with_boundaries(self._run), self._base, count, self._wake)
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
                if demand is not None:
                    workers.resize(demand.groups, requests.take(demand.groups - workers.count))
                    requests.ask(demand.missing)
                    self._say_waiting(workers.waiting() + demand.missing)
                metrics.look(self._run.ledger, scheduler.views, self._snapshot)
                notes.look(self._snapshot.running)
                if not self._snapshot.running:
                    self._wake.wait(TICK_SECONDS)
                    self._wake.clear()
        finally:
            self._over.set()
            requests.close()
            workers.close()

    def _say_waiting(self, groups: int) -> None:
        """Log, and note in the ledger, what worker groups wait for, and that they no longer do."""
        config, self._waiting_groups = self._run.config, groups
        waits = shortage(config, nodes(), groups) if groups else None
        if waits != self._waiting:
            self._waiting = waits
            _log.warning("%s: %s", config.name, waits or "no worker group waits any more")
            note_waiting(self._run, waits)

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

    def wake(self) -> None:
        """Begin the next round at once: the ledger has something new, such as a deletion.

        Only a hint: what is new is read from the ledger, which the scheduler looks at every TICK_SECONDS anyway.
        """
        self._wake.set()

    def stop(self) -> None:
        """End `serve` after the tick that is on its way."""
        self._stop.set()
        self._wake.set()

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
            waiting_groups=self._waiting_groups,
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
