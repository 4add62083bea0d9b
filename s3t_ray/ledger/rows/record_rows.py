"""Writes the run and its records in one transaction from a stream.

In: `RecordEntry`, in any order. Out: rows of `s3t_records` and the first state of every slice. Memory holds the slices
and one piece of the stream, however many records there are: many records are sorted by key on disk, and SQLite builds
each of the other indexes in one pass after all rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import minhash_index
from s3t_ray.ledger.key_order import in_key_order
from s3t_ray.ledger.lthash import MEMBER_BYTES, LtHash16
from s3t_ray.ledger.minhash_index import SketchSeal
from s3t_ray.ledger.query_batches import BATCH
from s3t_ray.ledger.resolve import SealOf, rows_of
from s3t_ray.ledger.rows.slice_rows import read_slices
from s3t_ray.ledger.seals import row_seals
from s3t_ray.ledger.tables import RECORDS, RUN, SLICES
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import DuplicateRecord, EventKind, RecordEntry, RecordState, RunRow, Sketching, SliceState
from s3t_ray.plan.stages import HOLDOUT_SHARD

DIGESTS_WAITING = 1 << 20
"""Digests added to the slices' sums together, because a batch has few records per slice in a run of many slices."""

_RUN = select(RUN)


def read_run(connection: Connection) -> RunRow | None:
    row = connection.execute(_RUN).one_or_none()
    if row is None:
        return None
    return RunRow(
        row.name,
        row.recipe_digest,
        row.recipe_json,
        row.base_digest,
        row.shards,
        row.slices,
        row.key_check,
    )


def require_run(connection: Connection) -> RunRow:
    """The run; LedgerError before ingest."""
    run = read_run(connection)
    if run is None:
        raise LedgerError("the ledger has no run yet", "start the run first: its records are written then")
    return run


def require_no_run(connection: Connection) -> None:
    """LedgerError after ingest."""
    existing = read_run(connection)
    if existing is not None:
        raise LedgerError(
            f"the ledger already has run {existing.name!r}", "resume that run, or start the new one with its own ledger"
        )


def check_key(connection: Connection, key_check: str) -> None:
    """See `Ledger.check_key`."""
    run = require_run(connection)
    if run.key_check != key_check:
        raise LedgerError(
            f"the keys (check value {key_check}) are not those of run {run.name!r} (check value {run.key_check})",
            "set keys.dir to the folder of keys that this run was started with",
        )


def read_states(connection: Connection, ids: Sequence[bytes]) -> dict[bytes, RecordState]:
    """See `Ledger.record_states`."""
    found: dict[bytes, RecordState] = {}
    for row in rows_of(connection, RECORDS.c.id_hmac, ids):
        found[row.identity] = RecordState(row.digest, row.shard, row.slice, row.deletion is not None, row.content)
    return found


@dataclass
class _Ingest:
    """Intermediate results of one ingest."""

    hashes: dict[tuple[int, int], LtHash16]
    waiting: dict[tuple[int, int], list[bytes]] = field(default_factory=lambda: defaultdict(list))
    records: int = 0
    duplicates: int = 0
    first_duplicate: bytes = b""
    sketching: Sketching | None = None
    seal_of: SealOf = field(kw_only=True)
    sketch_seal: SketchSeal = field(kw_only=True)


def ingest(
    tx: Transaction, run: RunRow, entries: Iterable[RecordEntry], sketching: Sketching | None
) -> list[SliceState]:
    """See `Ledger.ingest`."""
    require_no_run(tx.connection)
    if run.shards < 1 or run.slices < 1:
        raise LedgerError(
            f"a run needs 1 or more shards and slices, got {run.shards} and {run.slices}", "correct the configuration"
        )
    places = [(HOLDOUT_SHARD, 0), *((shard, index) for shard in range(run.shards) for index in range(run.slices))]
    keys, hashes = tx.keys, {place: LtHash16() for place in places}
    state = _Ingest(hashes, sketching=sketching, seal_of=keys.row_seal, sketch_seal=keys.sketch_seal)
    stream = in_key_order(_checked(entries, state), _folder(tx.connection))
    with _indexed_afterwards(tx.connection):
        while batch := list(islice(stream, BATCH)):
            _add_batch(tx.connection, batch, state)
    _add_up(state)
    if state.duplicates:
        raise DuplicateRecord(
            state.first_duplicate,
            f"{state.duplicates} of the records repeat the id of another; one of them has the id HMAC "
            f"{state.first_duplicate.hex()}",
            "give each record an id of its own, or remove the repeats; nothing was stored",
        )
    if sketching is not None:
        minhash_index.store(tx.connection, sketching)
    tx.connection.execute(insert(RUN).values(id=1, **asdict(run)))
    tx.connection.execute(insert(SLICES), [_slice_columns(place, lthash) for place, lthash in state.hashes.items()])
    tx.event(EventKind.INGESTED, None, {"records": state.records, "shards": run.shards, "slices": run.slices})
    row_seals.seal_run(tx, "ingest")
    return list(read_slices(tx.connection, None))


def _folder(connection: Connection) -> Path | None:
    """Folder for temporary files, on the ledger's disk, which has room for it."""
    url = connection.engine.url
    return Path(str(url.database)).parent if connection.dialect.name == "sqlite" else None


@contextmanager
def _indexed_afterwards(connection: Connection) -> Iterator[None]:
    """Insert records with only the key indexed, and build the other indexes afterwards; SQLite only.

    A failure rolls this back with the transaction. PostgreSQL keeps its indexes, because dropping one locks readers
    out.
    """
    if connection.dialect.name != "sqlite":
        yield
        return
    indexes = connection.exec_driver_sql(_INDEXES, (RECORDS.name,)).all()
    for name, _ in indexes:
        connection.exec_driver_sql(f"DROP INDEX {name}")
    yield
    for _, statement in indexes:
        connection.exec_driver_sql(statement)


_INDEXES = "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = ? AND sql IS NOT NULL"


def _checked(entries: Iterable[RecordEntry], state: _Ingest) -> Iterator[RecordEntry]:
    for entry in entries:
        _check(entry, state)
        yield entry


def _add_batch(connection: Connection, batch: list[RecordEntry], state: _Ingest) -> None:
    fresh = {entry.id_hmac: entry for entry in reversed(batch)}
    if len(fresh) < len(batch) or state.duplicates or not _insert_all(connection, batch, state):
        _count_duplicates(connection, batch, fresh, state)
        return
    if state.sketching is not None:
        minhash_index.add(connection, state.sketching, batch, state.records, state.sketch_seal)
    before = state.records // DIGESTS_WAITING
    state.records += len(batch)
    for entry in batch:
        state.waiting[entry.shard, entry.slice].append(entry.digest)
    if state.records // DIGESTS_WAITING > before:
        _add_up(state)


def _add_up(state: _Ingest) -> None:
    for place, digests in state.waiting.items():
        state.hashes[place].add(digests)
    state.waiting.clear()


def _check(entry: RecordEntry, state: _Ingest) -> None:
    if (entry.shard, entry.slice) not in state.hashes:
        raise LedgerError(
            f"a record is in shard {entry.shard}, slice {entry.slice}, which the run does not have",
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
            f"a record has a sketch of {len(entry.signature or b'')} bytes, but the run needs {expected or 0}",
            "sketch every record with the run's own settings, or none",
        )


def _insert_all(connection: Connection, batch: list[RecordEntry], state: _Ingest) -> bool:
    """Insert the batch. False, with nothing inserted, if a record already exists; the usual case needs no lookup."""
    try:
        with connection.begin_nested():
            _insert(connection, batch, state.seal_of)
    except IntegrityError:
        return False
    return True


def _count_duplicates(
    connection: Connection, batch: list[RecordEntry], fresh: dict[bytes, RecordEntry], state: _Ingest
) -> None:
    """Count duplicates in the rest of the stream, for the error message; the ingest is refused."""
    stored = set(connection.scalars(select(RECORDS.c.id_hmac).where(RECORDS.c.id_hmac.in_(list(fresh)))))
    if not state.duplicates:
        seen = set(stored)
        for entry in batch:
            if entry.id_hmac in seen:
                state.first_duplicate = entry.id_hmac
                break
            seen.add(entry.id_hmac)
    state.duplicates += len(batch) - len(fresh) + len(stored)
    rest = [entry for id_hmac, entry in fresh.items() if id_hmac not in stored]
    if rest:
        _insert(connection, rest, state.seal_of)


def _insert(connection: Connection, entries: Iterable[RecordEntry], seal_of: SealOf) -> None:
    """Insert with the driver's own SQL: SQLAlchemy takes longer to wrap the values than the database per row."""
    mark = "%s" if connection.dialect.name == "postgresql" else "?"
    connection.exec_driver_sql(
        "INSERT INTO s3t_records (id_hmac, subject_hmac, content_hmac, digest, shard, slice, seal) "
        f"VALUES ({', '.join([mark] * 7)})",
        [
            (
                entry.id_hmac,
                entry.subject_hmac,
                entry.content_hmac,
                entry.digest,
                entry.shard,
                entry.slice,
                seal_of(entry.id_hmac, entry.subject_hmac, entry.shard, entry.slice),
            )
            for entry in entries
        ],
    )


def _slice_columns(place: tuple[int, int], lthash: LtHash16) -> dict[str, object]:
    return {
        "shard": place[0],
        "slice": place[1],
        "records": lthash.members,
        "lthash": lthash.state,
        "digest": lthash.digest(),
    }
