"""The entry that switches a run's log to another signing key: a rotation, or a hand-over to another operator.

The current key signs it, and the new key signs its position, so neither is named without its consent. The new key signs
all later entries. Someone who steals the old key later cannot add entries.

A log that was restored from a backup from before such a change cannot be signed by its former key, which is erased. It
switches with a `CarriedKeyEntry`: the later key signs it, and it contains the change from the lost history, to which
the earlier key had agreed. It names the end of that history, so every reader learns of the fork.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from pydantic import Field, ValidationError

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.signed_entry import (
    ChainHead,
    Digest,
    LogKeys,
    RunFacts,
    SignedEntry,
    check_signature,
    raw_public_key,
)


class KeyFacts(RunFacts):
    """The key that signs from now on, and the reason."""

    at: str
    reason: Literal["rotation", "hand-over"]
    to: str | None
    """Name of the new operator, as given by the operator; None: the same as before."""
    next_key: Digest  # raw Ed25519, hex
    consent: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
    """Signature of the next key over `consent_bytes`."""


class KeyEntry(SignedEntry):
    """The entry."""

    format: Literal["s3t/key/1"] = "s3t/key/1"
    facts: KeyFacts


class CarriedKeyFacts(RunFacts):
    """The changes in a lost history that make this key sign from now on, and what was lost."""

    at: str
    next_key: Digest
    """Raw Ed25519, hex; this key also signs this entry."""
    changes: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    """Canonical texts of the changes of key, oldest first, from the current key to `next_key`."""
    lost: ChainHead
    """The newest entry of the log before it was restored."""


class CarriedKeyEntry(SignedEntry):
    """The entry."""

    format: Literal["s3t/key/2"] = "s3t/key/2"
    facts: CarriedKeyFacts


AnyKeyEntry = KeyEntry | CarriedKeyEntry
KEY_ENTRIES = (KeyEntry, CarriedKeyEntry)


@dataclass(frozen=True)
class KeyChange:
    """A change of key: the key (hex) that signs up to an entry, and the key that signs after it."""

    before: str
    after: str
    last: int  # number of the last entry that `before` signed


def change_in(entry: AnyKeyEntry) -> KeyChange:
    """The change in the entry, unchecked. VerificationFailed: it contains no change of key."""
    if isinstance(entry, KeyEntry):
        return KeyChange(entry.public_key, entry.facts.next_key, entry.facts.sequence)
    first = change_in(_carried(entry, entry.facts.changes[0]))
    return KeyChange(first.before, entry.facts.next_key, entry.facts.sequence - 1)


def consent_bytes(run_id: str, sequence: int, key: str, next_key: str) -> bytes:
    """The bytes that the next key signs: it follows this key (both hex) at this position in this run's log."""
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


def check_change(entry: AnyKeyEntry) -> None:
    """VerificationFailed unless both keys agreed to the change. Does not check the signature of the entry itself."""
    if isinstance(entry, KeyEntry):
        check_consent(entry)
        return
    signer = change_in(entry).before
    for text in entry.facts.changes:
        carried = _carried(entry, text)
        change = change_in(carried)
        if change.before != signer:
            raise _not_carried(entry, "the changes of key in it do not follow one another")
        _check(carried)
        signer = change.after
    if not signer == entry.facts.next_key == entry.public_key:
        raise _not_carried(entry, "the changes of key in it do not lead to the key that signs it")


def keys_of(public_key: bytes, changes: Iterable[SignedEntry]) -> LogKeys:
    """The keys of a log, given one trusted key (PEM), and the entries that each may have signed.

    `changes`: entries of the log; entries other than changes of key are ignored. A change counts if one of its two keys
    is trusted, both signed it, and it is above or below all changes that led to it. VerificationFailed: a change that
    would count is not genuine.
    """
    trusted = raw_public_key(public_key).hex()
    known = sorted((entry for entry in changes if isinstance(entry, KEY_ENTRIES)), key=lambda each: each.facts.sequence)
    told = [(entry, change_in(entry)) for entry in known]
    spans: dict[str, tuple[int, int | None]] = {trusted: (1, None)}
    here = trusted
    for entry, change in told:  # upward: the trusted key names the one that follows
        if change.before == here and change.after not in spans:
            _check(entry)
            spans[here] = (spans[here][0], change.last)
            here = change.after
            spans[here] = (change.last + 1, None)
    here = trusted
    for entry, change in reversed(told):  # downward: the trusted key agreed to follow another
        if change.after == here and change.before not in spans:
            _check(entry)
            spans[here] = (change.last + 1, spans[here][1])
            here = change.before
            spans[here] = (1, change.last)
    return LogKeys(spans)


def _check(entry: AnyKeyEntry) -> None:
    check_signature(entry, f"entry {entry.facts.sequence} of the log of run {entry.facts.run!r}", None)
    check_change(entry)


def _carried(entry: CarriedKeyEntry, text: str) -> AnyKeyEntry:
    """A change of key in the entry; checks only its run."""
    for kind in KEY_ENTRIES:
        try:
            found = kind.model_validate_json(text)
        except ValidationError:
            continue
        if found.to_json() == text and found.facts.run_id == entry.facts.run_id:
            return found
    raise _not_carried(entry, "what it carries is no change of key of this run")


def _not_carried(entry: CarriedKeyEntry, why: str) -> VerificationFailed:
    return VerificationFailed(
        f"entry {entry.facts.sequence} of the log of run {entry.facts.run!r} names a key that nothing leads to: {why}",
        "it was changed or forged: get it again from the run's ledger",
    )
