"""Accepting a deletion: resolve, then one durable commit, then the receipt.

In: id and subject HMACs. Out: `Preview` or `Acceptance`. The cost grows with the named records, not with the run: a
slice's digest is updated by subtracting the deleted records from its sum (`lthash.py`). The later steps are in
`deletion_progress.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection, bindparam, insert, select, update

from s3t_ray.errors import LedgerError, UnknownRecords, VerificationFailed
from s3t_ray.ledger import deletion_progress, tombstones
from s3t_ray.ledger import duplicate_records as likeness
from s3t_ray.ledger.lthash import LtHash16
from s3t_ray.ledger.minhash_index import SketchSeal
from s3t_ray.ledger.query_batches import BATCH
from s3t_ray.ledger.resolve import REQUEST_ID_CHARACTERS, NamedRows, Place, Resolved, resolve
from s3t_ray.ledger.rows import log_rows, request_rows, stage_rows
from s3t_ray.ledger.rows.log_rows import EntryKind, LogPosition
from s3t_ray.ledger.rows.record_rows import require_run
from s3t_ray.ledger.rows.request_rows import RequestDetails
from s3t_ray.ledger.seals import row_seals
from s3t_ray.ledger.tables import DELETIONS, HITS, LINKS, PRUNED, RUN, SLICES
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import (
    Acceptance,
    DeletionState,
    DuplicateSearch,
    EventKind,
    Preview,
    Reach,
    Receipt,
    Similar,
)
from s3t_ray.proof.certificate import SliceChange, StageProof
from s3t_ray.proof.receipt import ReceiptFacts, SignedReceipt, effect_of
from s3t_ray.proof.run_log import name_of
from s3t_ray.proof.signed_entry import signed


def preview(
    connection: Connection, ids: Sequence[bytes], subjects: Sequence[bytes], closure: DuplicateSearch
) -> Preview:
    """See `Ledger.preview`."""
    require_run(connection)
    found = resolve(connection, NamedRows.of(ids, subjects, closure))
    alike = likeness.find(connection, found, closure.threshold)
    taken_along = likeness.take_along(connection, found, closure)
    going = frozenset(found.ids)
    near = alike.near_duplicates
    return Preview(
        found.hits,
        found.records,
        found.already_deleted,
        found.unknown_ids,
        found.unknown_subjects,
        tuple(row.id for row in stage_rows.dependents(connection, found.places)),
        taken_along,
        likeness.twins(alike.duplicates, going),
        None if near is None else likeness.twins(near, going),
        alike.forgotten,
    )


def similar(connection: Connection, named: Mapping[bytes, bytes | None], threshold: float) -> Similar:
    """See `Ledger.similar`."""
    alike = likeness.find(connection, Resolved(named=dict(named)), threshold)
    near = alike.near_duplicates
    return Similar(
        likeness.twins(alike.duplicates, frozenset()),
        None if near is None else likeness.twins(near, frozenset()),
        alike.forgotten,
    )


def accept(
    tx: Transaction,
    ids: Sequence[bytes],
    subjects: Sequence[bytes],
    closure: DuplicateSearch,
    commitment: str | None,
    details: RequestDetails,
) -> Acceptance:
    """See `Ledger.accept_deletion`."""
    request = NamedRows.of(ids, subjects, closure)
    digest = request.digest
    request_id = digest[:REQUEST_ID_CHARACTERS]
    known, is_sealed = tx.connection.execute(_KNOWN, {"digest": digest}).one()
    if known is not None:
        found = resolve(tx.connection, request)
        if found.retained:
            raise LedgerError(
                f"the ledger says that deletion {request_id} was accepted before, and still retains {found.records} of "
                "the records that it names: its rows were changed outside the run; nothing was deleted",
                "run `s3t audit` to investigate, and restore the ledger from a copy",
            )
        receipt = deletion_progress.read_deletion(tx.connection, request_id).receipt
        signed = read_receipt(tx.connection, known, tx.keys.public_key)
        request_rows.add(tx, known, details)
        return Acceptance(receipt, found.unknown_ids, found.unknown_subjects, True, 0, signed, found.named)
    if not is_sealed:
        row_seals.require_never_sealed(tx.connection)
    seal_of = tx.keys.row_seal if is_sealed else None
    found = resolve(tx.connection, request, seal_of)
    _require_known(tx.connection, found)
    named = dict(found.named)
    taken_along = likeness.take_along(tx.connection, found, closure, seal_of, _sketch_seal(tx, closure))
    sequence, receipt, signed = _write(tx, found, digest, commitment)
    request_rows.add(tx, sequence, details)
    return Acceptance(receipt, found.unknown_ids, found.unknown_subjects, False, taken_along, signed, named)


def _sketch_seal(tx: Transaction, closure: DuplicateSearch) -> SketchSeal | None:
    """The seal of every sketch that this search reads; None: it reads none, or not all sketches are sealed."""
    if closure.reach is not Reach.NEAR_DUPLICATES:
        return None
    return tx.keys.sketch_seal if row_seals.seals_of(tx.connection, tx.keys) == row_seals.SEALS_ALL else None


def read_receipt(connection: Connection, deletion: int, public_key: bytes) -> SignedReceipt | None:
    """The log entry of a deletion's receipt; None: a version that signed no receipts accepted it.

    `public_key`: the run's, 32 raw bytes. VerificationFailed: the run did not sign this entry.
    """
    text = log_rows.read_text(connection, EntryKind.RECEIPT, deletion)
    if text is None:
        return None
    entry = log_rows.genuine(connection, text, public_key)
    if not isinstance(entry, SignedReceipt):
        raise VerificationFailed(
            f"the log's entry for the receipt of deletion number {deletion} is {name_of(entry)}",
            "run `s3t audit` to investigate",
        )
    return entry


def _require_known(connection: Connection, found: Resolved) -> None:
    if not found.retained and not found.already_deleted:
        require_run(connection)
        raise UnknownRecords(
            f"the run holds none of the {found.unknown} records and subjects named",
            "check the ids, and that this is the run they belong to; nothing was deleted",
        )


def _write(tx: Transaction, found: Resolved, digest: str, commitment: str | None) -> tuple[int, Receipt, SignedReceipt]:
    """Write the deletion, its tombstones, their consequences, and the receipt in the log."""
    sequence, request_id = tx.next_sequence(), digest[:REQUEST_ID_CHARACTERS]
    counts = {"records": found.records, "already_deleted": found.already_deleted, "unknown": found.unknown}
    about = {"sequence": sequence, "request_id": request_id, "digest": digest, "now": tx.now}
    tx.connection.execute(_ADD, {**about, **counts})
    if found.earlier:
        tx.connection.execute(
            insert(LINKS), [{"deletion": sequence, "earlier": earlier} for earlier in sorted(found.earlier)]
        )
    changes = _take_out(tx.connection, found, sequence) if found.retained else []
    stale = stage_rows.dependents(tx.connection, found.places)
    stage_rows.turn_stale(tx, stale, sequence)
    if stale:
        proofs = [
            {"deletion": sequence, "position": position, "stage": row.id, "adapter_sha256": row.adapter_sha256}
            for position, row in enumerate(stale)
        ]
        tx.connection.execute(insert(PRUNED), proofs)
    hits = found.hits
    by_shard: dict[int | None, list[list[int]]] = {}
    for hit in hits:
        by_shard.setdefault(hit.shard, []).append([hit.slice, hit.records])
    told = by_shard or {None: []}
    tx.events(
        EventKind.DELETION_ACCEPTED,
        [(shard, {"request": request_id, "hits": places}) for shard, places in told.items()],
    )
    stopped = tuple(row.id for row in stale)
    receipt = Receipt(request_id, tx.now, found.records, found.already_deleted, found.unknown, hits, stopped)
    effect = effect_of(changes, [StageProof(id=row.id, adapter_sha256=row.adapter_sha256) for row in stale])
    earlier = deletion_progress.earlier_requests(tx.connection, sequence) if found.earlier else ()

    def make(position: LogPosition) -> SignedReceipt:
        facts = ReceiptFacts(
            **position._asdict(),
            request_id=request_id,
            request_digest=digest,
            accepted_at=tx.now,
            records=found.records,
            already_deleted=found.already_deleted,
            unknown=found.unknown,
            stages=len(stale),
            earlier_requests=earlier,
            effect=effect,
            commitment=commitment,
        )
        return signed(SignedReceipt, tx.keys, facts=facts)

    return sequence, receipt, log_rows.append(tx, EntryKind.RECEIPT, sequence, make)


def _take_out(connection: Connection, found: Resolved, sequence: int) -> list[SliceChange]:
    """Add the tombstones, and subtract the records from the digests of their slices. Returns the changes by place."""
    if found.records <= BATCH:
        tombstones.add(connection, found.retained, sequence)
        sums = _sums(found)
    else:
        # The database releases the GIL while it works, and so does the sum.
        with ThreadPoolExecutor(1) as beside:
            summing = beside.submit(_sums, found)
            tombstones.add(connection, found.retained, sequence)
            sums = summing.result()
    return _leave_slices(connection, sums, sequence)


def _sums(found: Resolved) -> dict[Place, LtHash16]:
    sums = {}
    for place, members in found.retained.items():
        sums[place] = LtHash16()
        sums[place].add(members.digests)
    return sums


def _leave_slices(connection: Connection, sums: Mapping[Place, LtHash16], sequence: int) -> list[SliceChange]:
    """Subtract these records from the digests of their slices, and record the former digests."""
    changes: list[SliceChange] = []
    shards: dict[int, list[int]] = {}
    for shard, index in sorted(sums):
        shards.setdefault(shard, []).append(index)
    for shard, indices in shards.items():
        changed, hits = [], []
        for row in connection.execute(_SLICES, {"of_shard": shard, "of_slices": indices}).all():
            leaving = sums[shard, row.slice]
            lthash = LtHash16(row.lthash, row.records)
            lthash.remove_sum(leaving)
            after = lthash.digest()
            place = {"of_shard": shard, "of_slice": row.slice}
            changed.append({**place, "records": lthash.members, "lthash": lthash.state, "digest": after})
            hit = {"shard": shard, "slice": row.slice, "records": leaving.members}
            hit |= {"digest_before": row.digest, "digest_after": after}
            hits.append({"deletion": sequence, **hit})
            changes.append(SliceChange(**hit))
        connection.execute(_SLICE_LEFT, changed)
        connection.execute(_ADD_HITS, hits)
    return sorted(changes, key=lambda change: (change.shard, change.slice))


# Built once: a single deletion runs a dozen small statements, and building them costs more than running them.
_KNOWN = select(
    select(DELETIONS.c.sequence).where(DELETIONS.c.request_digest == bindparam("digest")).scalar_subquery(),
    select(RUN.c.seal.is_not(None)).scalar_subquery(),
)
_ADD = insert(DELETIONS).values(
    sequence=bindparam("sequence"),
    request_id=bindparam("request_id"),
    request_digest=bindparam("digest"),
    state=str(DeletionState.ACCEPTED),
    records=bindparam("records"),
    already_deleted=bindparam("already_deleted"),
    unknown=bindparam("unknown"),
    accepted_at=bindparam("now"),
)
_SLICES = select(SLICES.c.slice, SLICES.c.records, SLICES.c.lthash, SLICES.c.digest).where(
    SLICES.c.shard == bindparam("of_shard"), SLICES.c.slice.in_(bindparam("of_slices", expanding=True))
)
_ADD_HITS = insert(HITS)
_SLICE_LEFT = (
    update(SLICES)
    .where(SLICES.c.shard == bindparam("of_shard"), SLICES.c.slice == bindparam("of_slice"))
    .values(records=bindparam("records"), lthash=bindparam("lthash"), digest=bindparam("digest"))
)
