"""Checks that the ledger agrees with itself: recomputes every fact that follows from others.

In: a snapshot of the ledger. Out: one line per contradiction; nothing is repaired. A row that was edited by hand
contradicts another row: tombstones are counted by deletion and slice, slice digests are chained by the deletions,
states of stages and deletions follow from the history, and the numbers of the history leave no gap.

The ledger alone cannot reveal a change that keeps all rows consistent, such as a complete older copy. Issued
certificates and keyed digests reveal that.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, select

from s3t_ray.ledger.keys import LedgerKeys
from s3t_ray.ledger.log_consistency import log_contradictions
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.rows.record_rows import read_run
from s3t_ray.ledger.rows.request_rows import broken_requests
from s3t_ray.ledger.seals.row_seals import SEALS_PURGES, broken_seals, seals_of
from s3t_ray.ledger.tables import (
    DELETIONS,
    EVENTS,
    EXPORTS,
    HEAD,
    HITS,
    PRUNED,
    RECORDS,
    REQUESTS,
    SKETCHES,
    SLICES,
    STAGES,
    TOMBSTONES,
)
from s3t_ray.ledger.transaction import is_time
from s3t_ray.ledger.values import DeletionState, EventKind, StageState

_WITH_TOMBSTONES = RECORDS.outerjoin(
    TOMBSTONES,
    (TOMBSTONES.c.shard == RECORDS.c.shard)
    & (TOMBSTONES.c.slice == RECORDS.c.slice)
    & (TOMBSTONES.c.id_hmac == RECORDS.c.id_hmac),
)
_MOVED = {
    EventKind.DELETION_ACCEPTED: DeletionState.ACCEPTED,
    EventKind.DELETION_PRUNED: DeletionState.PRUNED,
    EventKind.DELETION_PURGED: DeletionState.PURGED,
    EventKind.DELETION_RESTORED: DeletionState.RESTORED,
}
_EXPORTED = {EventKind.EXPORTED: None, EventKind.EXPORT_ERASED: None}
CLOCKS_APART = timedelta(minutes=10)
"""Maximum difference between the clocks of the machines that write a ledger and the one that audits it."""
_BECAME = {
    EventKind.STAGE_ACCEPTED: StageState.LIVE,
    EventKind.STAGE_STALE: StageState.STALE,
    EventKind.STAGE_PURGED: StageState.PURGED,
}


def contradictions(connection: Connection, keys: LedgerKeys | None, now: str) -> tuple[str, ...]:
    """See `Ledger.contradictions`. `now`: time by the reader's clock."""
    if read_run(connection) is None:
        return ()
    checks: tuple[Callable[[Connection], Iterator[str]], ...] = (
        _records,
        _slices,
        _erased,
        _numbers,
        _exports,
        _stages,
        _deletions,
    )
    exports_in_log = keys is not None and (seals_of(connection, keys) or 0) >= SEALS_PURGES
    logged = log_contradictions(connection, exports_in_log)
    sealed = () if keys is None else (*broken_seals(connection, keys), *broken_requests(connection, keys))
    found = (problem for check in checks for problem in check(connection))
    return (*found, *logged, *_clock(connection, now), *sealed)


def _records(connection: Connection) -> Iterator[str]:
    """Compare counts of retained and deleted records with slices, deletions and the first ingest."""
    retained: dict[tuple[int, int], int] = defaultdict(int)
    deleted: dict[tuple[int, int, int], int] = defaultdict(int)
    count = func.count()
    tombstone = func.coalesce(RECORDS.c.deletion, TOMBSTONES.c.deletion).label("deletion")
    query = select(RECORDS.c.shard, RECORDS.c.slice, tombstone, count.label("records")).select_from(_WITH_TOMBSTONES)
    for row in connection.execute(query.group_by(RECORDS.c.shard, RECORDS.c.slice, tombstone)):
        if row.deletion is None:
            retained[row.shard, row.slice] = row.records
        else:
            deleted[row.deletion, row.shard, row.slice] = row.records
    for row in connection.execute(select(SLICES.c.shard, SLICES.c.slice, SLICES.c.records)):
        found = retained.pop((row.shard, row.slice), 0)
        if found != row.records:
            yield f"{_place(row)} should have {row.records} retained records, but the ledger has {found}"
    if retained:
        yield f"{sum(retained.values())} records are in slices that the run does not have"
    total = sum(deleted.values()) + int(connection.scalar(select(func.coalesce(func.sum(SLICES.c.records), 0))) or 0)
    names = {row.sequence: row for row in connection.execute(select(DELETIONS))}
    hits: dict[int, int] = defaultdict(int)
    for row in connection.execute(select(HITS)):
        hits[row.deletion] += row.records
        found = deleted.pop((row.deletion, row.shard, row.slice), 0)
        if found != row.records:
            name = names[row.deletion].request_id if row.deletion in names else f"number {row.deletion}"
            yield f"deletion {name} took {row.records} records from {_place(row)}, but {found} tombstones are left"
    there = connection.scalar(select(func.count()).select_from(TOMBSTONES))
    unpurged = select(func.count()).select_from(_WITH_TOMBSTONES).where(TOMBSTONES.c.deletion.is_not(None))
    fitting = connection.scalar(unpurged.where(RECORDS.c.deletion.is_(None)))
    if fitting != there:
        yield f"{there} tombstones are left, but {fitting} of them are for records that the ledger still has"
    if deleted:
        yield f"{sum(deleted.values())} tombstones belong to no deletion in the ledger"
    for sequence, row in names.items():
        if row.records != hits[sequence]:
            yield f"deletion {row.request_id} says {row.records} records, but its slices say {hits[sequence]}"
    ingested = connection.scalar(select(EVENTS.c.detail).where(EVENTS.c.kind == str(EventKind.INGESTED)))
    began = None if ingested is None else json.loads(ingested)["records"]
    if began != total:
        yield f"the run started with {began} records, but it has {total} retained and deleted ones"


def _slices(connection: Connection) -> Iterator[str]:
    """Check that each slice's digest matches its sum and its last deletion, and that its deletions form a chain."""
    hits: dict[tuple[int, int], list[Row[Any]]] = defaultdict(list)
    for row in connection.execute(select(HITS).order_by(HITS.c.deletion)):
        hits[row.shard, row.slice].append(row)
    for row in connection.execute(select(SLICES).order_by(SLICES.c.shard, SLICES.c.slice)):
        if LtHash16(row.lthash, row.records).digest() != row.digest:
            yield f"{_place(row)}: its digest is not that of its sum of records"
        chain = hits[row.shard, row.slice]
        after = [hit.digest_after for hit in chain]
        if [*(hit.digest_before for hit in chain[1:]), row.digest] != (after or [row.digest]):
            yield f"{_place(row)}: its digest does not follow from its deletions"
        lacking = {hit.digest_after: hit.deletion for hit in chain}
        lacking[chain[0].digest_before if chain else row.digest] = 0
        if row.file_digest is not None and lacking.get(row.file_digest) != row.file_deletion:
            yield f"{_place(row)}: its file is not said to lack the rows that a file of this digest lacks"


def _erased(connection: Connection) -> Iterator[str]:
    """Check that purged deletions left nothing in the ledger that a purge erases."""
    states = [str(state) for state in DeletionState if state.rank >= DeletionState.PURGED.rank]
    purged = {row.sequence: row for row in connection.execute(select(DELETIONS).where(DELETIONS.c.state.in_(states)))}
    left: dict[int, int] = defaultdict(int)
    kept = RECORDS.c.digest.is_not(None) | RECORDS.c.content_hmac.is_not(None)
    sketched = select(SKETCHES.c.id_hmac).where(SKETCHES.c.id_hmac == RECORDS.c.id_hmac).exists()
    count = func.count().label("records")
    buried = select(RECORDS.c.deletion, count).where(RECORDS.c.deletion.is_not(None), kept | sketched)
    for row in connection.execute(buried.group_by(RECORDS.c.deletion)):
        left[row.deletion] += row.records
    for row in connection.execute(select(TOMBSTONES.c.deletion, count).group_by(TOMBSTONES.c.deletion)):
        left[row.deletion] += row.records
    for sequence, row in purged.items():
        if left[sequence]:
            yield (
                f"deletion {row.request_id} is {row.state}, "
                f"and the ledger still has what {left[sequence]} of its records were"
            )
    by_place: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row in connection.execute(select(HITS).order_by(HITS.c.deletion)):
        if row.deletion in purged:
            by_place[row.shard, row.slice].append(row.deletion)
    there = select(STAGES).where(STAGES.c.state != str(StageState.PURGED)).order_by(STAGES.c.accepted)
    for row in connection.execute(there):
        for index in json.loads(row.slices):
            later = by_place[row.shard, index]
            if later and later[-1] > row.accepted:
                of = purged[later[bisect_right(later, row.accepted)]]
                saw = f"stage {row.id[:12]} saw its records and is not purged"
                yield f"deletion {of.request_id} is {of.state}, and {saw}"
                break


def _numbers(connection: Connection) -> Iterator[str]:
    """Check that events, deletions, requests and acceptances use every number up to the head's exactly once."""
    head = connection.execute(select(HEAD)).one().sequence
    used: set[int] = set(connection.scalars(select(DELETIONS.c.sequence)))
    used |= set(connection.scalars(select(REQUESTS.c.sequence)))
    for row in connection.execute(select(EVENTS.c.sequence, EVENTS.c.kind)):
        used.add(row.sequence)
        if row.kind == EventKind.STAGE_ACCEPTED:
            used.add(row.sequence - 1)  # the acceptance that it records
    gaps = [number for number in range(1, head + 1) if number not in used]
    if gaps:
        yield f"the history lacks {len(gaps)} of its numbers, the first is {gaps[0]}: lines were removed"
    taken = connection.scalar(
        select(EVENTS.c.detail).where(EVENTS.c.kind == str(EventKind.LEASE_TAKEN)).order_by(EVENTS.c.sequence.desc())
    )
    said = {"epoch": 0, "holder": ""} if taken is None else json.loads(taken)
    lease = connection.execute(select(HEAD)).one()
    if (said["epoch"], said["holder"]) != (lease.epoch, lease.holder):
        yield f"the lease has epoch {lease.epoch}, but the history says epoch {said['epoch']}"
    if used and max(used) > head:
        yield f"the history ends at number {max(used)}, but the head says {head}: lines were added"


def _clock(connection: Connection, now: str) -> Iterator[str]:
    """Check that the clock's latest time is valid, not exceeded in the history, and not in the future."""
    at = str(connection.scalar(select(HEAD.c.at)))
    latest = str(connection.scalar(select(func.max(EVENTS.c.at))) or "")
    if at and not is_time(at):
        yield f"the ledger's clock says {at[:40]!r}, which is not a time"
    elif at and at < latest:
        yield f"the ledger's clock says {at}, but its history continues to {latest}"
    elif at and datetime.fromisoformat(at) > datetime.fromisoformat(now) + CLOCKS_APART:
        yield (
            f"the ledger's clock says {at}, and here it is {now}: a clock was wrong or the ledger's was changed, and "
            "what is signed from now on bears that time or a later one"
        )


def _exports(connection: Connection) -> Iterator[str]:
    """Check that exactly the exports in the history that were not erased have a row."""
    told: dict[str, int | None] = {}
    for row in _history(connection, _EXPORTED):
        folder = json.loads(row.detail)["folder"]
        if row.kind == EventKind.EXPORTED:
            told[folder] = row.shard
        else:
            told.pop(folder, None)
    there = {row.folder: row.shard for row in connection.execute(select(EXPORTS))}
    for folder in sorted(told.keys() - there.keys()):
        yield f"the export at {folder} is in the history, but was removed from the ledger: no purge would erase it"
    for folder in sorted(there.keys() - told.keys()):
        yield f"the export at {folder} is in the ledger, but not in the history"
    for folder in sorted(there.keys() & told.keys()):
        if there[folder] != told[folder]:
            yield f"the export at {folder} names another shard than when it was recorded"


def _stages(connection: Connection) -> Iterator[str]:
    """Compare states and adapters of stages with the history."""
    state: dict[str, StageState] = {}
    accepted: dict[str, tuple[list[int], str | None]] = {}  # slices, SHA-256 of the adapter
    told_of: dict[str, tuple[int, int, str]] = {}  # number, shard, time
    for row in _history(connection, _BECAME):
        detail = json.loads(row.detail)
        name = detail["stage"]
        state[name] = _BECAME[EventKind(row.kind)]
        if row.kind == EventKind.STAGE_ACCEPTED:
            accepted[name] = (detail["slices"], detail.get("adapter_sha256"))
            told_of[name] = (row.sequence - 1, row.shard, row.at)
    by = {row.stage: row.deletion for row in connection.execute(_PRUNED_BY)}
    for row in connection.execute(select(STAGES).order_by(STAGES.c.accepted)):
        told = state.pop(row.id, None)
        if told is None:
            yield f"stage {row.id[:12]} is {row.state}, but no scheduler ever had it accepted"
        elif told != row.state:
            yield f"stage {row.id[:12]} is {row.state}, but its history says {told}"
        elif accepted[row.id][1] is None:
            yield (
                f"stage {row.id[:12]} was accepted by an older s3t_ray, whose history does not name its adapter: "
                "only a replay of it can show that the adapter was not exchanged"
            )
        elif accepted[row.id] != (json.loads(row.slices), row.adapter_sha256):
            yield f"stage {row.id[:12]} names other slices, or another adapter, than when it was accepted"
        elif told_of[row.id] != (row.accepted, row.shard, row.accepted_at):
            yield f"stage {row.id[:12]} names another shard, number or time than when it was accepted"
        if len(json.loads(row.ancestors)) != len(json.loads(row.slices)) - 1:
            yield f"stage {row.id[:12]} does not have an ancestor for each slice except its last"
        if row.pruned_by is not None and row.state == StageState.LIVE:
            yield f"stage {row.id[:12]} is live, but its row says that a deletion removed it"
        elif row.pruned_by is not None and row.pruned_by > row.accepted and by.get(row.id) != row.pruned_by:
            yield f"stage {row.id[:12]} was not removed by the deletion that its row names"
        if row.pruned_by is None and by.get(row.id, 0) > row.accepted:
            yield f"stage {row.id[:12]} was removed by a deletion that its row does not name"
    for name in state:
        yield f"stage {name[:12]} was accepted, but is no longer in the ledger"


_PRUNED_BY = select(PRUNED.c.stage, func.max(PRUNED.c.deletion).label("deletion")).group_by(PRUNED.c.stage)


def _deletions(connection: Connection) -> Iterator[str]:
    """Compare states of deletions with the history."""
    told: dict[str, DeletionState] = {}
    for row in _history(connection, _MOVED):
        told[json.loads(row.detail)["request"]] = _MOVED[EventKind(row.kind)]
    for row in connection.execute(select(DELETIONS).order_by(DELETIONS.c.sequence)):
        state = told.pop(row.request_id, None)
        if state != row.state:
            yield f"deletion {row.request_id} is {row.state}, but its history says {state or 'unknown'}"
        times = (row.pruned_at, row.purged_at, row.restored_at)
        reached = DeletionState(row.state).rank
        if [time is not None for time in times] != [rank <= reached for rank in (1, 2, 3)]:
            yield f"deletion {row.request_id} is {row.state}, but has times of other steps"
    for request in told:
        yield f"deletion {request} was accepted, but is no longer in the ledger"


def _history(connection: Connection, kinds: dict[EventKind, Any]) -> Iterator[Row[Any]]:
    names = [str(kind) for kind in kinds]
    yield from connection.execute(select(EVENTS).where(EVENTS.c.kind.in_(names)).order_by(EVENTS.c.sequence))


def _place(row: Row[Any]) -> str:
    return f"slice {row.slice} of shard {row.shard}"
