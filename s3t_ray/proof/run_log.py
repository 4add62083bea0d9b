"""Reads and checks the run's log: entries of every kind, each naming the hash of the one before.

In: texts. Out: frozen entries. Anyone with the public key can check one, or a whole log: an edited, dropped,
swapped or forged entry is refused. The `format` alone determines an entry's kind and version.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from pydantic import ValidationError

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.certificate import CERTIFICATE_FORMATS, FORMAT, AnyCertificate, Certificate, check_sense
from s3t_ray.proof.export_entry import ExportEntry
from s3t_ray.proof.key_entry import KEY_ENTRIES, CarriedKeyEntry, KeyEntry, change_in, check_change
from s3t_ray.proof.receipt import SignedReceipt
from s3t_ray.proof.run_entry import RunEntry
from s3t_ray.proof.signed_entry import ChainHead, LogKeys, SignedEntry, check_signature, raw_public_key

_KINDS: tuple[type[SignedEntry], ...] = (
    *CERTIFICATE_FORMATS,
    SignedReceipt,
    RunEntry,
    KeyEntry,
    CarriedKeyEntry,
    ExportEntry,
)
KINDS: Mapping[str, type[SignedEntry]] = {kind.model_fields["format"].default: kind for kind in _KINDS}
"""Entries by format, including those of older versions."""


def parse_entry(text: str) -> SignedEntry:
    """The entry in `text`, with an unchecked signature. VerificationFailed: it is not one, or of another version."""
    told = _claims(text).get("format")
    kind = KINDS.get(told if isinstance(told, str) else "")
    try:
        # Through JSON mode: strict, but lists become tuples.
        entry = (kind or Certificate).model_validate_json(text)
    except ValidationError as error:
        raise _unreadable(text, told, error) from error
    if entry.to_json() != text.strip():
        # Otherwise the text (with a repeated key) could differ from the signed value.
        raise VerificationFailed(
            "the entry is not in canonical JSON: its text was changed", "give the JSON exactly as it was issued"
        )
    return entry


def verify_entry(text: str, public_key: bytes | LogKeys | None = None) -> SignedEntry:
    """The entry in `text` (JSON), if it is genuine; else VerificationFailed. `public_key`: see `check_signature`."""
    entry = parse_entry(text)
    check_signature(entry, name_of(entry), public_key)
    return entry


def parse_certificate(text: str) -> AnyCertificate:
    """`parse_entry`, for a certificate of any format."""
    entry = parse_entry(text)
    if not isinstance(entry, AnyCertificate):
        raise VerificationFailed(
            f"this is not a certificate: it is {name_of(entry)}", "give what `s3t certificate` wrote"
        )
    return entry


def verify_certificate(text: str, public_key: bytes | LogKeys | None = None) -> AnyCertificate:
    """`verify_entry`, for a certificate of any format that makes sense."""
    certificate = parse_certificate(text)
    check_signature(certificate, name_of(certificate), public_key)
    check_sense(certificate)
    return certificate


def verify_chain(
    texts: Sequence[str],
    public_key: bytes | None = None,
    head: ChainHead | None = None,
    after: ChainHead | None = None,
) -> tuple[SignedEntry, ...]:
    """A log, oldest entry first, if it is complete; else VerificationFailed.

    Without `head`, a log that lacks its newest entries looks complete: ask the run for it. `public_key`: a key of the
    log at any time; without it, all entries must have the same key, except for changes that both keys signed. `after`:
    the end of the preceding part.
    """
    entries: list[SignedEntry] = []
    expected = after or ChainHead()
    signer: str | None = None
    changed = any(isinstance(parse_entry(text), KEY_ENTRIES) for text in texts)
    for text in texts:
        entry = verify_entry(text, None if changed else public_key)
        facts = entry.facts
        if facts.sequence != expected.sequence + 1 or facts.previous != expected.hash:
            raise VerificationFailed(
                f"the chain breaks: entry {facts.sequence} does not follow entry {expected.sequence}",
                "one is missing, swapped or replaced: get the log again from the run's ledger",
            )
        change = change_in(entry) if isinstance(entry, KEY_ENTRIES) else None
        if signer not in (None, entry.public_key if change is None else change.before):
            raise VerificationFailed(
                f"entry {facts.sequence} is signed with another key than the entries before it",
                "verify with the run's public key: a log has one key until an entry changes it",
            )
        signer = entry.public_key
        if isinstance(entry, KEY_ENTRIES):
            check_change(entry)
            signer = entry.facts.next_key
        expected = ChainHead(sequence=facts.sequence, hash=entry.hash)
        entries.append(entry)
    if changed and public_key is not None:
        _require_one_of(entries, public_key)
    if head is not None and head != expected:
        raise VerificationFailed(
            f"the chain ends at entry {expected.sequence}, the run's ends at {head.sequence}",
            "get the missing entries from the run's ledger",
        )
    return tuple(entries)


def _require_one_of(entries: Sequence[SignedEntry], public_key: bytes) -> None:
    """VerificationFailed unless the key (PEM) signed some entry of this chain, or signs the next one."""
    keys = {entry.public_key for entry in entries}
    changes = [change_in(entry) for entry in entries if isinstance(entry, KEY_ENTRIES)]
    keys |= {key for change in changes for key in (change.before, change.after)}
    if raw_public_key(public_key).hex() not in keys:
        check_signature(entries[0], name_of(entries[0]), public_key)


def name_of(entry: SignedEntry) -> str:
    """Name of the entry in messages."""
    facts = entry.facts
    if isinstance(entry, SignedReceipt):
        return f"the receipt of deletion {entry.facts.request_id}"
    if isinstance(entry, AnyCertificate):
        return f"the certificate of deletion {entry.facts.request_id}"
    return f"entry {facts.sequence} of the log of run {facts.run!r}"


def claimed_key(text: str) -> str | None:
    """The public key (hex) that an entry of any version claims; None: it claims none."""
    key = _claims(text).get("public_key")
    return key if isinstance(key, str) else None


def claimed_next_key(text: str) -> str | None:
    """The next public key (hex) that an entry claims; None: it claims none."""
    facts = _claims(text).get("facts")
    key = facts.get("next_key") if isinstance(facts, dict) else None
    return key if isinstance(key, str) else None


def signing_key_after(text: str) -> str | None:
    """The public key (hex) that, according to an entry, signs the next one; None: it names none."""
    return claimed_next_key(text) or claimed_key(text)


def _unreadable(text: str, told: object, error: ValidationError) -> VerificationFailed:
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the whole text"
    if not isinstance(told, str) or not told.startswith("s3t/"):
        return VerificationFailed(
            f"this is not a certificate: {place}: {first['msg']}", "give the JSON exactly as it was issued"
        )
    return VerificationFailed(
        f"this says that it is of format {told!r}, and is not what this s3t_ray (which issues {FORMAT!r}) reads as "
        f"that: {place}: {first['msg']}",
        "if it was not changed, another version of s3t_ray issued it: verify it with that one (see its `software`)",
    )


def _claims(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):  # the latter: deeply nested brackets
        return {}
    return found if isinstance(found, dict) else {}
