"""Proofs that an entry of a deletion is in the run's published log, for commands and HTTP."""

from __future__ import annotations

from enum import StrEnum

from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.run.log.published_log import proof_of, published
from s3t_ray.run.run import Run
from s3t_ray.tlog.log_head import LogHead


class ProvedEntry(StrEnum):
    """The entry of a deletion that a proof covers."""

    CERTIFICATE = "certificate"  # the newest: the interim one until the final one exists
    RECEIPT = "receipt"


_KINDS = {
    ProvedEntry.CERTIFICATE: (EntryKind.CERTIFICATE, EntryKind.INTERIM),
    ProvedEntry.RECEIPT: (EntryKind.RECEIPT,),
}


def proof_for(run: Run, request_id: str, of: ProvedEntry) -> str | None:
    """The proof (text of a c2sp.org/tlog-proof); None: there is no such entry, or it is not published yet.

    LedgerError: there is no such deletion. VerificationFailed: the published log does not hold the ledger's entry.
    """
    request_id = run.request_named(request_id)
    run.ledger.deletion(request_id)
    rows = {row.kind: row.sequence for row in run.ledger.log_of(request_id)}
    sequence = next((rows[kind] for kind in _KINDS[of] if kind in rows), None)
    note = published(run)
    if sequence is None or note is None or LogHead.parse(note.text).size < sequence:
        return None
    return proof_of(run, sequence, note)
