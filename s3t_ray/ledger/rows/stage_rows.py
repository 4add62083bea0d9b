"""Accepted stages: which are live, which are stale and why, which are erased.

A stage is accepted only while it follows from the data. The check and the row are one transaction, and a deletion takes
the same lock, so a stage that saw a deleted record is either refused here or made stale by the deletion. A live stage's
ancestors are always live.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from s3t_ray.errors import LedgerError
from s3t_ray.ledger.rows.record_rows import require_run
from s3t_ray.ledger.tables import DELETIONS, FAILURES, SLICES, STAGES
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import EventKind, StageRow, StageState
from s3t_ray.plan.identity import stage_id
from s3t_ray.plan.stages import Stage


def read_stages(connection: Connection, shard: int | None, state: StageState | None) -> tuple[StageRow, ...]:
    """See `Ledger.stages`."""
    query = (
        select(STAGES, DELETIONS.c.request_id)
        .outerjoin(DELETIONS, STAGES.c.pruned_by == DELETIONS.c.sequence)
        .order_by(STAGES.c.accepted)
    )
    if shard is not None:
        query = query.where(STAGES.c.shard == shard)
    if state is not None:
        query = query.where(STAGES.c.state == str(state))
    return tuple(
        StageRow(
            row.id,
            row.shard,
            tuple(json.loads(row.slices)),
            tuple(json.loads(row.ancestors)),
            StageState(row.state),
            row.adapter_sha256,
            row.accepted_at,
            row.request_id,
            row.accepted,
        )
        for row in connection.execute(query)
    )


def standing(connection: Connection, shard: int) -> tuple[frozenset[str], frozenset[str]]:
    """See `Ledger.standing`."""
    query = select(STAGES.c.id, STAGES.c.state).where(
        STAGES.c.shard == shard, STAGES.c.state.in_([str(StageState.LIVE), str(StageState.STALE)])
    )
    rows = connection.execute(query).all()
    live = frozenset(row.id for row in rows if row.state == StageState.LIVE)
    return live, frozenset(row.id for row in rows) - live


def ever_trained(connection: Connection, shard: int, orders: Sequence[tuple[int, ...]]) -> bool:
    """See `Ledger.ever_trained`."""
    wanted = {json.dumps(order) for order in orders}
    found = connection.scalars(select(STAGES.c.slices).where(STAGES.c.shard == shard).distinct())
    for slices in found:
        wanted.discard(slices)
        if not wanted:
            return True
    return not wanted


def accept(tx: Transaction, stage: Stage, adapter_sha256: str, slice_digests: Mapping[int, str]) -> bool:
    """See `Ledger.accept_stage`."""
    run = require_run(tx.connection)
    _check_shape(stage, run.shards, slice_digests)
    row = tx.connection.execute(_ONE, {"stage": stage.id}).one_or_none()
    if row is not None and row.state == StageState.LIVE:
        if row.adapter_sha256 == adapter_sha256:
            return True
        raise LedgerError(
            f"stage {stage.id} is live with adapter {row.adapter_sha256}, got other bytes: {adapter_sha256}",
            "training was not reproducible: keep the live adapter and erase the new one",
        )
    if not _follows(tx.connection, stage, run.recipe_digest, slice_digests):
        return False
    values = {
        "shard": stage.shard,
        "slices": json.dumps(stage.slices),
        "ancestors": json.dumps(stage.ancestors),
        "state": str(StageState.LIVE),
        "adapter_sha256": adapter_sha256,
        "accepted_at": tx.now,
        "accepted": tx.next_sequence(),
        "pruned_by": None,
    }
    if row is None:
        tx.connection.execute(_ADD, {"id": stage.id, **values})
    else:
        tx.connection.execute(update(STAGES).where(STAGES.c.id == stage.id).values(**values))
    tx.connection.execute(_FORGET_FAILURE, {"of_stage": stage.id})
    detail = {"stage": stage.id, "slices": list(stage.slices), "adapter_sha256": adapter_sha256}
    tx.event(EventKind.STAGE_ACCEPTED, stage.shard, detail)
    return True


def mark_stale(tx: Transaction, stage_ids: Iterable[str]) -> tuple[str, ...]:
    """See `Ledger.mark_stale`."""
    wanted = set(stage_ids)
    rows = _known(tx.connection, wanted)
    stale = [
        row
        for shard in sorted({row.shard for row in rows})
        for row in live_rows(tx.connection, [shard])
        if row.id in wanted or wanted.intersection(json.loads(row.ancestors))
    ]
    turn_stale(tx, stale, None)
    return tuple(row.id for row in stale)


def mark_purged(tx: Transaction, stage_ids: Iterable[str]) -> None:
    """See `Ledger.mark_purged`."""
    rows = _known(tx.connection, set(stage_ids))
    if live := [row.id for row in rows if row.state == StageState.LIVE]:
        raise LedgerError(
            f"stage {live[0]} is live, so its bytes must be there", "mark it stale before erasing its bytes"
        )
    stale = [row for row in rows if row.state == StageState.STALE]
    if stale:
        tx.connection.execute(_TURN_PURGED, [{"stage": row.id} for row in stale])
        tx.events(EventKind.STAGE_PURGED, [(row.shard, {"stage": row.id}) for row in stale])


def live_rows(connection: Connection, shards: Iterable[int]) -> list[Row[Any]]:
    """Live stages of these shards, oldest first."""
    return list(connection.execute(_LIVE, {"of_shards": sorted(shards)}))


def dependents(connection: Connection, places: frozenset[tuple[int, int]]) -> list[Row[Any]]:
    """Live stages that learned from one of these (shard, slice), oldest first."""
    return [row for row in live_rows(connection, {shard for shard, _ in places}) if _learned_from(row, places)]


def unpurged_before(connection: Connection, deletion: int, places: frozenset[tuple[int, int]]) -> list[str]:
    """Ids of stages with existing bytes that learned from these places before this deletion."""
    query = select(STAGES).where(
        STAGES.c.shard.in_(sorted({shard for shard, _ in places})),
        STAGES.c.state != str(StageState.PURGED),
        STAGES.c.accepted < deletion,
    )
    return [row.id for row in connection.execute(query) if _learned_from(row, places)]


def turn_stale(tx: Transaction, rows: Sequence[Row[Any]], deletion: int | None) -> None:
    """live -> stale, by this deletion or (None) because they are not wanted."""
    if not rows:
        return
    tx.connection.execute(_TURN_STALE, [{"stage": row.id, "by": deletion} for row in rows])
    tx.events(EventKind.STAGE_STALE, [(row.shard, {"stage": row.id}) for row in rows])


# Built once: building a statement takes longer than running it.
_ONE = select(STAGES).where(STAGES.c.id == bindparam("stage"))
_ADD = insert(STAGES)
_DIGESTS = select(SLICES.c.slice, SLICES.c.digest).where(SLICES.c.shard == bindparam("of_shard"))
_FORGET_FAILURE = delete(FAILURES).where(FAILURES.c.stage == bindparam("of_stage"))
_LIVE = (
    select(STAGES)
    .where(STAGES.c.shard.in_(bindparam("of_shards", expanding=True)), STAGES.c.state == str(StageState.LIVE))
    .order_by(STAGES.c.accepted)
)
_TURN_PURGED = update(STAGES).where(STAGES.c.id == bindparam("stage")).values(state=str(StageState.PURGED))
_TURN_STALE = (
    update(STAGES)
    .where(STAGES.c.id == bindparam("stage"))
    .values(state=str(StageState.STALE), pruned_by=bindparam("by"))
)


def _learned_from(row: Row[Any], places: frozenset[tuple[int, int]]) -> bool:
    return any((row.shard, index) in places for index in json.loads(row.slices))


def _known(connection: Connection, stage_ids: set[str]) -> list[Row[Any]]:
    rows = list(
        connection.execute(select(STAGES).where(STAGES.c.id.in_(sorted(stage_ids))).order_by(STAGES.c.accepted))
    )
    if missing := sorted(stage_ids - {row.id for row in rows}):
        raise LedgerError(
            f"{len(missing)} stages were never accepted, the first is {missing[0]}", "take the ids from Ledger.stages"
        )
    return rows


def _check_shape(stage: Stage, shards: int, slice_digests: Mapping[int, str]) -> None:
    if not 0 <= stage.shard < shards:
        raise LedgerError(
            f"stage {stage.id} is of shard {stage.shard}, but the run has {shards}", "plan it with this run"
        )
    if len(stage.slices) != len(stage.ancestors) + 1:
        raise LedgerError(
            f"stage {stage.id} has {len(stage.slices)} slices and {len(stage.ancestors)} ancestors",
            "plan it with plan_shard: a stage has one ancestor fewer than slices",
        )
    if missing := [index for index in stage.slices if index not in slice_digests]:
        raise LedgerError(
            f"stage {stage.id} lacks the digests of slices {missing}",
            "give the digest of every slice that it was trained on",
        )


def _follows(connection: Connection, stage: Stage, recipe: str, slice_digests: Mapping[int, str]) -> bool:
    """Whether the stage follows from the run's recipe and the current data."""
    added = stage.slices[-1]
    if stage.id != stage_id(recipe, stage.parent, stage.shard, added, slice_digests[added]):
        return False
    digests = connection.execute(_DIGESTS, {"of_shard": stage.shard})
    current = {row.slice: row.digest for row in digests}
    if any(current.get(index) != slice_digests[index] for index in stage.slices):
        return False
    if stage.parent is None:
        return True
    parent = connection.execute(_ONE, {"stage": stage.parent}).one_or_none()
    return (
        parent is not None
        and parent.state == StageState.LIVE
        and tuple(json.loads(parent.slices)) == stage.slices[:-1]
        and tuple(json.loads(parent.ancestors)) == stage.ancestors[:-1]
    )
