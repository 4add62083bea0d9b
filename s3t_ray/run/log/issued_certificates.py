"""The proofs that a run issues: the certificate or receipt of one deletion, or the entire log.

In: an open run. Out: canonical JSON exactly as it was signed. Damaged entries are refused, and so are entries signed
with another key than the run's, if the key folder has the public key.
"""

from __future__ import annotations

from s3t_ray.errors import LedgerError, VerificationFailed
from s3t_ray.ledger.keys import PUBLIC_FILE
from s3t_ray.ledger.rows.log_rows import CERTIFYING, EntryKind
from s3t_ray.ledger.values import StoredEntry
from s3t_ray.proof.certificate import Certificate
from s3t_ray.proof.key_entry import keys_of
from s3t_ray.proof.run_log import name_of, parse_entry, verify_certificate, verify_entry
from s3t_ray.proof.signed_entry import LogKeys, SignedEntry
from s3t_ray.run.run import Run


def certificate_of(run: Run, request_id: str) -> str:
    """The newest certificate of one deletion: the final one, or until then the interim one.

    LedgerError: there is no such deletion, or it is not purged yet. VerificationFailed: the ledger's entry is not a
    genuine certificate of it.
    """
    rows = _rows_of(run, request_id)
    newest = next(kind for kind in reversed(CERTIFYING) if kind in rows)
    return _genuine(run, rows[newest])[0]


def entries_of(run: Run, request_id: str) -> tuple[str, ...]:
    """All entries of one deletion: its receipt if there is one, then its certificates, newest last.

    Reads nothing about other deletions. Raises as `certificate_of` does. VerificationFailed: the receipt named in the
    certificate is missing.
    """
    rows = _rows_of(run, request_id)
    found = [_genuine(run, rows[kind]) for kind in (EntryKind.RECEIPT, *CERTIFYING) if kind in rows]
    newest = found[-1][1]
    named = newest.facts.receipt if isinstance(newest, Certificate) else None
    if named != (found[0][1].hash if EntryKind.RECEIPT in rows else None):
        raise VerificationFailed(
            f"{name_of(newest)} names a receipt that is not the one in the log", "run `s3t audit` to investigate"
        )
    return tuple(text for text, _ in found)


def _rows_of(run: Run, request_id: str) -> dict[str, StoredEntry]:
    """The entries of one deletion by kind, unchecked. LedgerError: it has no certificate yet."""
    request_id = run.request_named(request_id)
    deletion = run.ledger.deletion(request_id)
    rows = {row.kind: row for row in run.ledger.log_of(request_id)}
    if rows.keys().isdisjoint(CERTIFYING):
        raise LedgerError(
            f"deletion {request_id} is {deletion.state}: it has no certificate yet",
            "wait until it is purged (`s3t status`); `s3t train` with the run's config continues it",
        )
    return rows


def _genuine(run: Run, row: StoredEntry) -> tuple[str, SignedEntry]:
    key = _public_key(run)
    entry = verify_certificate(row.text, key) if row.kind in CERTIFYING else verify_entry(row.text, key)
    if getattr(entry.facts, "request_id", None) != row.request_id:
        raise VerificationFailed(
            f"the {row.kind} in the ledger for deletion {row.request_id} belongs to another deletion",
            "run `s3t audit` to investigate",
        )
    return row.text, entry


def receipt_of(run: Run, request_id: str) -> str:
    """The signed receipt of one deletion, as it is in the log.

    LedgerError: there is no such deletion, or a version that signed no receipts accepted it.
    """
    request_id = run.request_named(request_id)
    run.ledger.deletion(request_id)
    for row in run.ledger.log_of(request_id):
        if row.kind == EntryKind.RECEIPT:
            return _genuine(run, row)[0]
    raise LedgerError(
        f"deletion {request_id} has no signed receipt: an older version accepted it", "use its certificate alone"
    )


def chain_of(run: Run) -> tuple[str, ...]:
    """The run's entire log, oldest entry first. VerificationFailed: an entry is not genuine."""
    texts = tuple(row.text for row in run.ledger.log())
    key = _public_key(run)
    for text in texts:
        verify_entry(text, key)
    return texts


def key_changes_of(run: Run) -> tuple[str, ...]:
    """The entries that changed the log's signing key, needed by anyone who has an old key."""
    return tuple(row.text for row in run.ledger.log((EntryKind.KEY,)))


def log_keys(run: Run, public_key: bytes) -> LogKeys:
    """All keys of the run's log, given one of them (PEM). VerificationFailed: a change of key is not genuine."""
    return keys_of(public_key, [parse_entry(row.text) for row in run.ledger.log((EntryKind.KEY,))])


def _public_key(run: Run) -> LogKeys | None:
    """The log's keys. None: the public key is lost, so an entry can only be checked with the key it contains."""
    path = run.location.keys_dir / PUBLIC_FILE
    return log_keys(run, path.read_bytes()) if path.is_file() else None
