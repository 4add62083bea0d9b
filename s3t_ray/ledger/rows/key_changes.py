"""Changes of the run's signing key, as entries of its log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from s3t_ray.errors import VerificationFailed
from s3t_ray.ledger.rows import log_rows
from s3t_ray.ledger.rows.log_rows import EntryKind, LogPosition
from s3t_ray.ledger.transaction import Transaction
from s3t_ray.proof.key_entry import (
    CarriedKeyEntry,
    CarriedKeyFacts,
    KeyEntry,
    KeyFacts,
    change_in,
    check_change,
    consent_bytes,
)
from s3t_ray.proof.signed_entry import ChainHead, Signer, signed


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


def carry(tx: Transaction, signer: Signer, changes: Sequence[str], lost: ChainHead) -> CarriedKeyEntry:
    """See `Ledger.carry_key`."""

    def make(position: LogPosition) -> CarriedKeyEntry:
        facts = CarriedKeyFacts(
            **position._asdict(), at=tx.now, next_key=signer.public_key.hex(), changes=tuple(changes), lost=lost
        )
        entry = signed(CarriedKeyEntry, signer, facts=facts)
        check_change(entry)
        if change_in(entry).before != log_rows.signing_key(tx.connection):
            raise VerificationFailed(
                "the changes of key of the lost log do not begin with the key that signs the restored one",
                "restore a ledger that the copy of the log continues",
            )
        return entry

    return log_rows.append_next(tx, EntryKind.KEY, None, make, log_rows.read_next(tx))
