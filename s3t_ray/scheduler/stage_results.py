"""Stages that left their worker group: the wanted are accepted, the rest erased, failures counted or explained.

In: what the worker groups report. Out: stages accepted in the ledger, bytes erased, failures counted. A failure
is the stage's own only when nothing else explains it: its group died after it had published the stage, or a stage
below it is damaged in the storage.
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
    """What a scheduler did since it began."""

    trained: int = 0
    tokens: int = 0


class StageResults:
    """Of one scheduler, by one thread."""

    def __init__(self, run: Run, epoch: int, books: Bookkeeping) -> None:
        self._run = run
        self._epoch = epoch
        self._books = books
        self.totals = TrainingTotals()

    def take(self, finished: Iterable[Finished]) -> None:
        """Each counts as accepted, refused, stopped or failed from now on."""
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
        """One transaction for all that ended since the last round: many groups may end at once."""
        accepted = self._run.ledger.accept_stages(self._epoch, [each for each, _ in published])
        self._learned(
            [(each.stage, tokens) for (each, tokens), wanted in zip(published, accepted, strict=True) if wanted]
        )
        for (each, _), wanted in zip(published, accepted, strict=True):
            if not wanted:
                purge_bytes(self._run, each.stage.id)  # it saw what was deleted meanwhile: it never counts

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
    """Damaged stages and those built on them leave service, are purged, and, wanted as ever, trained again."""
    run.ledger.mark_stale(epoch, broken)
    for name in broken:
        run.ledger.record_failure(epoch, FailedStage(name), DAMAGED)
    books.views[shard] = view_shard(run, shard)
