"""Certificates: what a deletion did, as signed entries of the run's log.

A deletion gets two: an interim one once every byte is gone (`purged`), and a final one once the lost stages are
retrained (`restored`). A certificate contains no id and no content, only counts, digests and stage ids. With the
receipt, its commitment shows whose deletion it is (`receipt.py`).

All issued formats stay readable: `CERTIFICATE_FORMATS` lists them. To add a field, freeze `CertificateFacts` and
`Certificate` under the name of their format (as `CertificateV1` is), write the new ones beside them under the next
number, and fill the field in where the facts are collected (`ledger/certificate_chain.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import PositiveInt

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.signed_entry import Count, Digest, EntryFacts, RunId, SignedEntry, Signer, Value, signed

FORMAT = "s3t/certificate/2"


class SliceChange(Value):
    """Records that left one slice, and its digest before and after."""

    shard: int
    slice: Count
    records: PositiveInt
    digest_before: Digest
    digest_after: Digest


class StageProof(Value):
    """A stage and the SHA-256 of its adapter's bytes."""

    id: str
    adapter_sha256: str


class DeletionFacts(EntryFacts):
    """Facts about one deletion in certificates of every format."""

    recipe_digest: str
    base_digest: str
    request_id: str
    earlier_requests: tuple[str, ...]  # that deleted some of the records which this one also names
    records: Count
    already_deleted: Count
    unknown: Count
    slices: tuple[SliceChange, ...]
    stages_pruned: tuple[StageProof, ...]
    stages_live: tuple[StageProof, ...]  # of the affected shards, when the certificate was made
    accepted_at: str
    pruned_at: str
    purged_at: str
    restored_at: str | None  # None: interim


class CertificateFactsV1(DeletionFacts):
    """Facts of the first format, which had only final certificates."""

    restored_at: str


class CertificateFacts(DeletionFacts):
    """Facts about one deletion from the ledger."""

    run_id: RunId
    stage: Literal["interim", "final"]
    receipt: Digest | None  # hash of its receipt's entry; None: accepted by a version without receipts
    commitment: Digest | None  # to the requested names, as on its receipt
    trained_to_same_bytes: tuple[str, ...]
    """Live stages that were retrained, as sealed by their worker, to the bytes of a pruned stage.

    So the deleted records had no effect: they had no labelled token.
    """


class OrderChoice(Value):
    """How the orders of slices were chosen, and whether earlier deletions influenced this."""

    kind: str
    depends_on_history: bool


class AnyCertificate(SignedEntry):
    """A certificate of any format."""

    facts: DeletionFacts
    orders: OrderChoice
    software: dict[str, str]


class CertificateV1(AnyCertificate):
    """The first format, from before the log had entries of other kinds."""

    format: Literal["s3t/certificate/1"] = "s3t/certificate/1"
    facts: CertificateFactsV1


class Certificate(AnyCertificate):
    """The current format."""

    format: Literal["s3t/certificate/2"] = "s3t/certificate/2"
    facts: CertificateFacts


CERTIFICATE_FORMATS: tuple[type[AnyCertificate], ...] = (CertificateV1, Certificate)
"""All issued formats, oldest first."""


def receipt_of(certificate: AnyCertificate) -> str | None:
    """Hash of the receipt that it names; None: it names none (the first format had no receipts)."""
    return certificate.facts.receipt if isinstance(certificate.facts, CertificateFacts) else None


def issue(facts: CertificateFacts, signer: Signer, orders: OrderChoice, software: Mapping[str, str]) -> Certificate:
    """Sign the facts. `software`: name -> version of packages that affect weights."""
    return signed(Certificate, signer, facts=facts, orders=orders, software=dict(software))


def check_sense(certificate: AnyCertificate) -> None:
    """VerificationFailed if its facts cannot be true, even if the signature is valid.

    A live stage must not have the adapter of a stage that was taken out of service, unless the certificate says that a
    worker retrained it to the same bytes. Its times must be in order.
    """
    facts = certificate.facts
    name = f"the certificate of deletion {facts.request_id}"
    pruned = {proof.adapter_sha256 for proof in facts.stages_pruned}
    anew = facts.trained_to_same_bytes if isinstance(facts, CertificateFacts) else ()
    for proof in facts.stages_live:
        if proof.adapter_sha256 in pruned and proof.id not in anew:
            raise VerificationFailed(
                f"{name} lists adapter {proof.adapter_sha256[:12]} as erased, and as live in stage {proof.id[:12]}",
                "have the run audited with a replay of that stage: a deleted adapter may be in service again",
            )
    times = [facts.accepted_at, facts.pruned_at, facts.purged_at, facts.restored_at]
    known = [time for time in times if time is not None]
    if known != sorted(known):
        raise VerificationFailed(
            f"{name} has times in the wrong order: {', '.join(known)}",
            "the order of its steps is still valid; the clock of the run's machine was wrong when it was made",
        )
