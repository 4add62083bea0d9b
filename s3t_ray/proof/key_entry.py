"""The entry by which a run's log goes over to another signing key: a rotation, or a hand-over to another operator.

The key that signed so far signs it, and the new one signs its place, so neither side is named without its consent.
Entries above it are of the new key. Nobody who takes the old key later can write anything that follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.signed_entry import (
    Digest,
    LogKeys,
    RunFacts,
    SignedEntry,
    check_signature,
    raw_public_key,
)


class KeyFacts(RunFacts):
    """Which key signs from here on, and why."""

    at: str
    reason: Literal["rotation", "hand-over"]
    to: str | None
    """Name of who signs from here on, as the operator gave it; None: the same as before."""
    next_key: Digest  # raw Ed25519, hex
    consent: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    """By the next key, over `consent_bytes`."""


class KeyEntry(SignedEntry):
    """The entry."""

    format: Literal["s3t/key/1"] = "s3t/key/1"
    facts: KeyFacts


def consent_bytes(run_id: str, sequence: int, key: str, next_key: str) -> bytes:
    """What the next key signs: that it follows this key (both hex) at this place of this run's log."""
    return f"s3t/key-consent/1\n{run_id}\n{sequence}\n{key}\n{next_key}\n".encode()


def check_consent(entry: KeyEntry) -> None:
    """VerificationFailed unless the next key agreed to follow."""
    facts = entry.facts
    message = consent_bytes(facts.run_id, facts.sequence, entry.public_key, facts.next_key)
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(facts.next_key)).verify(bytes.fromhex(facts.consent), message)
    except InvalidSignature as error:
        raise VerificationFailed(
            f"entry {facts.sequence} of the log of run {facts.run!r} names a new key that did not sign the change",
            "it was changed or forged: get it again from the run's ledger",
        ) from error


def keys_of(public_key: bytes, changes: Iterable[SignedEntry]) -> LogKeys:
    """The keys of a log one of whose keys (PEM) is trusted, and the entries that each may have signed.

    `changes`: entries of the log; those that are no change of key do not count. A change counts when one of its two
    keys is trusted, both signed it, and it is above or below all those that led to it. VerificationFailed: one that
    would count is not genuine.
    """
    trusted = raw_public_key(public_key).hex()
    known = sorted((entry for entry in changes if isinstance(entry, KeyEntry)), key=lambda entry: entry.facts.sequence)
    spans: dict[str, tuple[int, int | None]] = {trusted: (1, None)}
    here = trusted
    for entry in known:  # upward: the trusted key names the one that follows
        if entry.public_key == here and entry.facts.next_key not in spans:
            _check(entry)
            spans[here] = (spans[here][0], entry.facts.sequence)
            here = entry.facts.next_key
            spans[here] = (entry.facts.sequence + 1, None)
    here = trusted
    for entry in reversed(known):  # downward: the trusted key agreed to follow another
        if entry.facts.next_key == here and entry.public_key not in spans:
            _check(entry)
            spans[here] = (entry.facts.sequence + 1, spans[here][1])
            here = entry.public_key
            spans[here] = (1, entry.facts.sequence)
    return LogKeys(spans)


def _check(entry: KeyEntry) -> None:
    check_signature(entry, f"entry {entry.facts.sequence} of the log of run {entry.facts.run!r}", None)
    check_consent(entry)
