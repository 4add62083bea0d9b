"""Certificates in the ledger: the facts of one deletion, signed and added to the log in one transaction.

One transaction writes the final certificate and the state `restored`, so there is never one without the other. The
interim certificate follows `purged` immediately.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Row, bindparam, select

from s3t_ray.errors import LedgerError, VerificationFailed
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
from s3t_ray.proof.run_log import name_of, parse_certificate


@dataclass(frozen=True)
class Circumstances:
    """Facts of a certificate that are not in the ledger."""

    orders: OrderChoice
    software: Mapping[str, str]  # name -> version of packages that affect weights
    trained_anew: Collection[str] = field(default=())
    """Live stages with their worker's seal whose adapter equals one that was taken out of service."""


def certify(tx: Transaction, request_id: str, final: bool, circumstances: Circumstances) -> Certificate:
    """See `Ledger.certify`."""
    row = deletion_progress.find(tx.connection, request_id)
    kind = EntryKind.CERTIFICATE if final else EntryKind.INTERIM
    existing = log_rows.read_text(tx.connection, kind, row.sequence)
    if existing is not None:
        certificate = log_rows.genuine(tx.connection, existing, tx.keys.public_key)
        if isinstance(certificate, AnyCertificate) and not isinstance(certificate, Certificate):
            raise LedgerError(f"deletion {request_id} already has a certificate of an older format", "keep that one")
        if not isinstance(certificate, Certificate) or certificate.facts.request_id != request_id:
            raise VerificationFailed(
                f"the log's entry for the certificate of deletion {request_id} is {name_of(certificate)}",
                "run `s3t audit` to investigate",
            )
        if final and row.state != DeletionState.RESTORED:
            raise LedgerError(
                f"deletion {request_id} is {row.state} but already has its final certificate: the ledger was "
                "changed outside the run",
                "run `s3t audit` to investigate, and restore the ledger from a copy",
            )
        return certificate
    if row.state != DeletionState.PURGED:
        raise LedgerError(
            f"deletion {request_id} is {row.state}: only a purged deletion gets a certificate",
            "purge it first; if it is restored, read its existing certificate",
        )

    def make(position: LogPosition) -> Certificate:
        facts = _facts(tx, row, final, position, circumstances.trained_anew)
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
    pruned = {row.adapter_sha256 for row in connection.execute(_PRUNED_BY, {"by_deletion": deletion})}
    if not pruned:
        return ()
    shards = {hit.shard for hit in connection.execute(_HIT_BY, {"by_deletion": deletion})}
    return tuple(row.id for row in stage_rows.live_rows(connection, shards) if row.adapter_sha256 in pruned)


def read_changes(connection: Connection, deletion: int) -> tuple[tuple[SliceChange, ...], tuple[StageProof, ...]]:
    """Changes by a deletion: slices by place, and stages in the order in which they were accepted."""
    hits = connection.execute(_HIT_BY, {"by_deletion": deletion})
    pruned = connection.execute(_PRUNED_BY, {"by_deletion": deletion})
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


# Built once: a certificate runs a dozen small statements, and building them costs more than running them.
_HIT_BY = select(HITS).where(HITS.c.deletion == bindparam("by_deletion")).order_by(HITS.c.shard, HITS.c.slice)
_PRUNED_BY = select(PRUNED).where(PRUNED.c.deletion == bindparam("by_deletion")).order_by(PRUNED.c.position)
_UNCERTIFIED = (
    select(DELETIONS.c.request_id)
    .outerjoin(LOG, (LOG.c.deletion == DELETIONS.c.sequence) & (LOG.c.kind == str(EntryKind.INTERIM)))
    .where(DELETIONS.c.state == str(DeletionState.PURGED), LOG.c.sequence.is_(None))
    .order_by(DELETIONS.c.sequence)
)


def _facts(
    tx: Transaction, row: Row[Any], final: bool, position: LogPosition, trained_anew: Collection[str]
) -> CertificateFacts:
    """The facts of the deletion in `row`."""
    connection = tx.connection
    run = require_run(connection)
    if row.pruned_at is None or row.purged_at is None:
        raise LedgerError(f"deletion {row.request_id} lacks the times of its steps", "run `s3t audit` to investigate")
    slices, pruned = read_changes(connection, row.sequence)
    live = stage_rows.live_rows(connection, {change.shard for change in slices})
    signed = read_receipt(connection, row.sequence, tx.keys.public_key)
    adapters = {proof.adapter_sha256 for proof in pruned}
    return CertificateFacts(
        **position._asdict(),
        stage="final" if final else "interim",
        recipe_digest=run.recipe_digest,
        base_digest=run.base_digest,
        request_id=row.request_id,
        earlier_requests=deletion_progress.earlier_requests(connection, row.sequence),
        receipt=None if signed is None else signed.hash,
        commitment=None if signed is None else signed.facts.commitment,
        records=row.records,
        already_deleted=row.already_deleted,
        unknown=row.unknown,
        slices=slices,
        stages_pruned=pruned,
        stages_live=tuple(StageProof(id=stage.id, adapter_sha256=stage.adapter_sha256) for stage in live),
        trained_to_same_bytes=tuple(
            stage.id for stage in live if stage.adapter_sha256 in adapters and stage.id in trained_anew
        ),
        accepted_at=row.accepted_at,
        pruned_at=row.pruned_at,
        purged_at=row.purged_at,
        restored_at=tx.now if final else None,
    )
