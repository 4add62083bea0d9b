"""Checks issued proofs offline: some entries of a log, and the receipt that they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.certificate import AnyCertificate, CertificateV1, check_sense, receipt_of
from s3t_ray.proof.key_entry import keys_of
from s3t_ray.proof.log_leaf import check_inclusion
from s3t_ray.proof.receipt import SignedReceipt, read_handed
from s3t_ray.proof.run_log import name_of, parse_entry, verify_entry
from s3t_ray.proof.signed_entry import Count, Digest, LogKeys, SignedEntry, Value, check_signature
from s3t_ray.tlog.log_proof import LogProof
from s3t_ray.tlog.signed_note import VerifierKey


def check_handed_out(texts: Sequence[str], public_key: bytes) -> tuple[tuple[SignedEntry, ...], int]:
    """The entries by number, and how many numbers between them are missing. VerificationFailed: not one log.

    Adjacent entries must follow each other. A log of the first format had only certificates, so none may be missing
    between two of those.
    """
    keys = keys_among(texts, public_key)
    entries = sorted((verify_entry(text, keys) for text in texts), key=lambda entry: entry.facts.sequence)
    for entry in entries:
        if isinstance(entry, AnyCertificate):
            check_sense(entry)
    missing = 0
    for before, after in pairwise(entries):
        gap = after.facts.sequence - before.facts.sequence - 1
        only_certificates = isinstance(before, CertificateV1) and isinstance(after, CertificateV1)
        if gap < 0:
            raise _twice(before, after)
        if (gap == 0 and after.facts.previous != before.hash) or (gap and only_certificates):
            raise VerificationFailed(
                f"the chain breaks: entry {after.facts.sequence} does not follow entry {before.facts.sequence}",
                "one is missing, swapped or replaced: get the log again from the run (`s3t certificate RUN`)",
            )
        if _run_of(before) not in (None, _run_of(after)):
            raise VerificationFailed(
                f"{name_of(before)} and {name_of(after)} are from two runs, {_run_of(before)} and {_run_of(after)}",
                "check the certificates of one run at a time",
            )
        missing += gap
    return tuple(entries), missing


def keys_among(texts: Sequence[str], public_key: bytes) -> LogKeys:
    """The keys of the log that the changes of key in these texts connect to the trusted one (PEM)."""
    return keys_of(public_key, [parse_entry(text) for text in texts])


def check_receipt(
    text: str, public_key: bytes | LogKeys, entries: Sequence[SignedEntry], ids: Sequence[str], subjects: Sequence[str]
) -> SignedReceipt:
    """The receipt in `text`, if it is genuine and the given certificates are of its deletion.

    `ids`, `subjects`: exactly the names that it must have; none: not checked. VerificationFailed.
    """
    handed = read_handed(text)
    receipt = handed.receipt
    check_signature(receipt, name_of(receipt), public_key)
    if (ids or subjects) and not handed.is_of(ids, subjects):
        raise VerificationFailed(
            f"{name_of(receipt)} does not name exactly the given ids and subjects",
            "give all ids and subjects of the request, spelled as in the request",
        )
    for entry in entries:
        if entry.facts.sequence == receipt.facts.sequence and entry.hash != receipt.hash:
            raise _twice(receipt, entry)
        if isinstance(entry, AnyCertificate) and receipt_of(entry) != receipt.hash:
            raise VerificationFailed(
                f"{name_of(entry)} does not belong to the deletion of this receipt ({receipt.facts.request_id})",
                "give the certificate of that deletion: `s3t certificate RUN REQUEST`",
            )
    return receipt


class Inclusion(Value):
    """An entry that is included in a signed checkpoint of its run's log."""

    entry: Count
    """Its number in the log, from 1."""
    size: Count
    """Entries of the log at the checkpoint."""
    root: Digest
    """Root hash of the log's tree at the checkpoint."""
    cosigned: tuple[str, ...]
    """Names of the witnesses that had seen that log, with their times (UTC)."""


def check_proofs(
    proofs: Sequence[str],
    entries: Sequence[SignedEntry],
    witnesses: Sequence[VerifierKey] = (),
    quorum: int | None = None,
    keys: LogKeys | None = None,
) -> tuple[Inclusion, ...]:
    """What each proof (text of a c2sp.org/tlog-proof) proves about one of these genuine entries.

    `quorum`: witnesses that must have cosigned each checkpoint; None: all given. `keys`: see `check_inclusion`.
    VerificationFailed.
    """
    if witnesses and not proofs:
        raise VerificationFailed(
            "witnesses sign checkpoints, but there is no proof that leads to one", "give --proof too"
        )
    by_number = {entry.facts.sequence: entry for entry in entries}
    found = []
    for text in proofs:
        number = LogProof.parse(text).index + 1
        entry = by_number.get(number)
        if entry is None:
            raise VerificationFailed(
                f"the proof is for entry {number} of a log, which was not given",
                "give the certificate or receipt that came with the proof",
            )
        head, seen = check_inclusion(entry, text, tuple(witnesses), len(witnesses) if quorum is None else quorum, keys)
        names = tuple(f"{key.name} {datetime.fromtimestamp(time, UTC).isoformat()}" for key, time in seen.items())
        found.append(Inclusion(entry=number, size=head.size, root=head.root.hex(), cosigned=names))
    return tuple(found)


def _twice(one: SignedEntry, other: SignedEntry) -> VerificationFailed:
    return VerificationFailed(
        f"{name_of(one)} and {name_of(other)} are both number {other.facts.sequence} of the log of run "
        f"{other.facts.run!r}: it was written twice, or they are from two runs",
        "keep both, and have the run audited with them (`s3t audit --certificate`)",
    )


def _run_of(entry: SignedEntry) -> str | None:
    run_id = getattr(entry.facts, "run_id", None)
    return None if run_id is None else str(run_id)
