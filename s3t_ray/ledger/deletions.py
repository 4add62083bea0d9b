"""Accepting a deletion: resolve, then one durable commit, then the receipt.

In: id and subject HMACs. Out: `Preview` or `Acceptance`. The cost grows with the records named,
never with the run: a slice's digest is updated by taking the deleted records out of its sum
(`lthash.py`). What follows the receipt is in `progress.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update

from s3t_ray.errors import UnknownRecords
from s3t_ray.ledger import progress, stages
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.records import require_run
from s3t_ray.ledger.resolve import Request, Resolved, chunks, resolve
from s3t_ray.ledger.schema import DELETIONS, HITS, LINKS, PRUNED, RECORDS, SLICES
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import Acceptance, DeletionState, EventKind, Preview, Receipt

REQUEST_ID_CHARACTERS = 16


def preview(connection: Connection, ids: Sequence[bytes], subjects: Sequence[bytes]) -> Preview:
    """See `Ledger.preview`."""
    require_run(connection)
    found = resolve(connection, Request.of(ids, subjects))
    return Preview(
        found.hits,
        len(found.ids),
        found.already_deleted,
        found.unknown_ids,
        found.unknown_subjects,
        tuple(row.id for row in stages.dependents(connection, found.places)),
    )


def accept(tx: Transaction, ids: Sequence[bytes], subjects: Sequence[bytes]) -> Acceptance:
    """See `Ledger.accept_deletion`."""
    request = Request.of(ids, subjects)
    digest = request.digest
    found = resolve(tx.connection, request)
    request_id = digest[:REQUEST_ID_CHARACTERS]
    known = tx.connection.scalar(select(DELETIONS.c.sequence).where(DELETIONS.c.request_digest == digest))
    if known is None:
        _require_known(tx.connection, found)
        receipt = _write(tx, found, digest, request_id)
    else:
        receipt = progress.read_deletion(tx.connection, request_id).receipt
    return Acceptance(receipt, found.unknown_ids, found.unknown_subjects, known is not None)


def _require_known(connection: Connection, found: Resolved) -> None:
    if not found.ids and not found.already_deleted:
        require_run(connection)
        raise UnknownRecords(
            f"the run holds none of the {found.unknown} records and subjects named",
            "check the ids, and that this is the run they belong to; nothing was deleted",
        )


def _write(tx: Transaction, found: Resolved, digest: str, request_id: str) -> Receipt:
    sequence = tx.next_sequence()
    tx.connection.execute(
        insert(DELETIONS).values(
            sequence=sequence,
            request_id=request_id,
            request_digest=digest,
            state=str(DeletionState.ACCEPTED),
            records=len(found.ids),
            already_deleted=found.already_deleted,
            unknown=found.unknown,
            accepted_at=tx.now,
        )
    )
    for chunk in chunks(found.ids):
        tx.connection.execute(update(RECORDS).where(RECORDS.c.id_hmac.in_(chunk)).values(deletion=sequence))
    if found.earlier:
        tx.connection.execute(
            insert(LINKS), [{"deletion": sequence, "earlier": earlier} for earlier in sorted(found.earlier)]
        )
    _leave_slices(tx.connection, found, sequence)
    stale = stages.dependents(tx.connection, found.places)
    for position, row in enumerate(stale):
        stages.turn_stale(tx, row, sequence)
        tx.connection.execute(
            insert(PRUNED).values(deletion=sequence, position=position, stage=row.id, adapter_sha256=row.adapter_sha256)
        )
    hits = found.hits
    shards: list[int | None] = [*sorted({hit.shard for hit in hits})]
    for shard in shards or [None]:
        detail = {
            "request": request_id,
            "hits": [[hit.slice, hit.records] for hit in hits if hit.shard == shard],
        }
        tx.event(EventKind.DELETION_ACCEPTED, shard, detail)
    stopped = tuple(row.id for row in stale)
    return Receipt(request_id, tx.now, len(found.ids), found.already_deleted, found.unknown, hits, stopped)


def _leave_slices(connection: Connection, found: Resolved, sequence: int) -> None:
    """Take the records out of the digests of their slices, and keep what each digest was."""
    for (shard, index), digests in sorted(found.digests.items()):
        place = (SLICES.c.shard == shard, SLICES.c.slice == index)
        row = connection.execute(select(SLICES.c.records, SLICES.c.lthash, SLICES.c.digest).where(*place)).one()
        lthash = LtHash16(row.lthash, row.records)
        lthash.remove(digests)
        after = lthash.digest()
        connection.execute(
            update(SLICES).where(*place).values(records=lthash.members, lthash=lthash.state, digest=after)
        )
        connection.execute(
            insert(HITS).values(
                deletion=sequence,
                shard=shard,
                slice=index,
                records=len(digests),
                digest_before=row.digest,
                digest_after=after,
            )
        )
