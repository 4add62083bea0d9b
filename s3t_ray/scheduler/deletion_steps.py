"""The second half of every deletion, from top to bottom: prune, purge, re-queue, certify.

In: a `Decision` (see `decide.py`, which says what is due; `run/deletion.py` has the first half: resolve, commit,
receipt). Out: the deeds, in the order that every promise rests on. Each may be cut off anywhere and taken again by
the next scheduler: what a step says in the ledger, it says last.
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
    """Whom a scheduler commands."""

    workers: WorkerGroups
    shards: Shards
    replicas: Replicas


class DeletionSteps:
    """Of one scheduler, by one thread. Every method raises `Fenced` once a newer scheduler exists."""

    def __init__(self, run: Run, epoch: int, surroundings: Surroundings, books: Bookkeeping) -> None:
        self._run = run
        self._epoch = epoch
        self._workers = surroundings.workers
        self._shards = surroundings.shards
        self._replicas = surroundings.replicas
        self._books = books
        self._serving_failed = any(row.subject == FailedServing() for row in run.ledger.failures())

    def look(self, states: Iterable[DeletionState] = UNFINISHED) -> None:
        """The deletions that are on their way and in these states, as the ledger has them now."""
        found = {state: self._run.ledger.deletions(state) for state in states}
        self._books.look(found)
        if found.get(DeletionState.ACCEPTED):
            self._books.followed_to = self._run.ledger.followers.slowest()

    def take(self, decision: Decision) -> None:
        """All steps of a decision."""
        if decision.viewed:  # of no shard, where a request names only what was deleted before
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
        """Take out of service what the deletions hit, and read what the shards want now."""
        self._books.viewed(requests, self._shards.prune(shards))

    def stop(self, stages: Iterable[str]) -> None:
        """Have stages in training end at their next step."""
        for stage_id in stages:
            self._books.asked_to_stop(stage_id)
            self._workers.stop(stage_id)

    def confirm(self, live_set: Mapping[int, tuple[str, ...]]) -> None:
        """Have all replicas confirm the live set. One that cannot load a damaged stage finds it for us."""
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
        """Say in the ledger that these deletions have come so far."""
        for request in requests:
            self._run.ledger.advance(self._epoch, request, state)
        if requests:  # who waits for them stands where they stood
            self.look((UNFINISHED[state.rank - 1], state))

    # Purge: erased from the storage

    def purge(self, purge: ShardPurge) -> None:
        """Begin to erase what is left of the deleted records in one shard."""
        self._books.purge_began(purge)
        self._shards.start_purge(purge.shard, purge.stages)

    def collect_purges(self) -> None:
        """Purges that ended since the last round."""
        for shard, result in self._shards.finished_purges().items():
            subject = FailedPurge(shard)
            if isinstance(result, Exception):
                self._books.purge_failed(shard)
                self._books.retries.failed(subject, lost=True)
                self._run.ledger.record_failure(self._epoch, subject, problem_of(result))
                continue
            # Not the view that the purge ended with: stages were accepted, or found damaged, since.
            self._books.purge_ended(shard, view_shard(self._run, shard))
            self._books.retries.succeeded(subject)
            self._run.ledger.forget_failure(self._epoch, subject)

    # Re-queue: trained again

    def requeue(self, assignment: Assignment) -> None:
        """Start a stage on a free worker group."""
        stage = assignment.stage
        job = stage_job(self._run, self._books.views[stage.shard], stage)
        self._books.started(stage, {part.slice: part.digest for part in job.slices})
        self._workers.submit(assignment.group, job)

    # Certify: restored

    def certify_interim(self) -> None:
        """Sign that every byte of the purged deletions is gone: this waits for no training."""
        certify_interim(self._run, self._epoch)

    def certify(self, requests: Iterable[str]) -> None:
        """Sign the final certificates of healed deletions, which restores them.

        A live stage with an erased adapter that no worker of this run sealed is taken out of service instead, and
        the deletion, with those that wait for it, heals again.
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
    """What may have bytes without being accepted: it is to be trained, or in training."""
    return frozenset(training).union(*(view.plan.stages for view in views.values()))
