"""`s3t status`: the state of a run, from its ledger alone. Works with or without a cluster."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from s3t_ray.ledger.rows.failure_rows import (
    FailedLog,
    FailedPurge,
    FailedServing,
    FailedStage,
    FailureRow,
    FailureSubject,
)
from s3t_ray.ledger.values import DeletionRow, DeletionState, NotedStage, RunningStage
from s3t_ray.plan.stages import HOLDOUT_SHARD
from s3t_ray.run.reports import DeletionStatus, Failure, ShardStatus, Status
from s3t_ray.run.run import Run
from s3t_ray.run.shard_view import ShardView, view_shard
from s3t_ray.run.waiting import noted_waiting

NOTES_HOLD_SECONDS = 30.0
"""A record of running stages older than this comes from a scheduler that is gone."""


def status(run: Run, running: tuple[RunningStage, ...] | None = None) -> Status:
    """The run's current state. `running`: stages in training, from a scheduler; None: read them from the ledger."""
    row = run.row
    notes = noted(run.ledger.running(), datetime.now(UTC)) if running is None else ()
    views = {shard: view_shard(run, shard) for shard in range(row.shards)}
    # A deletion changes stage ids, so failures of stages that are no longer wanted are obsolete.
    current = {name for view in views.values() for name in view.missing}
    if running is None:
        running = tuple(stage for stage in notes if stage.stage_id in current)  # the others have ended
    subjects: set[FailureSubject] = {FailedStage(name) for name in current}
    subjects |= {FailedPurge(shard) for shard in (HOLDOUT_SHARD, *views)} | {FailedServing(), FailedLog()}
    failures = tuple(failure_of(row) for row in run.ledger.failures() if row.subject in subjects)
    failures += tuple(
        Failure(kind="callback", error=f"{row.name}: {row.error}", attempts=row.attempts)
        for row in run.ledger.callbacks.all()
        if row.attempts
    )
    failures += _followers_behind(run)
    due = run.ledger.requests.due()
    deletions = tuple(deletion_status(row, due.get(row.number)) for row in run.ledger.deletions())
    shards = tuple(_shard(view, running, failures) for view in views.values())
    summary = run.input_summary
    sizes = [state.records for view in views.values() for state in view.slices]
    return Status(
        name=row.name,
        storage=run.location.storage_uri,
        records=sum(shard.records for shard in shards),
        held_out=sum(state.records for state in run.ledger.slices(HOLDOUT_SHARD)),
        slices=row.slices,
        shards=shards,
        deletions=deletions,
        running=running,
        waiting=noted_waiting(run),
        failures=failures,
        settled=not any(s.wanted != s.trained for s in shards)
        and not any(view.stale for view in views.values())
        and all(deletion.state == DeletionState.RESTORED.value for deletion in deletions),
        ids_derived=run.config.data.id_field is None or (summary is not None and summary.ids_derived),
        teaching_nothing=0 if summary is None else summary.teaching_nothing,
        smallest_slice=min(sizes),
        largest_slice=max(sizes),
        empty_slices=sizes.count(0),
    )


def _followers_behind(run: Run) -> tuple[Failure, ...]:
    """External servers that deletions wait for."""
    followers = run.ledger.followers.all()
    rows = run.ledger.deletions(DeletionState.ACCEPTED) if followers else ()
    waiting = {each.name: sum(row.number > each.position for row in rows) for each in followers}
    return tuple(
        Failure(
            kind="follower",
            error=f"{waiting[each.name]} deletions wait for {each.name}, which confirmed last at {each.at}",
            attempts=0,
        )
        for each in followers
        if waiting[each.name]
    )


def failure_of(row: FailureRow) -> Failure:
    """The report of a failure in the ledger."""
    match row.subject:
        case FailedStage(stage_id):
            return Failure(kind="stage", stage_id=stage_id, error=row.error, attempts=row.attempts)
        case FailedPurge(shard):
            return Failure(kind="purge", shard=shard, error=row.error, attempts=row.attempts)
        case FailedLog():
            return Failure(kind="log", error=row.error, attempts=row.attempts)
        case FailedServing():
            return Failure(kind="serving", error=row.error, attempts=row.attempts)


def noted(notes: Iterable[NotedStage], now: datetime) -> tuple[RunningStage, ...]:
    """The stages that were recently in training, in any process."""
    return tuple(
        note.stage
        for note in notes
        if abs((now - datetime.fromisoformat(note.at)).total_seconds()) <= NOTES_HOLD_SECONDS
    )


def _shard(view: ShardView, running: Iterable[RunningStage], failures: Iterable[Failure]) -> ShardStatus:
    missing = frozenset(view.plan.stages) - view.live
    training = frozenset(stage.stage_id for stage in running) & missing
    failed = frozenset(failure.stage_id for failure in failures) & missing - training
    return ShardStatus(
        shard=view.plan.shard,
        records=sum(state.records for state in view.slices),
        orders=view.plan.orders,
        depths=view.depths,
        wanted=len(view.plan.stages),
        trained=len(view.plan.stages) - len(missing),
        running=len(training),
        queued=len(missing - training - failed),
        failed=len(failed),
    )


def deletion_status(row: DeletionRow, due_at: str | None = None) -> DeletionStatus:
    """The state of one deletion. `due_at`: when its records must be purged."""
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    end = row.times.restored or now
    age = (datetime.fromisoformat(end) - datetime.fromisoformat(row.times.accepted)).total_seconds()
    return DeletionStatus(
        request_id=row.receipt.request_id,
        state=row.state.value,
        records=row.receipt.records,
        hits=tuple((hit.shard, hit.slice, hit.records) for hit in row.receipt.hits),
        accepted_at=row.times.accepted,
        pruned_at=row.times.pruned,
        purged_at=row.times.purged,
        restored_at=row.times.restored,
        age_seconds=max(age, 0.0),
        due_at=due_at,
        overdue=due_at is not None and row.times.purged is None and due_at < now,
    )
