"""One run's scheduler from its lease to its end: rounds, a heartbeat, and status snapshots.

In: an open run and its `Host`, which provides worker groups, shard owners, replicas and the cluster. Out: rounds of a
`Scheduler` until `stop`. A plain class: the runtime runs `serve` in one thread of a Ray actor and answers calls from
others; the tests run it in their own process. No Ray.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from s3t_ray.errors import LedgerError, S3TError
from s3t_ray.ledger.ledger import Ledger
from s3t_ray.ledger.values import Fenced, RunningStage
from s3t_ray.plan.fair_shares import Claim
from s3t_ray.plan.resources import Resources, shortage
from s3t_ray.run.reports import Failure, Report
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView
from s3t_ray.run.status import failure_of
from s3t_ray.run.waiting import note_waiting
from s3t_ray.scheduler.confirmations import Confirmations
from s3t_ray.scheduler.interfaces import Peers, ServingReplica, Shards, WorkerGroups
from s3t_ray.scheduler.policy.capacity import Autoscaling, Capacity, ElasticGroups, RoomRequests
from s3t_ray.scheduler.requeue import first_sequences
from s3t_ray.scheduler.running_stages import Notes
from s3t_ray.scheduler.scheduler import Scheduler

_log = logging.getLogger(__name__)

TICK_SECONDS = 0.2
BEAT_SECONDS = 0.5
LAST_WORD_SECONDS = 15.0
"""How long to wait for the witnesses of the log at the end."""
HUNG_SECONDS = 600.0
"""If a round takes longer than this, the heartbeat stops, so that another scheduler can take over."""


class Snapshot(Report):
    """State of the scheduler's process that is not in the ledger."""

    running: tuple[RunningStage, ...] = ()
    idle: bool = False
    given_up: tuple[Failure, ...] = ()
    trained: int = 0
    tokens: int = 0
    groups: int = 0
    waiting_groups: int = 0
    """Worker groups that cannot start because nodes, or room on nodes, are missing."""
    rounds: int = 0
    """Rounds so far: `idle` is valid only after the first."""


class ResizableWorkers(WorkerGroups, ElasticGroups, Protocol):
    """Worker groups whose number can change."""


class MetricsSink(Protocol):
    """The destination of a run's metrics."""

    def look(self, ledger: Ledger, views: Mapping[int, ShardView], snapshot: Snapshot) -> None:
        """Called in every round."""
        ...


class Requests(RoomRequests, Protocol):
    def close(self) -> None:
        """Withdraw all requests."""
        ...


class Host(Protocol):
    """The environment of a scheduler: creates everything that it controls."""

    name: str
    """Name of this scheduler, as shown in the lease."""

    def peers(self) -> Peers: ...

    def workers(self, groups: int, wake: threading.Event) -> ResizableWorkers:
        """Create worker groups. Setting `wake` ends their wait for stages; they set it when a stage ends."""
        ...

    def shards(self, epoch: int) -> Shards: ...

    def requests(self) -> Requests: ...

    def replicas(self) -> Mapping[str, ServingReplica]:
        """Existing replicas, by name."""
        ...

    def metrics(self) -> MetricsSink: ...


class Heartbeat:
    """Records in the ledger that a scheduler is alive, even during long rounds, until it ends, hangs or is fenced."""

    def __init__(self, ledger: Ledger, epoch: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._ledger = ledger
        self._epoch = epoch
        self._clock = clock
        self._over = threading.Event()
        self._round_began = clock()

    def round_began(self) -> None:
        """Record that a round began, so the scheduler is not hung."""
        self._round_began = self._clock()

    def stop(self) -> None:
        """Stop the heartbeat."""
        self._over.set()

    def run(self) -> None:
        """Send heartbeats; runs in its own thread."""
        while not self._over.wait(BEAT_SECONDS) and self._clock() - self._round_began < HUNG_SECONDS:
            try:
                self._ledger.beat(self._epoch)
            except Fenced:
                return  # the next round will find out too
            except LedgerError:
                continue


class SchedulerLoop:
    """Only one thread may call `serve`; any thread may call the other methods."""

    def __init__(self, run: Run, host: Host) -> None:
        self._run = run
        self._host = host
        self._stop = threading.Event()
        self._over = threading.Event()
        self._joined = threading.Event()
        self._wake = threading.Event()
        self._waiting: str | None = None
        self._waiting_groups = 0
        self._replicas = Confirmations()
        self._capacity: Capacity | None = None
        self._begun = False
        self._failure: S3TError | None = None
        self.snapshot = Snapshot()
        """The latest snapshot; replaced after every round."""

    def serve(self) -> None:
        """Reconcile until `stop`. Raises Fenced, or the error of worker groups that cannot start.

        A second call, by a process that follows this scheduler, ends the same way as the first.
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
        finally:
            self._over.set()

    def _serve(self) -> None:
        run, host = self._run, self._host
        peers = host.peers()
        self._capacity = capacity = Capacity(run.config, peers)
        count = capacity.first(lambda: first_sequences(run))
        epoch = run.ledger.take_lease(host.name)
        heartbeat = Heartbeat(run.ledger, epoch)
        threading.Thread(target=heartbeat.run, daemon=True).start()
        self._replicas.begin(epoch)
        for name, replica in host.replicas().items():  # from an earlier scheduler
            self._replicas.attach(name, replica)
        metrics, notes, requests = host.metrics(), Notes(run.ledger, epoch), host.requests()
        workers = host.workers(count, self._wake)
        autoscaling = Autoscaling(capacity, workers, requests)
        try:
            scheduler = Scheduler(run, epoch, workers, host.shards(epoch), self._replicas)
            while not self._stop.is_set():
                heartbeat.round_began()
                if self._joined.is_set():
                    self._joined.clear()
                    scheduler.refresh_replicas()
                scheduler.tick(TICK_SECONDS)
                self.snapshot = self._look(scheduler, workers)
                waiting = autoscaling.adjust(self.snapshot.idle, lambda: scheduler.sequences_to_train)
                if waiting is not None:
                    self._say_waiting(waiting, peers.nodes())
                metrics.look(run.ledger, scheduler.views, self.snapshot)
                notes.look(self.snapshot.running)
                if not self.snapshot.running:
                    self._wake.wait(TICK_SECONDS)
                    self._wake.clear()
            scheduler.end(LAST_WORD_SECONDS)
        finally:
            heartbeat.stop()
            requests.close()
            workers.close()

    def _say_waiting(self, groups: int, nodes: Sequence[Resources]) -> None:
        """Log and record in the ledger what worker groups wait for, and when they no longer wait."""
        config, self._waiting_groups = self._run.config, groups
        waits = shortage(config, nodes, groups) if groups else None
        if waits != self._waiting:
            self._waiting = waits
            _log.warning("%s: %s", config.name, waits or "no worker group is waiting any more")
            note_waiting(self._run, waits)

    def _look(self, scheduler: Scheduler, workers: ResizableWorkers) -> Snapshot:
        given_up = scheduler.retries.given_up
        failures = self._run.ledger.failures() if given_up else ()  # runs every round; usually there is nothing to read
        return Snapshot(
            running=workers.running(),
            idle=scheduler.idle,
            given_up=tuple(failure_of(row) for row in failures if row.subject in given_up),
            trained=scheduler.totals.trained,
            tokens=scheduler.totals.tokens,
            groups=workers.count,
            waiting_groups=self._waiting_groups,
            rounds=self.snapshot.rounds + 1,
        )

    def attach(self, name: str, replica: ServingReplica) -> None:
        """Make a serving replica follow the live set, starting after the next round."""
        self._replicas.attach(name, replica)
        self._joined.set()

    def wake(self) -> None:
        """Start the next round immediately, because the ledger has something new, such as a deletion.

        Only a hint: the scheduler reads the ledger every TICK_SECONDS anyway.
        """
        self._wake.set()

    def stop(self) -> None:
        """End `serve` after the current round."""
        self._stop.set()
        self._wake.set()

    @property
    def claim(self) -> Claim | None:
        """This run's claim on the cluster, for other schedulers; None before the start and after the end."""
        return None if self._capacity is None or self._over.is_set() else self._capacity.claim
