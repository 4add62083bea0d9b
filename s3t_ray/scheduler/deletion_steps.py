"""The second half of every deletion, from top to bottom: prune, purge, re-queue, certify.

In: a `Decision`, made by `decide.py`; `run/deletion.py` has the first half: resolve, commit, receipt. Out: the steps,
carried out in the order that the guarantees depend on. Each can be interrupted anywhere and repeated by the next
scheduler, because it updates the ledger last.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from s3t_ray.errors import problem_of
from s3t_ray.ledger.rows.failure_rows import FailedPurge, FailedServing
from s3t_ray.ledger.values import DeletionState
from s3t_ray.plan.schedule import Assignment
from s3t_ray.run.integrity.damage import damaged
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, view_shard
from s3t_ray.scheduler.bookkeeping import Bookkeeping
from s3t_ray.scheduler.certify import certify, certify_interim, unannounced
from s3t_ray.scheduler.interfaces import Replicas, Shards, WorkerGroups
from s3t_ray.scheduler.policy.decide import Decision, ShardPurge
from s3t_ray.scheduler.policy.state import UNFINISHED
from s3t_ray.scheduler.purge import purge_abandoned, purge_strays
from s3t_ray.scheduler.requeue import stage_job
from s3t_ray.scheduler.stage_results import take_out


@dataclass(frozen=True)
class Surroundings:
    """Everything that a scheduler controls."""

    workers: WorkerGroups
    shards: Shards
    replicas: Replicas


class DeletionSteps:
    """Belongs to one scheduler; not thread-safe. Every method raises `Fenced` once a newer scheduler exists."""

    def __init__(self, run: Run, epoch: int, surroundings: Surroundings, books: Bookkeeping) -> None:
        self._run = run
        self._epoch = epoch
        self._workers = surroundings.workers
        self._shards = surroundings.shards
        self._replicas = surroundings.replicas
        self._books = books
        self._serving_failed = any(row.subject == FailedServing() for row in run.ledger.failures())

    def look(self, states: Iterable[DeletionState] = UNFINISHED) -> None:
        """Read the unfinished deletions in these states from the ledger."""
        found = {state: self._run.ledger.deletions(state) for state in states}
        self._books.look(found)
        if found.get(DeletionState.ACCEPTED):
            self._books.followed_to = self._run.ledger.followers.slowest()

    def take(self, decision: Decision) -> None:
        """Take all steps of a decision."""
        if decision.viewed:  # without shards if a request names only deleted records
            self.prune(decision.prune, decision.viewed)
        self.stop(decision.stop)
        if decision.serve is not None:
            self.confirm(decision.serve)
        self.advance(decision.pruned, DeletionState.PRUNED)
        for purge in decision.purge:
            self.purge(purge)
        self.advance(decision.purged, DeletionState.PURGED)
        for assignment in decision.train:
            self.requeue(assignment)
        if decision.certify:
            self.certify(decision.certify)

    # Prune: out of service

    def prune(self, shards: Iterable[int], requests: Iterable[str]) -> None:
        """Take the stages that the deletions hit out of service, and read what the shards need now."""
        self._books.viewed(requests, self._shards.prune(shards))

    def stop(self, stages: Iterable[str]) -> None:
        """Make stages in training stop at their next step."""
        for stage_id in stages:
            self._books.asked_to_stop(stage_id)
            self._workers.stop(stage_id)

    def confirm(self, live_set: Mapping[int, tuple[str, ...]]) -> None:
        """Make all replicas confirm the live set. If one cannot load a stage, check that stage for damage."""
        behind = self._replicas.set_live(live_set)
        self._books.confirmed(live_set, in_part=bool(behind))
        if not behind:
            self._books.retries.succeeded(FailedServing())
            if self._serving_failed:
                self._run.ledger.forget_failure(self._epoch, FailedServing())
                self._serving_failed = False
            return
        self._books.retries.failed(FailedServing(), lost=True)
        found = {shard: damaged(self._run, shard, chain) for shard, chain in live_set.items()}
        for shard, broken in found.items():
            if broken:
                take_out(self._run, self._epoch, self._books, shard, broken)
        if not any(found.values()):
            self._serving_failed = True
            self._run.ledger.record_failure(
                self._epoch,
                FailedServing(),
                f"{len(behind)} replicas serve less than the live set: they cannot load a stage whose bytes are "
                "whole; see their logs",
            )

    def advance(self, requests: Collection[str], state: DeletionState) -> None:
        """Record in the ledger that these deletions have reached this state."""
        for request in requests:
            self._run.ledger.advance(self._epoch, request, state)
        if requests:  # deletions that wait for them are in the state that these had
            self.look((UNFINISHED[state.rank - 1], state))

    # Purge: erased from the storage

    def purge(self, purge: ShardPurge) -> None:
        """Start erasing what is left of the deleted records in one shard."""
        self._books.purge_began(purge)
        self._shards.start_purge(purge.shard, purge.stages)

    def collect_purges(self) -> None:
        """Process the purges that ended since the last round."""
        for shard, result in self._shards.finished_purges().items():
            subject = FailedPurge(shard)
            if isinstance(result, Exception):
                self._books.purge_failed(shard)
                self._books.retries.failed(subject, lost=True)
                self._run.ledger.record_failure(self._epoch, subject, problem_of(result))
                continue
            # Not the view at the end of the purge: stages may have been accepted or found damaged since.
            self._books.purge_ended(shard, view_shard(self._run, shard))
            self._books.retries.succeeded(subject)
            self._run.ledger.forget_failure(self._epoch, subject)

    # Re-queue: retrain

    def requeue(self, assignment: Assignment) -> None:
        """Start a stage on a free worker group."""
        stage = assignment.stage
        job = stage_job(self._run, self._books.views[stage.shard], stage)
        self._books.started(stage, {part.slice: part.digest for part in job.slices})
        self._workers.submit(assignment.group, job)

    # Certify: restored

    def certify_interim(self) -> None:
        """Certify that every byte of the purged deletions is gone, without waiting for training."""
        certify_interim(self._run, self._epoch)

    def certify(self, requests: Iterable[str]) -> None:
        """Sign the final certificates of healed deletions, which moves them to `restored`.

        If a live stage has an erased adapter without a seal by a worker of this run, it is taken out of service
        instead, and the deletion and those that wait for it heal again.
        """
        # A rank that outlived its scheduler for a moment may have written after the purge.
        purge_abandoned(self._run, wanted(self._books.training, self._books.views))
        if not self._books.purging:
            purge_strays(self._run, self._epoch)
        waits_for = {row.receipt.request_id: row.waits_for for row in self._books.state().deletions}
        held: set[str] = set()
        for request in requests:
            broken = unannounced(self._run, request)
            for shard, names in broken.items():
                take_out(self._run, self._epoch, self._books, shard, names)
            if broken or not held.isdisjoint(waits_for[request]):
                held.add(request)
                self._books.postponed(request)
            else:
                certify(self._run, self._epoch, request, final=True)
        self.look()


def wanted(training: Iterable[str], views: Mapping[int, ShardView]) -> frozenset[str]:
    """Stages that may have bytes without being accepted: still to be trained, or in training."""
    return frozenset(training).union(*(view.plan.stages for view in views.values()))
