"""The entry by which a run's log goes over to another signing key: a rotation, or a hand-over to another operator.

The key that signed so far signs it, and the new one signs its place, so neither side is named without its consent.
Entries above it are of the new key. Nobody who takes the old key later can write anything that follows.

A log that was restored from a backup of before such a change cannot be signed by the key of then, which is erased. It
goes over by a `CarriedKeyEntry`: the later key signs it, and it carries the change of the history that was lost, by
which the earlier key had agreed. It names the end of that history, so the fork is told to everybody who reads it.
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


class CarriedKeyFacts(RunFacts):
    """By which changes of a history that was lost this key signs from here on, and what was lost."""

    at: str
    next_key: Digest
    """Raw Ed25519, hex: the key that signs this entry too."""
    changes: Annotated[tuple[str, ...], Field(min_length=1, max_length=1000)]
    """Canonical texts of the changes of key, oldest first: from the key that signed so far to `next_key`."""
    lost: ChainHead
    """The newest entry of the history that the log had before it was restored."""


class CarriedKeyEntry(SignedEntry):
    """The entry."""

    format: Literal["s3t/key/2"] = "s3t/key/2"
    facts: CarriedKeyFacts


AnyKeyEntry = KeyEntry | CarriedKeyEntry
KEY_ENTRIES = (KeyEntry, CarriedKeyEntry)


@dataclass(frozen=True)
class KeyChange:
    """What a change of key says: which key (hex) signs up to which entry, and which one after it."""

    before: str
    after: str
    last: int  # number of the last entry that `before` signed


def change_in(entry: AnyKeyEntry) -> KeyChange:
    """What the entry says, unchecked. VerificationFailed: what it carries is no change of key."""
    if isinstance(entry, KeyEntry):
        return KeyChange(entry.public_key, entry.facts.next_key, entry.facts.sequence)
    first = change_in(_carried(entry, entry.facts.changes[0]))
    return KeyChange(first.before, entry.facts.next_key, entry.facts.sequence - 1)


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


def check_change(entry: AnyKeyEntry) -> None:
    """VerificationFailed unless both keys agreed to the change; the signature of the entry itself is not checked."""
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
    """The keys of a log one of whose keys (PEM) is trusted, and the entries that each may have signed.

    `changes`: entries of the log; those that are no change of key do not count. A change counts when one of its two
    keys is trusted, both signed it, and it is above or below all those that led to it. VerificationFailed: one that
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
    """A change of key that the entry carries, unchecked but for its run."""
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
