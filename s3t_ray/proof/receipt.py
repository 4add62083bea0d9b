"""Receipts: the run's signed statement that a deletion is durable, added to its log in the same transaction.

The entry contains no id, content or place of a record. The requester gets the entry with the nonce of its commitment
(`HandedReceipt`): with both and the names, anyone can verify whose deletion it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import Literal

from pydantic import ValidationError

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.certificate import SliceChange, StageProof
from s3t_ray.proof.signed_entry import Count, Digest, RunFacts, SignedEntry, Value, canonical

_COMMITMENT = b"s3t/commitment/1\n"


class ReceiptFacts(RunFacts):
    """Facts of the accepted deletion."""

    request_id: str
    request_digest: Digest  # of the keyed hashes of the names; identifies a repeat
    accepted_at: str
    records: Count
    already_deleted: Count
    unknown: Count
    stages: Count  # that left service
    earlier_requests: tuple[str, ...]
    effect: Digest  # see `effect_of`
    commitment: Digest | None  # None: the request had hashes, no names


class SignedReceipt(SignedEntry):
    """The entry of the log."""

    format: Literal["s3t/receipt/1"] = "s3t/receipt/1"
    facts: ReceiptFacts


class HandedReceipt(Value):
    """What the requester gets. With it and the names, anyone can open the commitment."""

    format: Literal["s3t/handed-receipt/1"] = "s3t/handed-receipt/1"
    receipt: SignedReceipt
    nonce: Digest | None

    def to_json(self) -> str:
        """Canonical JSON, one line."""
        return canonical(self.model_dump(mode="json"))

    def is_of(self, ids: Sequence[str], subjects: Sequence[str]) -> bool:
        """Whether it belongs to a deletion of exactly these names."""
        wanted = self.receipt.facts.commitment
        return self.nonce is not None and wanted == commitment_to(self.nonce, ids, subjects)


def commitment_to(nonce: str, ids: Sequence[str], subjects: Sequence[str]) -> str:
    """A digest of these names that reveals nothing without the nonce (32 random bytes, hex)."""
    return commitment_to_text(nonce, named(ids, subjects))


def commitment_to_text(nonce: str, text: str) -> str:
    """The same for the result of `named`, which is most of the work for many names."""
    return hashlib.sha256(_COMMITMENT + bytes.fromhex(nonce) + text.encode()).hexdigest()


def named(ids: Sequence[str], subjects: Sequence[str]) -> str:
    """The names of a request as one text; order and repeats do not count."""
    return canonical({"ids": sorted(set(ids)), "subjects": sorted(set(subjects))})


def effect_of(slices: Sequence[SliceChange], stages: Sequence[StageProof]) -> str:
    """Digest of the changes by a deletion, so that the log commits to them without revealing places.

    It cannot be guessed, because slice digests are computed from keyed digests.
    """
    said = {
        "slices": [change.model_dump(mode="json") for change in slices],
        "stages": [proof.model_dump(mode="json") for proof in stages],
    }
    return hashlib.sha256(canonical(said).encode()).hexdigest()


def read_handed(text: str) -> HandedReceipt:
    """The handed receipt in `text`, with an unchecked signature. VerificationFailed: it is not one."""
    try:
        found = HandedReceipt.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the whole text"
        raise VerificationFailed(
            f"this is not a receipt: {place}: {first['msg']}", "give the file that `s3t delete --receipt-out` wrote"
        ) from error
    if canonical(json.loads(text, object_pairs_hook=_each_once)) != found.to_json():
        raise VerificationFailed(
            "the receipt contradicts itself: its text was changed", "give the file exactly as it was written"
        )
    return found


def _each_once(pairs: list[tuple[str, object]]) -> object:
    """The object or, if it has a repeated key, a list, which is invalid there."""
    found = dict(pairs)
    return found if len(found) == len(pairs) else pairs
