"""What a run hands out as proof: the certificate or the receipt of one deletion, or its whole log.

In: an open run. Out: canonical JSON exactly as it was signed. A damaged one is not given out, nor one of another key
than the run's, while the key folder has its public half.
"""

from __future__ import annotations

from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger.keys import PUBLIC_FILE
from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.proof.run_log import verify_certificate, verify_entry
from s3t_ray.run.run import Run


def certificate_of(run: Run, request_id: str) -> str:
    """The newest certificate of one deletion: the final one, or until then the interim one.

    Raises LedgerError when there is no such deletion or it is not purged yet, VerificationFailed when
    what the ledger holds is not a genuine certificate of it.
    """
    request_id = run.request_named(request_id)
    deletion = run.ledger.deletion(request_id)
    kinds = (EntryKind.CERTIFICATE, EntryKind.INTERIM)
    for row in sorted(run.ledger.log(kinds), key=lambda row: kinds.index(EntryKind(row.kind))):
        if row.request_id == request_id:
            if verify_certificate(row.text, _public_key(run)).facts.request_id != request_id:
                raise VerificationFailed(
                    f"the certificate that the ledger has for deletion {request_id} is of another deletion",
                    "look into it with `s3t audit`",
                )
            return row.text
    raise LedgerError(
        f"deletion {request_id} is {deletion.state}: it has no certificate yet",
        "wait until it is purged (`s3t status`); `s3t train` with the run's config carries it on",
    )


def chain_of(run: Run) -> tuple[str, ...]:
    """The run's whole log, oldest entry first. Raises VerificationFailed for an entry that is not genuine."""
    texts = tuple(row.text for row in run.ledger.log())
    key = _public_key(run)
    for text in texts:
        verify_entry(text, key)
    return texts


def _public_key(run: Run) -> bytes | None:
    """None: it is lost, and an entry can only be held to the key that it carries."""
    path = run.location.keys_dir / PUBLIC_FILE
    return path.read_bytes() if path.is_file() else None
