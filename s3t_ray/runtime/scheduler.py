"""The scheduler: makes what the run has equal to what its retained data and config want.

Reads top to bottom as `tick`: collect what was trained, prune and purge what was deleted, certify
what is restored, place what is missing. It holds no truth that the ledger lacks: killed at any
instant, the next one takes the lease, which fences this one, and goes on from ledger and store.

A plain class over interfaces (`Workers`, `Shards`, `Replicas`): `actors.py` runs it in a Ray actor,
the tests run it with an in-process trainer. One thread calls it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from s3t_ray.errors import S3TError
from s3t_ray.ledger.values import DeletionRow, DeletionState
from s3t_ray.plan.schedule import ShardState, decide, healing_due
from s3t_ray.plan.stages import HOLDOUT_SHARD, Stage
from s3t_ray.runtime.adopt import adopt_published
from s3t_ray.runtime.certify import certify
from s3t_ray.runtime.jobs import stage_job
from s3t_ray.runtime.purge import purge_abandoned, purge_bytes
from s3t_ray.runtime.retries import Retries
from s3t_ray.runtime.run import Run
from s3t_ray.runtime.view import ShardView
from s3t_ray.runtime.workers import Finished, Workers

DEPTHS = "depths"
"""Event of the ledger's history: live depth of each sequence of a shard, whenever it changed."""


class Shards(Protocol):
    """The shard owners, by index; the held-out data is shard -1."""

    def views(self) -> dict[int, ShardView]: ...

    def prune(self, shards: Iterable[int]) -> dict[int, ShardView]:
        """Prune these shards side by side; their views after it."""
        ...

    def start_purge(self, shard: int, stopped: tuple[str, ...]) -> None:
        """Begin to purge a shard; returns at once."""
        ...

    def finished_purges(self) -> dict[int, ShardView | Exception]:
        """Purges that ended since the last call, with the view after each, or what stopped it."""
        ...


class Replicas(Protocol):
    """The serving replicas."""

    def set_live(self, chains: Mapping[int, tuple[str, ...]]) -> None:
        """Have every replica confirm the live set; one that cannot is taken out of service."""
        ...


@dataclass(frozen=True)
class Outcome:
    """What a scheduler did since it began."""

    trained: int = 0
    tokens: int = 0


@dataclass
class _Purges:
    """Which deletions the purge of a shard covers; forgotten at a restart, and then done again."""

    covering: dict[int, tuple[str, ...]] = field(default_factory=dict)  # shard -> requests, while it runs
    done: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))  # request -> shards purged


class Scheduler:
    """One reconciler, of one epoch. Every method raises `Fenced` once a newer one exists."""

    def __init__(
        self,
        run: Run,
        epoch: int,
        workers: Workers,
        shards: Shards,
        replicas: Replicas,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._run = run
        self._ledger = run.ledger
        self._epoch = epoch
        self._workers = workers
        self._shards = shards
        self._replicas = replicas
        self._clock = clock
        self._training: dict[str, Stage] = {}
        self._inputs: dict[str, dict[int, str]] = {}  # stage -> slice -> digest that it is being trained on
        self._stopping: dict[int, set[str]] = defaultdict(set)  # shard -> stages asked to stop
        self._stopped: dict[int, set[str]] = defaultdict(set)  # shard -> stages stopped, bytes to purge
        self._purges = _Purges()
        self._unhealed_since: dict[int, float] = {}
        self._shown: dict[int, tuple[int, ...]] = {}
        self._served: dict[int, tuple[str, ...]] | None = None
        self.retries = Retries(clock)
        self.outcome = Outcome()
        self.views = self._begin()

    def tick(self, wait_seconds: float) -> None:
        """One round; waits up to `wait_seconds` for a stage to finish."""
        self._ledger.beat(self._epoch)
        self.collect(wait_seconds)
        self.prune()
        self.purge()
        self.restore()
        self.place()
        self.show_depths()

    @property
    def idle(self) -> bool:
        """Nothing in training, nothing to place, no deletion on its way; stages that were given up do not count."""
        return (
            not self._training
            and not self._purges.covering
            and not any(view.stale for view in self.views.values())
            and all(self._given_up(deletion) for deletion in self._open_deletions())
            and not any(self._trainable(view) for view in self.views.values() if self._healing(view))
        )

    def collect(self, wait_seconds: float) -> None:
        """Take finished stages: accept the wanted, purge the rest, note failures."""
        for finished in self._workers.finished(wait_seconds):
            stage = self._training.pop(finished.stage_id)
            digests = self._inputs.pop(finished.stage_id)
            self._stopping[stage.shard].discard(stage.id)
            if finished.result is not None:
                if self._ledger.accept_stage(self._epoch, stage, finished.result.adapter_sha256, digests):
                    self._learned(stage, finished)
                else:
                    self._refused(stage)
            elif finished.error is None:
                self._refused(stage)
            else:
                self.retries.failed(stage.id, lost=finished.lost)
                self._ledger.record_failure(self._epoch, stage.id, finished.error)
        self._update_replicas()

    def prune(self) -> None:
        """Take out of service what accepted deletions hit, have replicas confirm, stop its training."""
        accepted = self._ledger.deletions(DeletionState.ACCEPTED)
        if not accepted:
            return
        hit = {shard for deletion in accepted for shard in _shards_of(deletion)}
        self.views.update(self._shards.prune(hit))
        for stage in self._training.values():
            if stage.id not in self.views[stage.shard].plan.stages and stage.id not in self._stopping[stage.shard]:
                self._stopping[stage.shard].add(stage.id)
                self._workers.stop(stage.id)
        self._update_replicas()
        for shard in hit:
            self._unhealed_since.setdefault(shard, self._clock())
        for deletion in accepted:
            self._ledger.advance(self._epoch, deletion.receipt.request_id, DeletionState.PRUNED)

    def purge(self) -> None:
        """Erase what pruned deletions left behind, shard by shard, once no group trains on it."""
        self._collect_purges()
        pruned = self._ledger.deletions(DeletionState.PRUNED)
        waiting: dict[int, list[str]] = defaultdict(list)
        for deletion in pruned:
            request = deletion.receipt.request_id
            for shard in _shards_of(deletion) - self._purges.done[request]:
                waiting[shard].append(request)
        for shard, view in self.views.items():
            if view.stale:  # of orders that the config no longer asks for, or left by a predecessor
                waiting.setdefault(shard, [])
        for shard, requests in waiting.items():
            if shard in self._purges.covering or self._stopping[shard] or not self.retries.due(f"purge {shard}"):
                continue
            self._purges.covering[shard] = tuple(requests)
            self._shards.start_purge(shard, tuple(sorted(self._stopped[shard])))
        moved: set[str] = set()
        for deletion in pruned:
            request = deletion.receipt.request_id
            if _shards_of(deletion) <= self._purges.done[request] and moved.issuperset(deletion.waits_for):
                self._ledger.advance(self._epoch, request, DeletionState.PURGED)
                self._purges.done.pop(request)
                moved.add(request)

    def restore(self) -> None:
        """Certify the purged deletions whose shards have healed as far as the policy asks."""
        moved: set[str] = set()
        for deletion in self._ledger.deletions(DeletionState.PURGED):
            healed = all(self._healed(self.views[shard]) for shard in _shards_of(deletion))
            if healed and moved.issuperset(deletion.waits_for):
                certify(self._run, self._epoch, deletion.receipt.request_id)
                moved.add(deletion.receipt.request_id)
        for shard, view in self.views.items():
            if not self._missing(view):
                self._unhealed_since.pop(shard, None)

    def place(self) -> None:
        """Start ready stages on free worker groups."""
        free = self._workers.free()
        if not free:
            return
        states, blocked = [], set(self.retries.blocked())
        for shard, view in self.views.items():
            if shard == HOLDOUT_SHARD:
                continue
            states.append(ShardState(view.plan, view.live, self._healing(view)))
            if view.unclean or shard in self._purges.covering:
                unclean = view.unclean
                blocked.update(s.id for s in view.plan.stages.values() if not unclean.isdisjoint(s.slices))
        for assignment in decide(states, frozenset(self._training), free, frozenset(blocked)):
            stage = assignment.stage
            job = stage_job(self._run.row, self.views[stage.shard], stage)
            self._training[stage.id] = stage
            self._inputs[stage.id] = {part.slice: part.digest for part in job.slices}
            self._workers.submit(assignment.group, job)

    def show_depths(self) -> None:
        """Write to the history every shard whose depths changed."""
        for shard, view in self.views.items():
            if shard != HOLDOUT_SHARD and self._shown.get(shard) != view.depths:
                self._shown[shard] = view.depths
                self._ledger.add_event(DEPTHS, shard, {"depths": list(view.depths)})

    def refresh_replicas(self) -> None:
        """Give every replica the live set again: for one that has just joined."""
        self._served = None
        self._update_replicas()

    def _begin(self) -> dict[int, ShardView]:
        """What a predecessor left: temporaries swept, unwanted bytes erased, published stages accepted."""
        self._run.store.sweep()
        views = self._shards.views()
        purge_abandoned(self._run, frozenset(name for view in views.values() for name in view.plan.stages))
        views.update(self._shards.prune(views))
        for shard, view in views.items():
            adopted = adopt_published(self._run, self._epoch, view)
            if adopted:
                views[shard] = replace(view, live=view.live | adopted)
        return views

    def _learned(self, stage: Stage, finished: Finished) -> None:
        view = self.views[stage.shard]
        self.views[stage.shard] = replace(view, live=view.live | {stage.id})
        self.retries.succeeded(stage.id)
        tokens = finished.result.tokens if finished.result else 0
        self.outcome = Outcome(self.outcome.trained + 1, self.outcome.tokens + tokens)

    def _refused(self, stage: Stage) -> None:
        """A stage whose data was deleted while it trained: it never counts, and its bytes go."""
        purge_bytes(self._run, stage.id)
        self._stopped[stage.shard].add(stage.id)

    def _collect_purges(self) -> None:
        for shard, result in self._shards.finished_purges().items():
            requests = self._purges.covering.pop(shard)
            key = f"purge {shard}"
            if isinstance(result, Exception):
                self.retries.failed(key, lost=True)
                self._ledger.record_failure(self._epoch, key, _message(result))
                continue
            self.retries.succeeded(key)
            # Stages accepted since the purge read the ledger: what was live and is wanted now is live now.
            kept = self.views[shard].live & frozenset(result.plan.stages)
            self.views[shard] = replace(result, live=result.live | kept)
            self._stopped[shard].clear()
            for request in requests:
                self._purges.done[request].add(shard)

    def _update_replicas(self) -> None:
        chains = {shard: view.serving for shard, view in self.views.items() if shard != HOLDOUT_SHARD}
        if chains != self._served:
            self._replicas.set_live(chains)
            self._served = chains

    def _missing(self, view: ShardView) -> frozenset[str]:
        return frozenset(view.plan.stages) - view.live

    def _trainable(self, view: ShardView) -> bool:
        """Whether something is missing that does not rest on a stage that was given up."""
        missing, given_up = self._missing(view), self.retries.given_up
        return any(given_up.isdisjoint(view.plan.stages[name].chain) for name in missing)

    def _healing(self, view: ShardView) -> bool:
        since = self._unhealed_since.get(view.plan.shard)
        age = None if since is None else self._clock() - since
        return healing_due(self._run.config.requeue, max(view.depths, default=0), view.ever_complete, age)

    def _healed(self, view: ShardView) -> bool:
        """Nothing is missing, or the policy leaves it missing (lazy, above its floor)."""
        if view.plan.shard == HOLDOUT_SHARD or not self._missing(view):
            return True
        return self._run.config.requeue.policy == "lazy" and not self._healing(view)

    def _open_deletions(self) -> tuple[DeletionRow, ...]:
        unfinished = (DeletionState.ACCEPTED, DeletionState.PRUNED, DeletionState.PURGED)
        return tuple(row for state in unfinished for row in self._ledger.deletions(state))

    def _given_up(self, deletion: DeletionRow) -> bool:
        """Whether it is only waiting for stages that failed too often."""
        return deletion.state is DeletionState.PURGED and all(
            self._missing(self.views[shard]) & self.retries.given_up for shard in _shards_of(deletion)
        )


def _shards_of(deletion: DeletionRow) -> frozenset[int]:
    return frozenset(hit.shard for hit in deletion.receipt.hits)


def _message(error: Exception) -> str:
    return error.problem if isinstance(error, S3TError) else repr(error)
