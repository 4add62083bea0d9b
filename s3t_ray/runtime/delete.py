"""A deletion: resolve -> commit -> receipt; then prune -> purge -> re-queue -> certify by the scheduler.

Reads top to bottom. `accept` needs neither Ray nor a scheduler: from its return the deletion cannot
be lost, and stages that saw the records are no longer live.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from s3t_ray.errors import TrainError
from s3t_ray.ledger.values import Hit
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.runtime.cluster import connected
from s3t_ray.runtime.driver import drive, follow, scheduler_is_active
from s3t_ray.runtime.reports import DeletionReceipt, Impact, ShardImpact, Status
from s3t_ray.runtime.run import Run
from s3t_ray.runtime.view import ShardView, view_shard


def preview(run: Run, ids: Sequence[str], subjects: Sequence[str]) -> Impact:
    """What deleting these records and subjects would hit now. Changes nothing."""
    id_names = {run.keys.id_hmac(name): name for name in ids}
    subject_names = {run.keys.subject_hmac(name): name for name in subjects}
    answer = run.ledger.preview(tuple(id_names), tuple(subject_names))
    return Impact(
        records=answer.records,
        held_out=sum(hit.records for hit in answer.hits if hit.shard == HOLDOUT_SHARD),
        already_deleted=answer.already_deleted,
        unknown_ids=tuple(id_names[name] for name in answer.unknown_ids),
        unknown_subjects=tuple(subject_names[name] for name in answer.unknown_subjects),
        shards=_impacts(run, answer.hits),
    )


def accept(run: Run, ids: Sequence[str], subjects: Sequence[str]) -> DeletionReceipt:
    """Delete, durably: when this returns the receipt is a fact. Idempotent.

    Raises UnknownRecords when the run holds none of them (then nothing was stored).
    """
    id_names = {run.keys.id_hmac(name): name for name in ids}
    subject_names = {run.keys.subject_hmac(name): name for name in subjects}
    before = run.ledger.preview(tuple(id_names), tuple(subject_names))
    impacts = _impacts(run, before.hits)
    answer = run.ledger.accept_deletion(tuple(id_names), tuple(subject_names))
    return DeletionReceipt(
        request_id=answer.receipt.request_id,
        accepted_at=answer.receipt.accepted_at,
        records=answer.receipt.records,
        already_deleted=answer.receipt.already_deleted,
        unknown_ids=tuple(id_names[name] for name in answer.unknown_ids),
        unknown_subjects=tuple(subject_names[name] for name in answer.unknown_subjects),
        stages_pruned=answer.receipt.stages,
        repeated=answer.repeated,
        shards=impacts,
    )


def settle(
    run: Run,
    request_id: str,
    *,
    address: str | None = None,
    watch: Callable[[Status], None] = lambda state: None,
) -> Status:
    """Carry an accepted deletion on until it is restored; the status then.

    Uses the scheduler that is at work on this run, wherever it is, or starts one.
    """

    def restored(state: Status) -> bool:
        return any(d.request_id == request_id and d.state == "restored" for d in state.deletions)

    if scheduler_is_active(run):
        return follow(run, watch=watch, until=restored)
    last: list[Status] = []

    def look(state: Status) -> None:
        last[:] = [state]
        watch(state)

    with connected(address):
        snapshot = drive(
            run,
            detached=address is not None,
            watch=look,
            until=lambda snapshot, state: restored(state) or snapshot.idle,
        )
    if not restored(last[-1]) and snapshot.given_up:
        worst = snapshot.given_up[0]
        raise TrainError(
            f"the records are erased, but healing stopped: "
            f"{worst.stage_id[:12]} failed {worst.attempts} times: {worst.error}",
            "mend the cause and run `s3t train` with the run's config",
        )
    return last[-1]


def _impacts(run: Run, hits: Iterable[Hit]) -> tuple[ShardImpact, ...]:
    by_shard: dict[int, dict[int, int]] = {}
    for hit in hits:
        if hit.shard != HOLDOUT_SHARD:
            by_shard.setdefault(hit.shard, {})[hit.slice] = hit.records
    return tuple(_impact(view_shard(run, shard), by_shard[shard]) for shard in sorted(by_shard))


def _impact(view: ShardView, deleted: dict[int, int]) -> ShardImpact:
    """What losing `deleted` (slice -> records) does to a shard, from the plan alone."""
    hit = {stage.id for stage in view.plan.stages.values() if not set(stage.slices).isdisjoint(deleted)}
    retained = {state.slice: state.records - deleted.get(state.slice, 0) for state in view.slices}
    return ShardImpact(
        shard=view.plan.shard,
        slices=tuple(sorted(deleted)),
        records=sum(deleted.values()),
        stages=len(hit & view.live),
        depths_before=view.depths,
        depths_after=view.plan.depths(view.live - hit),
        retrain_stages=len(hit),
        retrain_records=sum(retained[index] for name in hit for index in view.plan.stages[name].slices),
    )
