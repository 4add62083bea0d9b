"""The chain of certificates in the ledger: facts for the next one, appending it, reading it.

A certificate and the state `restored` are one transaction, so there is never one without the other.
"""

from __future__ import annotations

from sqlalchemy import Connection, insert, select

from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger import deletion_progress, stage_rows
from s3t_ray.ledger.certificate import (
    Certificate,
    CertificateFacts,
    ChainHead,
    SliceChange,
    StageProof,
    claimed_key,
    parse_certificate,
    verify_certificate,
)
from s3t_ray.ledger.record_rows import require_run
from s3t_ray.ledger.tables import CERTIFICATES, DELETIONS, HITS, PRUNED
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.ledger.values import DeletionState, StoredCertificate


def facts(connection: Connection, request_id: str, restored_at: str) -> CertificateFacts:
    """See `Ledger.certificate_facts`."""
    run = require_run(connection)
    sequence = deletion_progress.find(connection, request_id).sequence
    deletion = deletion_progress.read_deletion(connection, request_id)
    receipt, times = deletion.receipt, deletion.times
    if deletion.state is not DeletionState.PURGED or times.pruned is None or times.purged is None:
        raise LedgerError(
            f"deletion {request_id} is {deletion.state}: a certificate is made for one that is purged",
            "purge it first; if it is restored, read the certificate it has",
        )
    head = read_head(connection)
    hits = connection.execute(select(HITS).where(HITS.c.deletion == sequence).order_by(HITS.c.shard, HITS.c.slice))
    pruned = connection.execute(select(PRUNED).where(PRUNED.c.deletion == sequence).order_by(PRUNED.c.position))
    live = stage_rows.live_rows(connection, {hit.shard for hit in receipt.hits})
    return CertificateFacts(
        sequence=head.sequence + 1,
        previous=head.hash,
        run=run.name,
        recipe_digest=run.recipe_digest,
        base_digest=run.base_digest,
        request_id=request_id,
        earlier_requests=deletion_progress.earlier_requests(connection, sequence),
        records=receipt.records,
        already_deleted=receipt.already_deleted,
        unknown=receipt.unknown,
        slices=tuple(
            SliceChange(
                shard=hit.shard,
                slice=hit.slice,
                records=hit.records,
                digest_before=hit.digest_before,
                digest_after=hit.digest_after,
            )
            for hit in hits
        ),
        stages_pruned=tuple(StageProof(id=row.stage, adapter_sha256=row.adapter_sha256) for row in pruned),
        stages_live=tuple(StageProof(id=row.id, adapter_sha256=row.adapter_sha256) for row in live),
        accepted_at=times.accepted,
        pruned_at=times.pruned,
        purged_at=times.purged,
        restored_at=restored_at,
    )


def append(tx: Transaction, certificate: Certificate) -> bool:
    """See `Ledger.append_certificate`."""
    text = certificate.to_json()
    verify_certificate(text)
    said = certificate.facts
    row = deletion_progress.find(tx.connection, said.request_id)
    if row.state == DeletionState.RESTORED:
        existing = read_certificate(tx.connection, said.request_id)
        if existing != certificate:
            raise LedgerError(
                f"deletion {said.request_id} has a certificate already, with other content", "keep the one it has"
            )
        return True
    if facts(tx.connection, said.request_id, said.restored_at) != said:
        return False
    first = tx.connection.scalar(select(CERTIFICATES.c.certificate).where(CERTIFICATES.c.sequence == 1))
    if first is not None and claimed_key(first) != certificate.public_key:
        raise VerificationFailed(
            f"the certificate of deletion {said.request_id} is signed by another key than those before it",
            "sign with the keys this run was started with (keys.dir)",
        )
    deletion_progress.step(tx, row, DeletionState.RESTORED, said.restored_at)
    tx.connection.execute(
        insert(CERTIFICATES).values(
            sequence=said.sequence, deletion=row.sequence, hash=certificate.hash, certificate=text
        )
    )
    return True


def read_certificate(connection: Connection, request_id: str) -> Certificate | None:
    """See `Ledger.certificate`."""
    text = connection.scalar(
        select(CERTIFICATES.c.certificate)
        .join(DELETIONS, CERTIFICATES.c.deletion == DELETIONS.c.sequence)
        .where(DELETIONS.c.request_id == request_id)
    )
    return None if text is None else parse_certificate(text)


def read_certificates(connection: Connection) -> tuple[Certificate, ...]:
    """See `Ledger.certificates`."""
    texts = connection.scalars(select(CERTIFICATES.c.certificate).order_by(CERTIFICATES.c.sequence))
    return tuple(map(parse_certificate, texts))


def read_rows(connection: Connection) -> tuple[StoredCertificate, ...]:
    """See `Ledger.stored_certificates`."""
    query = (
        select(CERTIFICATES.c.sequence, CERTIFICATES.c.hash, DELETIONS.c.request_id, CERTIFICATES.c.certificate)
        .outerjoin(DELETIONS, CERTIFICATES.c.deletion == DELETIONS.c.sequence)
        .order_by(CERTIFICATES.c.sequence)
    )
    return tuple(StoredCertificate(*row) for row in connection.execute(query))


def read_head(connection: Connection) -> ChainHead:
    """See `Ledger.certificate_head`."""
    row = connection.execute(
        select(CERTIFICATES.c.sequence, CERTIFICATES.c.hash).order_by(CERTIFICATES.c.sequence.desc()).limit(1)
    ).one_or_none()
    return ChainHead() if row is None else ChainHead(sequence=row.sequence, hash=row.hash)
