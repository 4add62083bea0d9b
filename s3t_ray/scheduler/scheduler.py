"""The scheduler: makes what the run has equal to what its retained data and config want.

Reads top to bottom as `tick`: collect what was trained, prune and purge what was deleted, certify
what is restored, place what is missing. It holds no truth that the ledger lacks: killed at any
instant, the next one takes the lease, which fences this one, and goes on from ledger and store.

A plain class over interfaces (`WorkerGroups`, `Shards`, `Replicas`): `actors.py` runs it in a Ray actor,
the tests run it with an in-process trainer. One thread calls it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from s3t_ray.errors import problem_of
from s3t_ray.ledger.failure_rows import retry_name
from s3t_ray.ledger.values import DeletionRow, DeletionState, Published
from s3t_ray.plan.schedule import Placer, ShardState, healing_due
from s3t_ray.plan.stages import HOLDOUT_SHARD, Stage
from s3t_ray.run.damage import DAMAGED, damaged, incomplete
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, Views, view_shard
from s3t_ray.scheduler.certify import certify, certify_interim, unannounced
from s3t_ray.scheduler.interfaces import Replicas, Shards, WorkerGroups
from s3t_ray.scheduler.pending_purges import Purges, all_given_up, shards_hit
from s3t_ray.scheduler.purge import purge_abandoned, purge_bytes, purge_everything_left, purge_strays
from s3t_ray.scheduler.recover_published import adopt_published, adopt_stage
from s3t_ray.scheduler.retries import Retries
from s3t_ray.scheduler.stage_jobs import stage_job
from s3t_ray.scheduler.trainable import sequences_to_train, trainable
from s3t_ray.store import layout

DEPTHS = "depths"
"""Event of the ledger's history: live depth of each sequence of a shard, whenever it changed."""


@dataclass(frozen=True)
class TrainingTotals:
    """What a scheduler did since it began."""

    trained: int = 0
    tokens: int = 0


SERVING = "serving"
"""Under which the loading of a live set by the replicas is counted among what failed."""


class Scheduler:
    """One reconciler, of one epoch. Every method raises `Fenced` once a newer one exists."""

    def __init__(
        self,
        run: Run,
        epoch: int,
        workers: WorkerGroups,
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
        self._purges = Purges()
        self._placer = Placer()
        self._offered: dict[int, tuple[ShardView, bool, frozenset[str]]] = {}  # what the placer knows of each shard
        self._unhealed_since: dict[int, float] = {}
        self._shown: dict[int, tuple[int, ...]] = {}
        self._served: dict[int, tuple[str, ...]] | None = None
        self._served_in_part = False
        self.retries = Retries(clock)
        self.outcome = TrainingTotals()
        self._blocked: frozenset[str] = frozenset()
        self.views = Views(self._begin())

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
        """Nothing in training, nothing to place, no deletion on its way; what was given up does not count."""
        return (
            not self._training
            and not self._purges.shards
            and not any(view.stale and not self._purge_given_up(shard) for shard, view in self.views.items())
            and all_given_up(self._open_deletions(), self.retries.given_up, self.views)
            and not any(trainable(view, self._hopeless(view)) for view in self.views.values() if self._healing(view))
        )

    @property
    def sequences_to_train(self) -> int:
        """More worker groups than this have nothing to do at once, now or later."""
        return sum(sequences_to_train(v, self._hopeless(v)) for v in self.views.values() if self._healing(v))

    def collect(self, wait_seconds: float) -> None:
        """Take finished stages: accept the wanted, purge the rest, note failures."""
        published: list[tuple[Published, int]] = []
        for finished in self._workers.finished(wait_seconds):
            stage = self._training.pop(finished.stage_id)
            self._offered.pop(stage.shard, None)
            self.views.touch(stage.shard)
            digests = self._inputs.pop(finished.stage_id)
            self._stopping[stage.shard].discard(stage.id)
            if finished.result is not None:
                done = Published(stage, finished.result.adapter_sha256, digests)
                published.append((done, finished.result.tokens))
            elif finished.error is None:
                purge_bytes(self._run, stage.id)
            else:
                self._failed(stage, finished.error, finished.lost)
        self._accept(published)
        self._update_replicas()

    def _accept(self, published: Sequence[tuple[Published, int]]) -> None:
        """One transaction for all that ended since the last round: many groups may end at once."""
        if not published:
            return
        accepted = self._ledger.accept_stages(self._epoch, [each for each, _ in published])
        for (each, tokens), wanted in zip(published, accepted, strict=True):
            if wanted:
                self._learned(each.stage, tokens)
            else:
                purge_bytes(self._run, each.stage.id)  # it saw what was deleted meanwhile: it never counts

    def prune(self) -> None:
        """Take out of service what accepted deletions hit, have replicas confirm, stop its training."""
        accepted = self._ledger.deletions(DeletionState.ACCEPTED)
        if not accepted:
            return
        hit = {shard for deletion in accepted for shard in shards_hit(deletion)}
        self.views.put(self._shards.prune(hit))
        self._stop(stage for stage in self._training.values() if stage.id not in self.views[stage.shard].plan.stages)
        self._update_replicas()
        for shard in hit:
            self._unhealed_since.setdefault(shard, self._clock())
        for deletion in accepted:
            self._ledger.advance(self._epoch, deletion.receipt.request_id, DeletionState.PRUNED)

    def purge(self) -> None:
        """Erase what pruned deletions left behind, shard by shard, once no group trains on it."""
        self._collect_purges()
        pruned = self._ledger.deletions(DeletionState.PRUNED)
        for shard, requests in self._purges.due(pruned, self.views).items():
            if not self._stopping[shard] and self.retries.due(retry_name(shard)):
                self._shards.start_purge(shard, self._purges.start(self.views[shard], requests, self._training))
        moved: set[str] = set()
        for deletion in pruned:
            if self._purges.complete(deletion) and moved.issuperset(deletion.waits_for):
                self._ledger.advance(self._epoch, deletion.receipt.request_id, DeletionState.PURGED)
                self._purges.forget(deletion)
                moved.add(deletion.receipt.request_id)

    def restore(self) -> None:
        """Certify the purged deletions whose shards have healed as far as the policy asks."""
        due = [
            deletion
            for deletion in self._ledger.deletions(DeletionState.PURGED)
            if all(self._healed(self.views[shard]) for shard in shards_hit(deletion))
        ]
        certify_interim(self._run, self._epoch)
        if due:
            # A rank that outlived its scheduler for a moment may have written after the purge.
            purge_abandoned(self._run, self._wanted(self.views))
            if not self._purges.shards:
                purge_strays(self._run, self._epoch)
        moved: set[str] = set()
        for deletion in due:
            request = deletion.receipt.request_id
            for shard, names in (broken := unannounced(self._run, request)).items():
                self._take_out(shard, names)
            if not broken and moved.issuperset(deletion.waits_for):
                moved.add(certify(self._run, self._epoch, request, final=True).facts.request_id)
        for shard in [shard for shard in self._unhealed_since if not self.views[shard].missing]:
            del self._unhealed_since[shard]

    def place(self) -> None:
        """Start ready stages on free worker groups."""
        free = self._workers.free()
        if not free:
            return
        blocked = self.retries.blocked()
        changed = self.views.take_changed("place") | self._unhealed_since.keys()  # a policy's window ends by itself
        if blocked != self._blocked:  # as does a back-off
            self._blocked, changed = blocked, set(self.views)
        for shard in changed - {HOLDOUT_SHARD}:
            self._offer(self.views[shard], blocked)
        for assignment in self._placer.assign(free):
            stage = assignment.stage
            job = stage_job(self._run, self.views[stage.shard], stage)
            self._training[stage.id] = stage
            self._inputs[stage.id] = {part.slice: part.digest for part in job.slices}
            self._purges.begun(stage)
            self._workers.submit(assignment.group, job)

    def _offer(self, view: ShardView, failed: frozenset[str]) -> None:
        """Tell the placer of a shard, if anything about it has changed since the last time."""
        shard = view.plan.shard
        healing = self._healing(view) and not self._better_after_purge(view)
        failed = frozenset(failed & view.plan.stages.keys())
        known = self._offered.get(shard)
        if known is not None and known[0] is view and known[1:] == (healing, failed):
            return
        self._offered[shard] = (view, healing, failed)
        running = [stage.id for stage in self._training.values() if stage.shard == shard]
        self._placer.put(ShardState(view.plan, view.live, healing), running, failed | view.unpurged)

    def show_depths(self) -> None:
        """Write to the history every shard whose depths changed."""
        changed: list[tuple[int | None, dict[str, object]]] = []
        for shard in sorted(self.views.take_changed("show")):
            view, shown = self.views[shard], self._shown.get(shard)
            if shard != HOLDOUT_SHARD and shown is not view.depths and shown != view.depths:
                self._shown[shard] = view.depths
                changed.append((shard, {"depths": list(view.depths)}))
        if changed:
            self._ledger.add_events(DEPTHS, changed)

    def refresh_replicas(self) -> None:
        """Give every replica the live set again: for one that has just joined."""
        self._served = None
        self._update_replicas()

    def _begin(self) -> dict[int, ShardView]:
        """What a predecessor left: temporaries swept, unwanted bytes erased, published stages accepted."""
        self._run.store.sweep()
        views = self._shards.views()
        purge_everything_left(self._run, self._epoch, self._wanted(views))
        files = frozenset(self._run.store.files(layout.STAGES))
        for shard in views:
            self._ledger.mark_stale(self._epoch, incomplete(self._run, shard, files))
        views.update(self._shards.prune(views))
        for shard, view in views.items():
            if adopt_published(self._run, self._epoch, view):
                views[shard] = view_shard(self._run, shard)
        return views

    def _wanted(self, views: Mapping[int, ShardView]) -> frozenset[str]:
        """What may have bytes without being accepted: it is to be trained, or in training."""
        return frozenset(self._training).union(*(view.plan.stages for view in views.values()))

    def _learned(self, stage: Stage, tokens: int) -> None:
        view = self.views[stage.shard]
        self.views[stage.shard] = replace(view, live=view.live | {stage.id})
        self._purges.accepted(stage)
        self.retries.succeeded(stage.id)
        self.outcome = TrainingTotals(self.outcome.trained + 1, self.outcome.tokens + tokens)

    def _failed(self, stage: Stage, error: str, lost: bool) -> None:
        """Its group died after it had published it, or a stage below it is damaged, or it is a failure of its own."""
        view = self.views[stage.shard]
        if stage.id not in view.plan.stages:
            purge_bytes(self._run, stage.id)
        elif lost and adopt_stage(self._run, self._epoch, view, stage):
            self._learned(stage, 0)
        elif not lost and (broken := damaged(self._run, stage.shard, stage.ancestors)):
            self._take_out(stage.shard, broken)
        else:
            self.retries.failed(stage.id, lost)
            self._ledger.record_failure(self._epoch, stage.id, error)

    def _take_out(self, shard: int, broken: tuple[str, ...]) -> None:
        """Damaged stages and those built on them leave service, are purged, and, wanted as ever, trained again."""
        stale = frozenset(self._ledger.mark_stale(self._epoch, broken))
        for name in broken:
            self._ledger.record_failure(self._epoch, name, DAMAGED)
        self.views[shard] = view_shard(self._run, shard)
        self._stop(stage for stage in self._training.values() if not stale.isdisjoint(stage.ancestors))

    def _stop(self, stages: Iterable[Stage]) -> None:
        for stage in stages:
            if stage.id not in self._stopping[stage.shard]:
                self._stopping[stage.shard].add(stage.id)
                self._workers.stop(stage.id)

    def _collect_purges(self) -> None:
        for shard, result in self._shards.finished_purges().items():
            name = retry_name(shard)
            if isinstance(result, Exception):
                self._purges.failed(shard)
                self.retries.failed(name, lost=True)
                self._ledger.record_failure(self._epoch, name, problem_of(result))
                continue
            self._purges.ended(shard)
            self.retries.succeeded(name)
            self._ledger.forget_failure(self._epoch, name)
            # Not the view that the purge ended with: stages were accepted, or found damaged, since.
            self.views[shard] = view_shard(self._run, shard)

    def _update_replicas(self) -> None:
        """Tell the replicas, until all of them have it all; who cannot load a damaged stage finds it for us."""
        while True:
            chains = {shard: view.serving for shard, view in self.views.items() if shard != HOLDOUT_SHARD}
            if chains == self._served and not (self._served_in_part and self.retries.due(SERVING)):
                return
            self._served_in_part = bool(self._replicas.set_live(chains))
            self._served = chains
            if not self._served_in_part:
                self.retries.succeeded(SERVING)
                return
            found = {shard: damaged(self._run, shard, chain) for shard, chain in chains.items()}
            for shard, broken in found.items():
                if broken:
                    self._take_out(shard, broken)
            if not any(found.values()):
                self.retries.failed(SERVING, lost=True)

    def _hopeless(self, view: ShardView) -> frozenset[str]:
        """Stages of the shard that nothing can rest on."""
        given_up = self.retries.given_up
        return given_up | view.unpurged if self._purge_given_up(view.plan.shard) else given_up

    def _healing(self, view: ShardView) -> bool:
        since = self._unhealed_since.get(view.plan.shard)
        age = None if since is None else self._clock() - since
        return healing_due(self._run.config.requeue, view.depth, view.ever_complete, age)

    def _better_after_purge(self, view: ShardView) -> bool:
        """lazy heals with few stages: the best of them may be one that must wait for the purge."""
        lazy = self._run.config.requeue.policy == "lazy" and view.ever_complete and bool(view.unpurged)
        return lazy and not self._purge_given_up(view.plan.shard)

    def _healed(self, view: ShardView) -> bool:
        """Nothing is missing, or the policy leaves it missing (lazy, above its floor)."""
        if view.plan.shard == HOLDOUT_SHARD or not view.missing:
            return True
        return self._run.config.requeue.policy == "lazy" and not self._healing(view)

    def _open_deletions(self) -> tuple[DeletionRow, ...]:
        """Those that came least far first, so that each comes after those that it waits for."""
        return tuple(row for state in tuple(DeletionState)[:-1] for row in self._ledger.deletions(state))

    def _purge_given_up(self, shard: int) -> bool:
        return retry_name(shard) in self.retries.given_up
