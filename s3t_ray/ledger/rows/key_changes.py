"""The change of the run's signing key, as an entry of its log."""

from __future__ import annotations

from typing import Literal

from s3t_ray.ledger.rows import log_rows
from s3t_ray.ledger.rows.log_rows import EntryKind, LogPosition
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.proof.key_entry import KeyEntry, KeyFacts, consent_bytes
from s3t_ray.proof.signed_entry import Signer, signed


def change(tx: Transaction, following: Signer, reason: Literal["rotation", "hand-over"], to: str | None) -> KeyEntry:
    """See `Ledger.change_key`."""
    now, next_key = tx.keys.public_key.hex(), following.public_key.hex()

    def make(position: LogPosition) -> KeyEntry:
        message = consent_bytes(position.run_id, position.sequence, now, next_key)
        facts = KeyFacts(
            **position._asdict(),
            at=tx.now,
            reason=reason,
            to=to,
            next_key=next_key,
            consent=following.sign(message).hex(),
        )
        return signed(KeyEntry, tx.keys, facts=facts)

    return log_rows.append(tx, EntryKind.KEY, None, make)
