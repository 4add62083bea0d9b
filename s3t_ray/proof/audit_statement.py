"""An auditor's statement: what a third party checked and found in a run, signed with the auditor's own key.

In: the findings. Out: an in-toto statement in a DSSE envelope, and back. Pure. Does not involve the run's keys.
docs/proofs.md describes the predicate.
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import ValidationError

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.dsse import STATEMENT, enveloped, opened
from s3t_ray.proof.signed_entry import Count, Digest, RunId, Signer, Value, canonical, raw_public_key

PREDICATE = "urn:s3t-ray:audit:1"


class ReplayFinding(Value):
    """One stage that was retrained from the base model and the retained records alone."""

    stage: str
    shard: int
    slices: tuple[Count, ...]
    adapter_sha256: str
    """Digest of the stage's adapter in the run's ledger."""
    verdict: Literal["equal", "differs", "not_proved"]
    largest_difference: float | None
    """Largest difference between numbers of the two adapters; None: they cannot be compared."""
    mismatches: tuple[str, ...]
    """Hardware and library versions that differ from those of the stage's training."""


class AuditFacts(Value):
    """The facts that an auditor states."""

    run: str
    run_id: RunId
    run_key: Digest
    """The run's public key, which the auditor got from another source: raw, hex."""
    entries: Count
    """Number of entries found in the run's log."""
    head: Digest
    """Hash of the newest entry."""
    root: Digest
    """Root hash of the log as a Merkle tree, which a checkpoint of this size must have."""
    recipe_digest: str
    base_digest: str
    at: str
    records: Count
    stages: Count
    excused: tuple[str, ...]
    """Deletions that were not purged yet, so their remaining data was not a problem."""
    problems: tuple[str, ...]
    replayed: tuple[ReplayFinding, ...]
    result: Literal["verified", "not_proved", "failed"]
    not_checked: tuple[str, ...]
    software: dict[str, str]


def statement_about(facts: AuditFacts) -> dict[str, object]:
    """The in-toto statement, about the log's newest entry and the retrained adapters."""
    replayed = sorted(facts.replayed, key=lambda stage: stage.stage)
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": f"run/{facts.run_id}/log/{facts.entries}", "digest": {"sha256": facts.head}},
            *({"name": f"stage/{each.stage}", "digest": {"sha256": each.adapter_sha256}} for each in replayed),
        ],
        "predicateType": PREDICATE,
        "predicate": facts.model_dump(mode="json"),
    }


def audit_envelope(facts: AuditFacts, auditor: Signer) -> str:
    """The statement, signed by the auditor."""
    return enveloped(statement_about(facts), auditor)


def read_audit(text: str, auditor_key: bytes, run_key: bytes | None = None) -> AuditFacts:
    """The facts stated by the auditor with this key (PEM). `run_key`: PEM of the run that it must be about.

    VerificationFailed.
    """
    statement = opened(text, [raw_public_key(auditor_key)])
    if statement.get("predicateType") != PREDICATE:
        raise VerificationFailed(
            f"this statement is of type {str(statement.get('predicateType'))[:80]!r}, not {PREDICATE}",
            "give what `s3t verify --as-auditor` wrote; `s3t check-certificate` checks a deletion's",
        )
    try:
        facts = AuditFacts.model_validate_json(json.dumps(statement.get("predicate")))
    except ValidationError as error:
        first = error.errors()[0]
        raise VerificationFailed(
            f"this statement cannot be read: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}",
            "if it was not changed, another version of s3t_ray wrote it: check it with that one (see its `software`)",
        ) from error
    if canonical(statement) != canonical(statement_about(facts)):
        raise VerificationFailed("this statement contradicts itself", "ask the auditor for another")
    if run_key is not None and raw_public_key(run_key).hex() != facts.run_key:
        raise VerificationFailed(
            "this statement is about a run with another key", "ask for the statement about the run that you mean"
        )
    return facts
