"""The run and its records: one transaction over a stream.

In: `RecordEntry`, as they come. Out: rows of `s3t_records` and the first state of every slice. Memory
stays that of one batch however many records come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import sketches
from s3t_ray.ledger.lthash import MEMBER_BYTES, LtHash16
from s3t_ray.ledger.pieces import BATCH
from s3t_ray.ledger.resolve import rows_of
from s3t_ray.ledger.schema import RECORDS, RUN, SLICES
from s3t_ray.ledger.slices import read_slices
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import DuplicateRecord, EventKind, RecordEntry, RecordState, RunRow, Sketching, SliceState
from s3t_ray.plan.stages import HOLDOUT_SHARD

_RUN = select(RUN)


def read_run(connection: Connection) -> RunRow | None:
    row = connection.execute(_RUN).one_or_none()
    if row is None:
        return None
    return RunRow(row.name, row.recipe_digest, row.recipe_json, row.base_digest, row.shards, row.slices, row.key_check)


def require_run(connection: Connection) -> RunRow:
    """The run; LedgerError before ingest."""
    run = read_run(connection)
    if run is None:
        raise LedgerError("the ledger has no run yet", "start the run first: its records are written then")
    return run


def check_key(connection: Connection, key_check: str) -> None:
    """See `Ledger.check_key`."""
    run = require_run(connection)
    if run.key_check != key_check:
        raise LedgerError(
            f"the keys (check value {key_check}) are not those of run {run.name!r} (check value {run.key_check})",
            "point keys.dir at the folder of keys this run was started with",
        )


def read_states(connection: Connection, ids: Sequence[bytes]) -> dict[bytes, RecordState]:
    """See `Ledger.record_states`."""
    found: dict[bytes, RecordState] = {}
    for row in rows_of(connection, RECORDS.c.id_hmac, ids):
        found[row.identity] = RecordState(row.digest, row.shard, row.slice, row.deletion is not None)
    return found


@dataclass
class _Ingest:
    """What one ingest has gathered so far."""

    hashes: dict[tuple[int, int], LtHash16]
    records: int = 0
    duplicates: int = 0
    first_duplicate: bytes = b""
    sketching: Sketching | None = None


def ingest(
    tx: Transaction, run: RunRow, entries: Iterable[RecordEntry], sketching: Sketching | None
) -> list[SliceState]:
    """See `Ledger.ingest`."""
    existing = read_run(tx.connection)
    if existing is not None:
        raise LedgerError(
            f"the ledger already has run {existing.name!r}", "resume that run, or start the new one with its own ledger"
        )
    if run.shards < 1 or run.slices < 1:
        raise LedgerError(
            f"a run has 1 or more shards and slices, got {run.shards} and {run.slices}", "correct the configuration"
        )
    places = [(HOLDOUT_SHARD, 0), *((shard, index) for shard in range(run.shards) for index in range(run.slices))]
    state = _Ingest({place: LtHash16() for place in places}, sketching=sketching)
    stream = iter(entries)
    while batch := list(islice(stream, BATCH)):
        _add_batch(tx.connection, batch, state)
    if state.duplicates:
        raise DuplicateRecord(
            state.first_duplicate,
            f"{state.duplicates} of the records repeat the id of another; the first has the id HMAC "
            f"{state.first_duplicate.hex()}",
            "give each record an id of its own, or remove the repeats; nothing was stored",
        )
    if sketching is not None:
        sketches.store(tx.connection, sketching)
    tx.connection.execute(insert(RUN).values(id=1, **asdict(run)))
    tx.connection.execute(insert(SLICES), [_slice_columns(place, lthash) for place, lthash in state.hashes.items()])
    tx.event(EventKind.INGESTED, None, {"records": state.records, "shards": run.shards, "slices": run.slices})
    return list(read_slices(tx.connection, None))


def _add_batch(connection: Connection, batch: list[RecordEntry], state: _Ingest) -> None:
    by_place: dict[tuple[int, int], list[bytes]] = {}
    for entry in batch:
        _check(entry, state)
        by_place.setdefault((entry.shard, entry.slice), []).append(entry.digest)
    fresh = {entry.id_hmac: entry for entry in reversed(batch)}
    if len(fresh) < len(batch) or state.duplicates or not _insert_all(connection, batch):
        _count_duplicates(connection, batch, fresh, state)
        return
    if state.sketching is not None:
        sketches.add(connection, state.sketching, batch, first=state.records)
    state.records += len(batch)
    for place, digests in by_place.items():
        state.hashes[place].add(digests)


def _check(entry: RecordEntry, state: _Ingest) -> None:
    if (entry.shard, entry.slice) not in state.hashes:
        raise LedgerError(
            f"a record has the place shard {entry.shard}, slice {entry.slice}, which the run lacks",
            "partition the records with the configuration of this run",
        )
    if len(entry.id_hmac) != MEMBER_BYTES or len(entry.digest) != MEMBER_BYTES:
        raise LedgerError(
            f"a record has an id HMAC of {len(entry.id_hmac)} bytes and a digest of {len(entry.digest)}",
            f"make both with the run's keys: {MEMBER_BYTES} bytes each",
        )
    expected = None if state.sketching is None else state.sketching.permutations
    if (None if entry.signature is None else len(entry.signature)) != expected:
        raise LedgerError(
            f"a record has a sketch of {len(entry.signature or b'')} bytes, the run asks for {expected or 0}",
            "sketch every record with the run's own settings, or none",
        )


def _insert_all(connection: Connection, batch: list[RecordEntry]) -> bool:
    """False, with nothing inserted, when one is there already: the usual case costs no look-up."""
    try:
        with connection.begin_nested():
            connection.execute(insert(RECORDS), [_record_columns(entry) for entry in batch])
    except IntegrityError:
        return False
    return True


def _count_duplicates(
    connection: Connection, batch: list[RecordEntry], fresh: dict[bytes, RecordEntry], state: _Ingest
) -> None:
    """The ingest is refused from here on; the rest of the stream is read only to say how many repeat."""
    stored = set(connection.scalars(select(RECORDS.c.id_hmac).where(RECORDS.c.id_hmac.in_(list(fresh)))))
    if not state.duplicates:
        seen = set(stored)
        for entry in batch:
            if entry.id_hmac in seen:
                state.first_duplicate = entry.id_hmac
                break
            seen.add(entry.id_hmac)
    state.duplicates += len(batch) - len(fresh) + len(stored)
    rest = [_record_columns(entry) for id_hmac, entry in fresh.items() if id_hmac not in stored]
    if rest:
        connection.execute(insert(RECORDS), rest)


def _record_columns(entry: RecordEntry) -> dict[str, object]:
    return {
        "id_hmac": entry.id_hmac,
        "subject_hmac": entry.subject_hmac,
        "content_hmac": entry.content_hmac,
        "digest": entry.digest,
        "shard": entry.shard,
        "slice": entry.slice,
    }


def _slice_columns(place: tuple[int, int], lthash: LtHash16) -> dict[str, object]:
    return {
        "shard": place[0],
        "slice": place[1],
        "records": lthash.members,
        "lthash": lthash.state,
        "digest": lthash.digest(),
    }
