"""Certificates in the ledger: the facts of one deletion, signed and entered in the log in one transaction.

The final certificate and the state `restored` are one transaction, so there is never one without the other. The
interim one follows `purged`, and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from sqlalchemy import Connection, select

from s3t_ray.errors import LedgerError
from s3t_ray.ledger import deletion_progress
from s3t_ray.ledger.deletions import read_receipt
from s3t_ray.ledger.rows import log_rows, stage_rows
from s3t_ray.ledger.rows.log_rows import EntryKind, LogPosition
from s3t_ray.ledger.rows.record_rows import require_run
from s3t_ray.ledger.tables import DELETIONS, HITS, LOG, PRUNED
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import DeletionState
from s3t_ray.proof.certificate import (
    AnyCertificate,
    Certificate,
    CertificateFacts,
    OrderChoice,
    SliceChange,
    StageProof,
    check_sense,
    issue,
)
from s3t_ray.proof.run_log import parse_certificate


@dataclass(frozen=True)
class Circumstances:
    """What a certificate says that the ledger does not know."""

    orders: OrderChoice
    software: Mapping[str, str]  # name -> version of what decides weights
    trained_anew: Collection[str] = field(default=())
    """Live stages that bear their worker's seal although their adapter equals one that was taken out."""


def certify(tx: Transaction, request_id: str, final: bool, circumstances: Circumstances) -> Certificate:
    """See `Ledger.certify`."""
    row = deletion_progress.find(tx.connection, request_id)
    kind = EntryKind.CERTIFICATE if final else EntryKind.INTERIM
    existing = log_rows.read_text(tx.connection, kind, row.sequence)
    if existing is not None:
        certificate = parse_certificate(existing)
        if not isinstance(certificate, Certificate):
            raise LedgerError(
                f"deletion {request_id} has a certificate of an older format already", "keep the one it has"
            )
        if final and row.state != DeletionState.RESTORED:
            raise LedgerError(
                f"deletion {request_id} is {row.state} and has its final certificate all the same: the ledger was "
                "changed outside the run",
                "look into it with `s3t audit`, and restore the ledger from a copy",
            )
        return certificate
    if row.state != DeletionState.PURGED:
        raise LedgerError(
            f"deletion {request_id} is {row.state}: a certificate is made for one that is purged",
            "purge it first; if it is restored, read the certificate it has",
        )

    def make(position: LogPosition) -> Certificate:
        facts = _facts(tx, request_id, final, position, circumstances.trained_anew)
        certificate = issue(facts, tx.keys, circumstances.orders, circumstances.software)
        check_sense(certificate)
        return certificate

    made = log_rows.append(tx, kind, row.sequence, make)
    if final:
        deletion_progress.step(tx, row, DeletionState.RESTORED, tx.now)
    return made


def same_adapter(connection: Connection, request_id: str) -> tuple[str, ...]:
    """Live stages whose adapter equals one that this deletion took out of service."""
    deletion = deletion_progress.find(connection, request_id).sequence
    pruned = set(connection.scalars(select(PRUNED.c.adapter_sha256).where(PRUNED.c.deletion == deletion)))
    shards = connection.scalars(select(HITS.c.shard).where(HITS.c.deletion == deletion).distinct()).all()
    return tuple(row.id for row in stage_rows.live_rows(connection, shards) if row.adapter_sha256 in pruned)


def read_changes(connection: Connection, deletion: int) -> tuple[tuple[SliceChange, ...], tuple[StageProof, ...]]:
    """What a deletion changed: slices by place, stages in the order in which they were accepted."""
    hits = connection.execute(select(HITS).where(HITS.c.deletion == deletion).order_by(HITS.c.shard, HITS.c.slice))
    pruned = connection.execute(select(PRUNED).where(PRUNED.c.deletion == deletion).order_by(PRUNED.c.position))
    slices = tuple(
        SliceChange(
            shard=hit.shard,
            slice=hit.slice,
            records=hit.records,
            digest_before=hit.digest_before,
            digest_after=hit.digest_after,
        )
        for hit in hits
    )
    return slices, tuple(StageProof(id=row.stage, adapter_sha256=row.adapter_sha256) for row in pruned)


def read_certificate(connection: Connection, request_id: str) -> AnyCertificate | None:
    """See `Ledger.certificate`."""
    deletion = connection.scalar(select(DELETIONS.c.sequence).where(DELETIONS.c.request_id == request_id))
    if deletion is None:
        return None
    for kind in (EntryKind.CERTIFICATE, EntryKind.INTERIM):
        if (text := log_rows.read_text(connection, kind, deletion)) is not None:
            return parse_certificate(text)
    return None


def read_certificates(connection: Connection) -> tuple[AnyCertificate, ...]:
    """See `Ledger.certificates`."""
    rows = log_rows.read_entries(connection, (EntryKind.CERTIFICATE,))
    return tuple(parse_certificate(row.text) for row in rows)


def uncertified(connection: Connection) -> tuple[str, ...]:
    """See `Ledger.without_interim`."""
    return tuple(connection.scalars(_UNCERTIFIED))


_UNCERTIFIED = (
    select(DELETIONS.c.request_id)
    .outerjoin(LOG, (LOG.c.deletion == DELETIONS.c.sequence) & (LOG.c.kind == str(EntryKind.INTERIM)))
    .where(DELETIONS.c.state == str(DeletionState.PURGED), LOG.c.sequence.is_(None))
    .order_by(DELETIONS.c.sequence)
)


def _facts(
    tx: Transaction, request_id: str, final: bool, position: LogPosition, trained_anew: Collection[str]
) -> CertificateFacts:
    connection = tx.connection
    run = require_run(connection)
    sequence = deletion_progress.find(connection, request_id).sequence
    deletion = deletion_progress.read_deletion(connection, request_id)
    receipt, times = deletion.receipt, deletion.times
    if times.pruned is None or times.purged is None:
        raise LedgerError(f"deletion {request_id} has no time of its steps", "look into it with `s3t audit`")
    slices, pruned = read_changes(connection, sequence)
    live = stage_rows.live_rows(connection, {hit.shard for hit in receipt.hits})
    signed = read_receipt(connection, sequence)
    adapters = {proof.adapter_sha256 for proof in pruned}
    return CertificateFacts(
        **position._asdict(),
        stage="final" if final else "interim",
        recipe_digest=run.recipe_digest,
        base_digest=run.base_digest,
        request_id=request_id,
        earlier_requests=deletion_progress.earlier_requests(connection, sequence),
        receipt=None if signed is None else signed.hash,
        commitment=None if signed is None else signed.facts.commitment,
        records=receipt.records,
        already_deleted=receipt.already_deleted,
        unknown=receipt.unknown,
        slices=slices,
        stages_pruned=pruned,
        stages_live=tuple(StageProof(id=row.id, adapter_sha256=row.adapter_sha256) for row in live),
        trained_to_same_bytes=tuple(
            row.id for row in live if row.adapter_sha256 in adapters and row.id in trained_anew
        ),
        accepted_at=times.accepted,
        pruned_at=times.pruned,
        purged_at=times.purged,
        restored_at=tx.now if final else None,
    )
