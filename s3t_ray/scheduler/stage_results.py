"""Handles stages that left their worker group: accepts wanted ones, erases the rest, counts or explains failures.

In: what the worker groups report. Out: stages accepted in the ledger, bytes erased, failures counted. A failure
counts against the stage only if nothing else explains it, such as a group that died after publishing the stage, or a
damaged parent stage in the storage.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from s3t_ray.ledger.rows.failure_rows import FailedStage
from s3t_ray.ledger.values import Published
from s3t_ray.plan.stages import Stage
from s3t_ray.run.integrity.damage import DAMAGED, damaged
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import view_shard
from s3t_ray.scheduler.bookkeeping import Bookkeeping
from s3t_ray.scheduler.interfaces import Finished
from s3t_ray.scheduler.purge import purge_bytes
from s3t_ray.scheduler.recover_published import adopt_stage


@dataclass(frozen=True)
class TrainingTotals:
    """What a scheduler has trained since it started."""

    trained: int = 0
    tokens: int = 0


class StageResults:
    """Belongs to one scheduler; not thread-safe."""

    def __init__(self, run: Run, epoch: int, books: Bookkeeping) -> None:
        self._run = run
        self._epoch = epoch
        self._books = books
        self.totals = TrainingTotals()

    def take(self, finished: Iterable[Finished]) -> None:
        """Record each stage as accepted, refused, stopped or failed."""
        published: list[tuple[Published, int]] = []
        for each in finished:
            stage, inputs = self._books.ended(each.stage_id)
            if each.result is not None:
                published.append((Published(stage, each.result.adapter_sha256, inputs), each.result.tokens))
            elif each.error is None:
                purge_bytes(self._run, stage.id)
            else:
                self._failed(stage, each.error, each.lost)
        if published:
            self._accept(published)

    def _accept(self, published: Sequence[tuple[Published, int]]) -> None:
        """Accept these stages in one transaction, because many groups may finish at once."""
        accepted = self._run.ledger.accept_stages(self._epoch, [each for each, _ in published])
        self._learned(
            [(each.stage, tokens) for (each, tokens), wanted in zip(published, accepted, strict=True) if wanted]
        )
        for (each, _), wanted in zip(published, accepted, strict=True):
            if not wanted:
                purge_bytes(self._run, each.stage.id)  # trained on records deleted in the meantime, so it is never used

    def _learned(self, stages: Sequence[tuple[Stage, int]]) -> None:
        self._books.accepted(stage for stage, _ in stages)
        for stage, tokens in stages:
            self._books.retries.succeeded(FailedStage(stage.id))
            self.totals = TrainingTotals(self.totals.trained + 1, self.totals.tokens + tokens)

    def _failed(self, stage: Stage, error: str, lost: bool) -> None:
        view = self._books.views[stage.shard]
        if stage.id not in view.plan.stages:
            purge_bytes(self._run, stage.id)
        elif lost and adopt_stage(self._run, self._epoch, view, stage):
            self._learned([(stage, 0)])
        elif not lost and (broken := damaged(self._run, stage.shard, stage.ancestors)):
            take_out(self._run, self._epoch, self._books, stage.shard, broken)
        else:
            self._books.retries.failed(FailedStage(stage.id), lost)
            self._run.ledger.record_failure(self._epoch, FailedStage(stage.id), error)


def take_out(run: Run, epoch: int, books: Bookkeeping, shard: int, broken: Sequence[str]) -> None:
    """Take damaged stages and those built on them out of service, so that they are purged and retrained."""
    run.ledger.mark_stale(epoch, broken)
    for name in broken:
        run.ledger.record_failure(epoch, FailedStage(name), DAMAGED)
    books.views[shard] = view_shard(run, shard)
