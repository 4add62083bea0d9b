"""Since when a run's rows and files have seals; those made by older versions are not covered."""

from __future__ import annotations

from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.rows.log_rows import EntryKind
from s3t_ray.proof.run_entry import RunEntry
from s3t_ray.proof.run_log import verify_entry
from s3t_ray.proof.signed_entry import LogKeys
from s3t_ray.run.log.issued_certificates import log_keys
from s3t_ray.run.run import Run


def sealed_since(run: Run, keys: LogKeys | None = None) -> int:
    """The sequence number in the ledger after which a stage must have a seal; 0 for a run started with seals.

    A run that an older version started has stages without seals; everything up to this number is not covered. `keys`:
    keys of the log; None: the run's own. An entry that none of them signed has no effect.
    """
    rows = run.ledger.log((EntryKind.RUN,))
    for row in rows:
        try:
            entry = verify_entry(row.text, keys or log_keys(run, run.keys.public_key_pem))
        except VerificationFailed:
            continue  # reported elsewhere
        if isinstance(entry, RunEntry):
            return entry.facts.ledger_sequence if entry.facts.sealed == "upgrade" else 0
    if rows or run.ledger.is_sealed():
        return 0
    return run.ledger.events()[-1].seq  # never sealed: `Ledger.contradictions` reports it
