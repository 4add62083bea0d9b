"""Seals: keyed MACs of the ledger's rows of its run and of each record, so that no row can move to another person.

A record's seal covers its id, its subject and its place. Its content is covered by keyed digests, which an audit
recomputes from the data; a purge erases those, and the seal stays valid. When a deletion is purged, a seal on what it
took from each slice fixes which records belong to it. A ledger of an older version has no seals: a process with the
keys sets them once (`seal_older_rows`), and an entry of the log says from when on they are valid. The format of the
run's own seal says what has been sealed since the run began: no older version ever wrote in it without these seals.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict

from sqlalchemy import Connection, bindparam, func, select, update

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import minhash_index
from s3t_ray.ledger.keys import LedgerKeys
from s3t_ray.ledger.query_batches import BATCH
from s3t_ray.ledger.rows import log_rows
from s3t_ray.ledger.rows.log_rows import EntryKind, LogPosition
from s3t_ray.ledger.seals.sketch_seals import broken_sketches
from s3t_ray.ledger.tables import DELETIONS, HITS, LOG, RECORDS, RUN, SLICES
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.proof.run_entry import RunEntry, RunEntryFacts
from s3t_ray.proof.signed_entry import canonical, signed

SEALS_ALL = 3
"""Format of the run's seal: since the run began all is sealed that is sealed today, sketches and their settings too."""
SEALS_PURGES = 2
"""Since the run began, purges and the config are sealed, and the log tells of every export."""
_SEALS_RECORDS = 1


def seal_run(tx: Transaction, how: str) -> RunEntry:
    """Seal the run's row, and add an entry with the run's state to the log. `how`: see `RunEntryFacts.sealed`."""
    connection = tx.connection
    row = connection.execute(select(RUN)).one()
    run_id = log_rows.read_identity(connection)
    written = SEALS_ALL if how == "ingest" else _SEALS_RECORDS
    connection.execute(update(RUN).values(seal=tx.keys.run_seal(_said_of_run(connection, run_id, written))))
    states = connection.execute(select(SLICES.c.shard, SLICES.c.slice, SLICES.c.digest)).all()
    data = canonical(sorted([state.shard, state.slice, state.digest] for state in states))
    records = int(connection.scalar(select(func.count()).select_from(RECORDS)) or 0)

    def make(position: LogPosition) -> RunEntry:
        facts = RunEntryFacts(
            **position._asdict(),
            at=tx.now,
            sealed=how,  # type: ignore[arg-type]
            ledger_sequence=tx.head.sequence,
            recipe_digest=row.recipe_digest,
            base_digest=row.base_digest,
            shards=row.shards,
            slices=row.slices,
            records=records,
            data=hashlib.sha256(data.encode()).hexdigest(),
        )
        return signed(RunEntry, tx.keys, facts=facts)

    return log_rows.append(tx, EntryKind.RUN, None, make)


def seal_older_rows(tx: Transaction) -> bool:
    """Seal a run that an older version started. False: already sealed, or there is no run.

    LedgerError: it was sealed before, so somebody removed its seals.
    """
    if tx.connection.execute(select(RUN.c.seal)).scalar() is not None:
        return False
    if tx.connection.execute(select(RUN.c.id)).scalar() is None:
        return False
    require_never_sealed(tx.connection)
    after = b""
    while True:
        rows = tx.connection.execute(_UNSEALED, {"after": after, "most": BATCH}).all()
        if not rows:
            break
        after = rows[-1].id_hmac
        seals = [
            {"identity": row.id_hmac, "made": tx.keys.row_seal(row.id_hmac, row.subject_hmac, row.shard, row.slice)}
            for row in rows
        ]
        tx.connection.execute(_SEAL, seals)
    seal_run(tx, "upgrade")
    return True


def broken_seals(connection: Connection, keys: LedgerKeys) -> Iterator[str]:
    """One line per kind of row that the keys did not seal. Reads every record once."""
    run = connection.execute(select(RUN)).one_or_none()
    if run is None:
        return
    if run.seal is None:
        yield (
            "the ledger was begun by an older s3t_ray and carries no seals: that nobody moved a record to another "
            "person, or to another place, is not covered until `s3t train` has opened the run with its keys"
        )
        return
    written = seals_of(connection, keys)
    if written is None:
        yield "the ledger's row of the run, or how records are sketched, was changed: it is not what its keys sealed"
    wrong = 0
    took: dict[tuple[int, int, int], list[bytes]] = defaultdict(list)
    for row in connection.execution_options(yield_per=BATCH).execute(_RECORDS):
        wrong += row.seal != keys.row_seal(row.id_hmac, row.subject_hmac, row.shard, row.slice)
        if row.deletion is not None:
            took[row.deletion, row.shard, row.slice].append(row.id_hmac)
    if wrong:
        yield f"{wrong} records have another id, subject or place than the keys sealed: their rows were changed"
    for hit in connection.execute(_PURGED):
        if hit.seal is None and (written or 0) < SEALS_PURGES:
            continue  # a version that sealed none may have purged it
        made = keys.purge_seal(hit.deletion, hit.shard, hit.slice, took[hit.deletion, hit.shard, hit.slice])
        if hit.seal != made:
            yield (
                f"deletion {hit.request_id} is said to have taken other records from slice {hit.slice} of shard "
                f"{hit.shard} than the keys sealed when it was purged: rows were changed"
            )
    if written is not None:
        yield from broken_sketches(connection, keys, all_are_sealed=written >= SEALS_ALL)


def seals_of(connection: Connection, keys: LedgerKeys) -> int | None:
    """`SEALS_ALL`, or less, according to the seal on the run's row; None: no seal by these keys."""
    seal = connection.scalar(_IS_SEALED)
    for written in (SEALS_ALL, SEALS_PURGES, _SEALS_RECORDS):
        if seal is not None and seal == keys.run_seal(
            _said_of_run(connection, log_rows.read_identity(connection), written)
        ):
            return written
    return None


def is_sealed(connection: Connection) -> bool:
    """Whether the run's rows are sealed."""
    return connection.scalar(_IS_SEALED) is not None


def require_never_sealed(connection: Connection) -> None:
    """LedgerError if a run has no seals but its log says that it had: they were removed to hide a change."""
    first, entries = connection.execute(_BEGUN).one()
    if entries or (first or 1) > 1:
        raise LedgerError(
            "the seals of the ledger's rows were taken off: its log tells that the run's keys had sealed them; "
            "nothing was changed",
            "run `s3t audit` to investigate, and restore the ledger from a copy",
        )


def _said_of_run(connection: Connection, run_id: str, written: int) -> str:
    row = connection.execute(select(RUN)).one()
    said = {column.name: getattr(row, column.name) for column in RUN.columns if column.name not in ("id", "seal")}
    if written >= SEALS_PURGES:
        said["seals"] = written
    if written >= SEALS_ALL:
        sketching = minhash_index.read(connection)
        said["sketching"] = None if sketching is None else asdict(sketching)
    return canonical({**said, "run_id": run_id})


_RECORDS = select(
    RECORDS.c.id_hmac, RECORDS.c.subject_hmac, RECORDS.c.shard, RECORDS.c.slice, RECORDS.c.seal, RECORDS.c.deletion
)
_PURGED = (
    select(HITS.c.deletion, HITS.c.shard, HITS.c.slice, HITS.c.seal, DELETIONS.c.request_id)
    .join(DELETIONS, DELETIONS.c.sequence == HITS.c.deletion)
    .where(DELETIONS.c.purged_at.is_not(None))
    .order_by(HITS.c.deletion, HITS.c.shard, HITS.c.slice)
)
_IS_SEALED = select(RUN.c.seal)
_BEGUN = select(func.min(LOG.c.sequence), func.count().filter(LOG.c.kind == str(EntryKind.RUN)))
_UNSEALED = (
    select(RECORDS.c.id_hmac, RECORDS.c.subject_hmac, RECORDS.c.shard, RECORDS.c.slice)
    .where(RECORDS.c.id_hmac > bindparam("after"))
    .order_by(RECORDS.c.id_hmac)
    .limit(bindparam("most"))
)
_SEAL = update(RECORDS).where(RECORDS.c.id_hmac == bindparam("identity")).values(seal=bindparam("made"))
