"""A certificate as an in-toto statement: the same facts, for tools that read attestations.

In: a certificate. Out: a statement that follows from it alone, so that it never says anything else; and back. Pure.
Its subjects are the certificate itself and the adapters that were live when it was made. Its predicate holds the
certificate as it was signed, so whoever opens the envelope has both. docs/proofs.md describes the predicate.
"""

from __future__ import annotations

from s3t_ray.errors import VerificationFailed
from s3t_ray.proof.certificate import AnyCertificate
from s3t_ray.proof.dsse import STATEMENT, enveloped, opened
from s3t_ray.proof.run_log import verify_certificate
from s3t_ray.proof.signed_entry import Signer, canonical

PREDICATE = "urn:s3t-ray:deletion:1"


def statement_of(certificate: AnyCertificate) -> dict[str, object]:
    """The statement, as in-toto has it."""
    facts = certificate.facts
    live = {proof.id: proof.adapter_sha256 for proof in facts.stages_live}
    return {
        "_type": STATEMENT,
        "subject": [
            {"name": f"certificate/{facts.request_id}", "digest": {"sha256": certificate.hash}},
            *({"name": f"stage/{stage}", "digest": {"sha256": live[stage]}} for stage in sorted(live)),
        ],
        "predicateType": PREDICATE,
        "predicate": {"certificate": certificate.model_dump(mode="json")},
    }


def deletion_envelope(certificate: AnyCertificate, signer: Signer) -> str:
    """The statement in an envelope that the run signs."""
    return enveloped(statement_of(certificate), signer)


def certificate_in(text: str, public_key: bytes) -> AnyCertificate:
    """The certificate in an envelope, both signed by this key (PEM), of which it says nothing but what follows.

    VerificationFailed.
    """
    statement = opened(text, public_key)
    predicate = statement.get("predicate")
    if statement.get("predicateType") != PREDICATE or not isinstance(predicate, dict):
        raise VerificationFailed(
            f"this statement is of type {str(statement.get('predicateType'))[:80]!r}, not {PREDICATE}",
            "give what `s3t certificate --dsse` wrote; `s3t check-statement` checks an auditor's",
        )
    certificate = verify_certificate(canonical(predicate.get("certificate")), public_key)
    if canonical(statement) != canonical(statement_of(certificate)):
        raise VerificationFailed(
            "this statement says something else than the certificate in it", "rely on the certificate alone"
        )
    return certificate
