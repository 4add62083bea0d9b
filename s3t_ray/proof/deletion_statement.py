"""A certificate as an in-toto statement: the same facts, for tools that read attestations.

In: a certificate, and the entries that changed its log's key. Out: a statement that follows from them alone, and so
cannot say anything else; and back. Pure. Its subjects are the certificate itself and the adapters that were live when
it was made. Its predicate contains the entries as they were signed, so a reader of the envelope has both.
docs/proofs.md describes the predicate.
"""

from __future__ import annotations

from collections.abc import Sequence

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.certificate import AnyCertificate
from s3t_ray.proof.dsse import STATEMENT, enveloped, opened, peeked
from s3t_ray.proof.key_entry import keys_of
from s3t_ray.proof.run_log import parse_entry, verify_certificate
from s3t_ray.proof.signed_entry import SignedEntry, Signer, canonical

PREDICATE = "urn:s3t-ray:deletion:1"


def statement_of(certificate: AnyCertificate, key_changes: Sequence[SignedEntry] = ()) -> dict[str, object]:
    """The in-toto statement."""
    facts = certificate.facts
    live = {proof.id: proof.adapter_sha256 for proof in facts.stages_live}
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": f"certificate/{facts.request_id}", "digest": {"sha256": certificate.hash}},
            *({"name": f"stage/{stage}", "digest": {"sha256": live[stage]}} for stage in sorted(live)),
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "certificate": certificate.model_dump(mode="json"),
            "keyChanges": [entry.model_dump(mode="json") for entry in key_changes],
        },
    }


def deletion_envelope(certificate: AnyCertificate, signer: Signer, key_changes: Sequence[SignedEntry] = ()) -> str:
    """The statement in an envelope that the run signs."""
    return enveloped(statement_of(certificate, key_changes), signer)


def entries_in(text: str, public_key: bytes) -> tuple[SignedEntry, ...]:
    """The certificate in an envelope and its log's changes of key, if the statement follows from them.

    `public_key`: PEM of a key that the log had at any time. VerificationFailed.
    """
    claimed = peeked(text)
    predicate = claimed.get("predicate")
    if claimed.get("predicateType") != PREDICATE or not isinstance(predicate, dict):
        raise VerificationFailed(
            f"this statement is of type {str(claimed.get('predicateType'))[:80]!r}, not {PREDICATE}",
            "give what `s3t certificate --dsse` wrote; `s3t check-statement` checks an auditor's",
        )
    told = predicate.get("keyChanges")
    changes = tuple(parse_entry(canonical(each)) for each in told) if isinstance(told, list) else ()
    keys = keys_of(public_key, changes)
    statement = opened(text, [bytes.fromhex(key) for key in keys.spans])
    certificate = verify_certificate(canonical(predicate.get("certificate")), keys)
    if canonical(statement) != canonical(statement_of(certificate, changes)):
        raise VerificationFailed("this statement does not match the certificate in it", "rely only on the certificate")
    return (certificate, *changes)
